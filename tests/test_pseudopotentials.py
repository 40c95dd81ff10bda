"""Local pseudopotentials: closed forms, tables, files, and their short-range rests."""

import math
import re

import numpy as np
import pytest
import torch
from scipy.special import erf
from systems import (
    ERF,
    EVANESCENT,
    GNH,
    GNH_FCC,
    GNH_FCC_EDGE,
    GNH_REAL_SPACE,
    GTHFIT,
    PSEUDOPOTENTIALS,
    atom,
    dimer,
    fcc,
)

from fedens import (
    EnergyFunctional,
    EvanescentCore,
    GTHLocal,
    Structure,
    TensorSpace,
    solve_ground_state,
)
from fedens.energy.pseudopotential import pseudopotential_from_description
from fedens.errors import PseudopotentialError, SpaceError
from fedens.units import HARTREE_IN_EV

HYDROGEN = GTHLocal(1, 0.2, -4.180237, 0.725075)
R = torch.linspace(1e-4, 14.0, 2000, dtype=torch.float64)


def test_gth_closed_form():
    r = R.numpy()
    x2 = (r / 0.7473) ** 2
    exact = -3 / r * erf(np.sqrt(x2 / 2)) + np.exp(-x2 / 2) * (4.9546 - 0.8993 * x2)
    assert GTHFIT.potential(R).numpy() == pytest.approx(exact, rel=1e-11, abs=1e-13)


def test_evanescent_core_closed_form():
    r, size, a = R.numpy()[1:], 0.32, 3.6
    b = (a**3 - 2 * a) / (4 * (a**2 - 1))
    hump = a**2 / 2 - a * b
    exact = -(3 / r) * (1 - np.exp(-a * r / size)) + (3 * b / size) * np.exp(-a * r / size)
    exact = exact + (3 * hump / size) * np.exp(-r / size)
    assert EVANESCENT.potential(R[1:]).numpy() == pytest.approx(exact, rel=1e-11)


def test_goodwin_needs_heine_table():
    """Real-space values from the sine transform of v(q) (DFTpy's form, six digits)."""
    r = torch.tensor(list(GNH_REAL_SPACE), dtype=torch.float64)
    assert GNH.potential(r).numpy() == pytest.approx(list(GNH_REAL_SPACE.values()), abs=6e-7)


@pytest.mark.parametrize("name", PSEUDOPOTENTIALS)
def test_potential_is_coulomb_far_away_and_finite_at_the_nucleus(name):
    pseudopotential = PSEUDOPOTENTIALS[name]
    far = torch.tensor([15.0, 30.0, 35.0, 60.0], dtype=torch.float64)
    assert torch.allclose(pseudopotential.potential(far), -3 / far, rtol=1e-9)
    near = pseudopotential.potential(torch.tensor([0.0, 1e-7, 1e-3], dtype=torch.float64))
    assert torch.isfinite(near).all()
    assert float(near[1]) == pytest.approx(float(near[0]), abs=1e-4)


@pytest.mark.parametrize("name", PSEUDOPOTENTIALS)
@pytest.mark.parametrize("width", [0.9, 1.2])
def test_short_range_part_ends_at_its_cutoff(name, width):
    pseudopotential = PSEUDOPOTENTIALS[name]
    cutoff = pseudopotential.cutoff(width)
    beyond = torch.linspace(cutoff, 60.0, 400, dtype=torch.float64)
    assert pseudopotential.short_range(beyond, width).abs().max() < 1e-10
    assert 3.0 < cutoff < 20.0
    whole = pseudopotential.potential(R) + 3 * torch.erf(R / (math.sqrt(2) * width)) / R
    assert torch.allclose(pseudopotential.short_range(R, width), whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("width", [0.6, 1.2, 2.0])
@pytest.mark.parametrize("r_loc", [0.2, 0.4, 0.7473, 1.2, 1.7])
def test_gth_short_range_is_a_sum_of_gaussians(r_loc, width):
    pseudopotential = GTHLocal(3, r_loc, 4.9546, -0.8993)
    exponents, amplitudes = pseudopotential.gaussians(width)
    r2 = R[:, None] ** 2
    total = ((amplitudes[:, 0] + amplitudes[:, 1] * r2) * torch.exp(-exponents * r2)).sum(dim=1)
    exact = pseudopotential.short_range(R, width)
    assert torch.allclose(total, exact, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GTHLocal(3, 0.0),
        lambda: GTHLocal(0, 0.7),
        lambda: GTHLocal(3, -1.0),
        lambda: EvanescentCore(3, 0.32, 1.0),
        lambda: EvanescentCore(-3, 0.32, 3.6),
        lambda: EvanescentCore(3, 0.0, 3.6),
    ],
)
def test_impossible_parameters_are_refused(make):
    with pytest.raises(PseudopotentialError, match=r"positive|need"):
        make()


@pytest.mark.parametrize("name", PSEUDOPOTENTIALS)
def test_description_makes_the_same_pseudopotential(name):
    original = PSEUDOPOTENTIALS[name]
    copy = pseudopotential_from_description(original.describe())
    assert type(copy) is type(original)
    assert torch.equal(copy.potential(R[::50]), original.potential(R[::50]))
    assert repr(copy) == repr(original)


def test_unknown_kind_is_named():
    with pytest.raises(PseudopotentialError, match=r"'ghost'; known: gth_local, gth, all_electron"):
        pseudopotential_from_description({"kind": "ghost"})


@pytest.mark.parametrize("key", GNH_FCC)
def test_energy_of_goodwin_needs_heine_aluminium(key):
    kinetic, vw_weight = key
    structure = fcc(GNH_FCC_EDGE)
    space = TensorSpace(structure.orthorhombic_lengths(), 3, 8)
    functional = EnergyFunctional.orbital_free(kinetic, vw_weight, pseudopotential=GNH)
    state = solve_ground_state(structure, space, functional)
    assert state.energy / 4 == pytest.approx(GNH_FCC[key], abs=1e-6)


def test_missing_element_is_named():
    functional = EnergyFunctional.orbital_free(pseudopotential={"Al": GTHFIT, "H": HYDROGEN})
    structure = Structure(["Al", "O"], [[0, 0, 0], [4, 0, 0]])
    with pytest.raises(PseudopotentialError, match=r"no pseudopotential for O; .* Al, H.*\{'O'"):
        functional.bind(structure, TensorSpace.for_structure(structure))


@pytest.mark.parametrize("pseudopotential", [GTHFIT, EVANESCENT, ERF], ids=lambda p: p.kind)
def test_coarse_mesh_says_which_spacing_would_do(pseudopotential):
    functional = EnergyFunctional.orbital_free(pseudopotential=pseudopotential)
    limit = pseudopotential.coarsest_spacing(1.2)
    with pytest.raises(SpaceError, match=f"too coarse .* of Al: {limit:.3f} bohr is") as caught:
        functional.bind(fcc(), TensorSpace([7.65] * 3, 1, 4))
    advised = float(re.search(r"about ([\d.]+) bohr gives 1 meV", str(caught.value))[1])
    energies = [
        solve_ground_state(fcc(), TensorSpace.for_structure(fcc(), s, 8), functional).energy / 4
        for s in (advised, 7.65 / 40)
    ]
    one_mev = 1e-3 / HARTREE_IN_EV
    assert energies[0] == pytest.approx(energies[1], abs=one_mev)


def test_coarse_elements_around_an_atom_are_noticed_beside_fine_ones():
    functional = EnergyFunctional.orbital_free(pseudopotential=GTHFIT)
    # 0.9 bohr at the atom, and one thin element at each wall
    space = TensorSpace.for_structure(atom(), spacing=0.9, order=6, margin=5.5)
    with pytest.raises(SpaceError, match=r"spacing 0\.900 bohr is too coarse"):
        functional.bind(atom(), space)


def test_fine_elements_are_only_needed_around_the_atoms():
    functional = EnergyFunctional.orbital_free(pseudopotential=GTHFIT)
    space = TensorSpace.for_structure(dimer(), spacing=0.7, order=6)
    assert space.spacing > GTHFIT.coarsest_spacing(1.2)
    assert functional.bind(dimer(), space).electrons == 6.0
