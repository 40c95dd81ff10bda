"""What Kohn-Sham electrons feel: descriptions, electron numbers, and the potential."""

import json
import math

import pytest
import torch
from systems import EVANESCENT, GTHFIT, dimer, fcc, rattled

from fedens import GTH, KohnSham, Structure, TensorSpace
from fedens.data.density import Density
from fedens.energy.projectors import ProjectorChannel
from fedens.errors import FunctionalError, MixtureWarning, PseudopotentialError
from fedens.testing import central_difference

GTH_AL = GTH(3, 0.8, 1.0, projectors=[ProjectorChannel(0, 0.7, ((1.3, -0.4), (-0.4, 0.8)))])
FUNCTIONALS = {
    "one for all": KohnSham("lda_pw", GTHFIT),
    "by element": KohnSham("pbe", {"Al": GTH_AL, "H": EVANESCENT}, {"Al": 1.1, "H": 0.9}),
}


@pytest.mark.parametrize("name", FUNCTIONALS)
def test_a_description_is_enough(name):
    functional = FUNCTIONALS[name]
    description = json.loads(json.dumps(functional.describe()))
    again = KohnSham.from_description(description)
    assert again.describe() == functional.describe() == description
    assert description["kind"] == "kohn_sham"
    assert again.xc == functional.xc
    assert again.widths["Al"] == functional.widths["Al"]
    assert again.pseudopotentials["Al"].projectors == functional.pseudopotentials["Al"].projectors


def test_descriptions_differ_where_functionals_do():
    base = KohnSham("lda_pw", GTHFIT)
    others = [KohnSham("pbe", GTHFIT), KohnSham("lda_pw", GTH_AL), KohnSham("lda_pw", GTHFIT, 1.0)]
    assert all(other.describe() != base.describe() for other in others)


def test_a_described_functional_gives_the_same_energy():
    functional = KohnSham("pbe", {"Al": GTH_AL}, {"Al": 1.1})
    again = KohnSham.from_description(functional.describe())
    structure, space = rattled(), TensorSpace.for_structure(rattled(), 0.7)
    density = Density(space, values=torch.full((space.n_points,), 12 / space.volume).double())
    energies = [float(f.bind(structure, space).energy(density)) for f in (functional, again)]
    assert energies[0] == energies[1] != 0


def test_an_unknown_functional():
    with pytest.raises(FunctionalError, match="no_such_functional"):
        KohnSham("no_such_functional", GTHFIT)


# Electrons


def test_number_of_electrons():
    assert KohnSham("lda_pw", GTHFIT).number_of_electrons(fcc()) == 12
    hydride = Structure(["Al", "H"], [[0, 0, 0], [3.0, 0, 0]])
    pseudopotentials = {"Al": GTHFIT, "H": EVANESCENT}
    assert KohnSham("lda_pw", pseudopotentials).number_of_electrons(hydride) == 6


def test_a_charged_molecule_has_fewer():
    ion = Structure(dimer().numbers, dimer().positions, charge=2.0)
    assert KohnSham("lda_pw", GTHFIT).number_of_electrons(ion) == 4


def test_half_occupied_sites_have_half():
    half = Structure(fcc().numbers, fcc().positions, fcc().cell, True, occupancies=[1, 1, 1, 0.5])
    assert KohnSham("lda_pw", GTHFIT).number_of_electrons(half) == 10.5


@pytest.mark.parametrize("charge", [1.0, -1.0])
def test_charged_crystals_are_refused(charge):
    crystal = Structure(fcc().numbers, fcc().positions, fcc().cell, True, charge=charge)
    with pytest.raises(FunctionalError, match="charged periodic cells are not supported"):
        KohnSham("lda_pw", GTHFIT).number_of_electrons(crystal)


def test_magnetic_structures_are_refused():
    magnetic = Structure(dimer().numbers, dimer().positions, spin=2)
    with pytest.raises(FunctionalError, match=r"spin is 2: .* set spin=0"):
        KohnSham("lda_pw", GTHFIT).number_of_electrons(magnetic)


@pytest.mark.parametrize("charge", [6.0, 7.0])
def test_no_electrons_are_refused(charge):
    bare = Structure(dimer().numbers, dimer().positions, charge=charge)
    with pytest.raises(FunctionalError, match=r"would have -?[01].0 electrons"):
        KohnSham("lda_pw", GTHFIT).number_of_electrons(bare)


def test_a_missing_pseudopotential():
    with pytest.raises(PseudopotentialError, match="no pseudopotential for Al"):
        KohnSham("lda_pw", {"Si": GTHFIT}).number_of_electrons(fcc())


# Potential


def uneven(space):
    """A density between 0.01 and 0.06 electron/bohr^3, roughly."""
    x, y, z = (2 * math.pi * space.points / torch.tensor(space.lengths)).T
    return 0.034 + 0.012 * torch.cos(x) * torch.sin(y + 0.3) + 0.008 * torch.cos(z - x)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("xc", ["lda_pz", "lda_pw", "lda_teter", "pbe"])
def test_the_potential_is_the_derivative_at_each_point(xc, periodic):
    if periodic:
        structure, space = rattled(), TensorSpace.for_structure(rattled(), 0.7, order=5)
        values = uneven(space)
    else:
        structure = dimer()
        space = TensorSpace.for_structure(structure, 0.7, order=4, margin=6.0)
        centres = torch.tensor(structure.positions)
        values = space.gaussian_sum(centres, torch.tensor([0.3, 0.25]), torch.tensor([0.3, 0.2]))
    bound = KohnSham(xc, GTHFIT).bind(structure, space)
    potential = bound.potential(values.double())
    background = float(potential @ space.weights) / space.volume
    dense = torch.nonzero(values > 0.01)[:, 0]
    for point in dense[:: len(dense) // 3].tolist():

        def energy(step, point=point):
            changed = values.clone()
            changed[point] += step
            return float(bound.energy(Density(space, values=changed)))

        slope = central_difference(energy, 1e-4) / float(space.weights[point])
        assert slope == pytest.approx(float(potential[point]), abs=2e-6)
        assert abs(slope - background) > 1e-3


@pytest.mark.parametrize("xc", ["lda_pw", "pbe"])
def test_the_coulomb_part_has_no_mean(xc):
    """What is left of the mean is exchange-correlation and the ions' short range."""
    space = TensorSpace.for_structure(rattled(), 0.7, order=5)
    bound = KohnSham(xc, GTHFIT).bind(rattled(), space)
    values = uneven(space)
    n = values.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(bound.xc.energy(Density(space, values=n)), n)
    expected = float(gradient.sum() + space.integrate(bound.ions.short_range)) / space.volume
    assert abs(expected) > 0.01
    found = float(space.integrate(bound.potential(values))) / space.volume
    assert found == pytest.approx(expected, abs=1e-10)


def test_the_potential_needs_no_gradient():
    space = TensorSpace.for_structure(fcc(), 0.7, order=5)
    bound = KohnSham("lda_pw", GTHFIT).bind(fcc(), space)
    values = uneven(space)
    with torch.no_grad():
        potential = bound.potential(values)
    assert not potential.requires_grad
    assert not values.requires_grad
    assert torch.equal(potential, bound.potential(values.requires_grad_(True)).detach())


def test_the_energy_follows_the_positions():
    space = TensorSpace.for_structure(rattled(), 0.5)
    density = Density(space, values=uneven(space))
    positions = torch.tensor(rattled().positions, requires_grad=True)
    functional = KohnSham("lda_pw", GTHFIT)
    energy = functional.bind(rattled(), space, positions).energy(density)
    (gradient,) = torch.autograd.grad(energy, positions)

    def moved(step):
        there = positions.detach().clone()
        there[1, 0] += step
        return float(functional.bind(rattled(), space, there).energy(density))

    assert abs(float(gradient[1, 0])) > 1e-3
    assert central_difference(moved, 1e-2) == pytest.approx(float(gradient[1, 0]), abs=1e-8)


@pytest.mark.parametrize("given", ["gth-pade-q3", {"Al": "gth-pade-q3"}, None])
def test_a_name_alone_is_no_pseudopotential(given):
    with pytest.raises(PseudopotentialError, match=r"is no pseudopotential: .* GTH\.load\('Al'"):
        KohnSham("lda_pw", given)


def test_a_pseudopotential_of_the_library_serves_its_own_element_alone():
    functional = KohnSham("lda_pw", GTH.load("Al", "gth-pade-q3"))
    assert functional.number_of_electrons(fcc()) == 12
    with pytest.raises(PseudopotentialError, match=r"no pseudopotential for H: .* is that of Al"):
        functional.number_of_electrons(Structure(["H"], [[0.0, 0.0, 0.0]]))


@pytest.mark.parametrize(("xc", "name"), [("pbe", "gth-pade-q3"), ("lda_pw", "gth-pbe")])
def test_the_library_says_what_its_pseudopotentials_were_made_for(xc, name):
    with pytest.warns(MixtureWarning, match="pseudopotential of every element was made for"):
        KohnSham(xc, GTH.load("Al", name))


@pytest.mark.parametrize("name", ["lda", "LDA"])
def test_lda_alone_is_not_taken_for_exchange_alone(name):
    with pytest.raises(FunctionalError, match="say which LDA, 'lda_pw'"):
        KohnSham(name, GTHFIT)
