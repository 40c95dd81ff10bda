"""The density with which a self-consistent calculation begins."""

import warnings

import pytest
import torch
from systems import GTHFIT, dimer, rattled

from fedens import GTH, GTHLocal, KohnSham, TensorSpace
from fedens.data.density import Density
from fedens.energy.projectors import ProjectorChannel
from fedens.errors import SpaceError
from fedens.reference.kohn_sham.start import starting_density

SPACE = TensorSpace.for_structure(rattled(), 0.7, order=5)
LOCAL = KohnSham("lda_pw", GTHFIT)


def test_the_orbital_free_density(rattled_state):
    start = starting_density(rattled(), rattled_state.space, LOCAL)
    difference = rattled_state.space.integrate((start - rattled_state.density.values).abs())
    assert float(difference) < 0.03 * 12
    assert float(rattled_state.space.integrate(start)) == pytest.approx(12)


def test_with_projectors():
    channel = ProjectorChannel(0, 0.8, ((1.0,),))
    functional = KohnSham("lda_pw", GTH(3, 0.8, projectors=[channel]))
    start = starting_density(rattled(), SPACE, functional)
    assert float(start.min()) >= 0
    assert float(SPACE.integrate(start)) == pytest.approx(12)


def test_the_start_is_by_an_lda_without_a_warning():
    made_for_pbe = GTHLocal(GTHFIT.valence, GTHFIT.r_loc, GTHFIT.c1, GTHFIT.c2)
    made_for_pbe.xc_family = "gga"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        starting_density(rattled(), SPACE, KohnSham("pbe", made_for_pbe))


def test_a_guess_is_used_and_normalised():
    guess = Density(SPACE, values=2 + torch.sin(SPACE.points[:, 0]))
    start = starting_density(rattled(), SPACE, LOCAL, guess)
    ratio = start / guess.values
    assert torch.allclose(ratio, ratio[:1], rtol=1e-12)
    assert float(SPACE.integrate(start)) == pytest.approx(12)


@pytest.mark.parametrize("stretch", [1.0, 1.01])
def test_a_guess_on_another_mesh(stretch):
    elements = [n // (SPACE.order + 1) for n in SPACE.shape]
    elements = elements if stretch > 1 else 1
    other = TensorSpace([stretch * length for length in SPACE.lengths], elements, SPACE.order)
    assert (other.n_points == SPACE.n_points) == (stretch > 1)
    guess = Density(other, values=torch.ones(other.n_points, dtype=torch.float64))
    with pytest.raises(SpaceError, match="on the same space, or none"):
        starting_density(rattled(), SPACE, LOCAL, guess)


def test_an_isolated_molecule():
    space = TensorSpace.for_structure(dimer(), spacing=1.0, order=6, margin=8.0)
    start = starting_density(dimer(), space, LOCAL)
    assert float(start.min()) >= 0
    assert float(space.integrate(start)) == pytest.approx(6)
