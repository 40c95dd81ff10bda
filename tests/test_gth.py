"""Goedecker-Teter-Hutter pseudopotentials: the library, projectors, and their use on a mesh."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.special import erf, gamma, spherical_jn
from systems import GTHFIT, fcc, rattled

from fedens import GTH, EnergyFunctional, GTHLocal, Structure, TensorSpace
from fedens.energy.electrostatics import Electrostatics
from fedens.energy.projectors import ProjectorChannel
from fedens.energy.pseudopotential import pseudopotential_from_description
from fedens.errors import FunctionalError, PseudopotentialError, SpaceError

#: valence, r_loc, (c1, ...), {l: (r_l, h)}. Of the Kohn-Sham reference numbers by ABINIT (its
#: inputs, field ``pseudopotentials``), beside C and Na: GTH_POTENTIALS of CP2K.
PARAMETERS = {
    ("H", "gth-pade-q1"): (1, 0.2, (-4.1802368, 0.72507482), {}),
    ("Li", "gth-pade-q3"): (3, 0.4, (-14.03486849, 9.55347627, -1.76648817, 0.08436998), {}),
    ("C", "gth-pade-q4"): (
        4,
        0.34883045,
        (-8.5137711, 1.22843203),
        {0: (0.30455321, [[9.52284179]])},
    ),
    ("N", "gth-pade-q5"): (
        5,
        0.28917923,
        (-12.23481988, 1.76640728),
        {0: (0.25660487, [[13.55224272]])},
    ),
    ("O", "gth-pade-q6"): (
        6,
        0.24762086,
        (-16.58031797, 2.39570092),
        {0: (0.22178614, [[18.26691718]])},
    ),
    ("Na", "gth-pade-q1"): (
        1,
        0.88550938,
        (-1.23886713,),
        {
            0: (0.6611039, [[1.84727135, -0.22540903], [-0.22540903, 0.58200362]]),
            1: (0.85711928, [[0.47113258]]),
        },
    ),
    ("Mg", "gth-pade-q2"): (
        2,
        0.65181169,
        (-2.86429746,),
        {
            0: (0.55647814, [[2.97095712, -0.5150839], [-0.5150839, 1.32994091]]),
            1: (0.67756881, [[1.04988101]]),
        },
    ),
    ("Al", "gth-pade-q3"): (
        3,
        0.45,
        (-8.49135116,),
        {
            0: (0.46010427, [[5.08833953, -1.03784325], [-1.03784325, 2.67969975]]),
            1: (0.53674439, [[2.19343827]]),
        },
    ),
    ("Al", "gth-pbe-q3"): (
        3,
        0.45,
        (-7.55476126,),
        {
            0: (0.48743529, [[6.95993832, -1.88883584], [-1.88883584, 2.43847659]]),
            1: (0.56218949, [[1.86529857]]),
        },
    ),
    ("Si", "gth-pade-q4"): (
        4,
        0.44,
        (-7.33610297,),
        {
            0: (0.42273813, [[5.90692831, -1.26189397], [-1.26189397, 3.25819622]]),
            1: (0.48427842, [[2.72701346]]),
        },
    ),
}
LITHIUM = GTH.load("Li", "gth-pade-q3")
SILICON = GTH.load("Si", "gth-pade-q4")
#: Three projectors of l = 0, two of l = 1 and 2 each.
GOLD = GTH.load("Au", "gth-pade-q19")
QUARTIC = GTHLocal(3, 0.5, 0.0, 0.0, 0.3)


@pytest.mark.parametrize("key", PARAMETERS, ids=" ".join)
def test_parameters_of_the_library(key):
    valence, r_loc, core, channels = PARAMETERS[key]
    found = GTH.load(*key)
    assert (found.valence, found.r_loc) == (valence, r_loc)
    assert (found.c1, found.c2, found.c3, found.c4) == (*core, 0.0, 0.0, 0.0, 0.0)[:4]
    assert {one.order: (one.radius, one.strengths) for one in found.projectors} == {
        order: (radius, tuple(map(tuple, h))) for order, (radius, h) in channels.items()
    }


def test_names_without_a_valence_and_in_capitals():
    assert GTH.load("Li", "gth-pade") == LITHIUM
    assert GTH.load("Mg", "gth-pade").valence == 10.0
    assert GTH.load("Si", "GTH-PADE-q4") == GTH.load("Si", "gth-lda-q4") == SILICON


@pytest.mark.parametrize(
    ("symbol", "name", "said"),
    [
        ("Li", "gth-pade-q2", r"'gth-pade-q2' of 'Li'; it has .*gth-pade-q1, gth-pade-q3"),
        ("Al", "def2-svp", r"'def2-svp' of 'Al'; it has gth-blyp, gth-blyp-q3"),
        ("U", "gth-pade", "none of that element"),
        ("al", "gth-pade", "none of that element"),
        ("", "", "none of that element"),
    ],
)
def test_what_the_library_does_not_hold(symbol, name, said):
    with pytest.raises(PseudopotentialError, match=said):
        GTH.load(symbol, name)


def test_local_part_in_closed_form():
    r = np.linspace(1e-3, 8.0, 300)
    x2 = (r / 0.4) ** 2
    c1, c2, c3, c4 = PARAMETERS["Li", "gth-pade-q3"][2]
    exact = np.exp(-x2 / 2) * (c1 + c2 * x2 + c3 * x2**2 + c4 * x2**3)
    exact = exact - 3 / r * erf(np.sqrt(x2 / 2))
    assert LITHIUM.potential(torch.tensor(r)).numpy() == pytest.approx(exact, rel=1e-11)
    assert LITHIUM.local == GTHLocal(3, 0.4, c1, c2, c3, c4)


@pytest.mark.parametrize("one", [LITHIUM, SILICON, QUARTIC])
def test_short_range_part_as_gaussians(one):
    r = torch.linspace(1e-3, 10.0, 500, dtype=torch.float64)
    exponents, amplitudes = one.gaussians(1.2)
    powers = r[:, None, None] ** (2 * torch.arange(amplitudes.shape[1]))
    gaussians = torch.exp(-exponents * r[:, None] ** 2)
    found = ((amplitudes * powers).sum(dim=2) * gaussians).sum(dim=1)
    assert torch.allclose(found, one.short_range(r, 1.2), rtol=0, atol=1e-10)


@pytest.mark.parametrize("one", [LITHIUM, QUARTIC])
def test_ions_on_a_mesh_are_the_sum_of_their_potentials(one):
    structure = Structure(["Li"] * 4, rattled().positions, rattled().cell, True)
    space = TensorSpace.for_structure(structure, 0.4, 5)
    ions = Electrostatics(one).bind(structure, space)
    centres = torch.tensor(structure.positions)
    expected = space.radial_sum(centres, lambda r: one.short_range(r, 1.2), 12.0)
    assert torch.allclose(ions.short_range, expected, rtol=0, atol=1e-9)
    assert expected.abs().max() > 1.0


@pytest.mark.parametrize("one", [LITHIUM, SILICON, GOLD])
def test_description_makes_the_same_pseudopotential(one):
    description = json.loads(json.dumps(one.describe()))
    copy = pseudopotential_from_description(description)
    assert copy == one
    assert hash(copy) == hash(one)
    assert copy.projectors == one.projectors
    assert copy.describe() == description
    assert copy != one.local


def test_description_of_old_local_parts_stays():
    """Data sets compare descriptions: those of before c3 and c4 must not change."""
    assert GTHFIT.describe() == {
        "kind": "gth_local",
        "valence": 3.0,
        "r_loc": 0.7473,
        "c1": 4.9546,
        "c2": -0.8993,
    }
    assert LITHIUM.local.describe()["c4"] == 0.08436998


def test_strengths_tell_pseudopotentials_apart():
    radius, ((h11, h12), (_, h22)) = 0.42273813, SILICON.projectors[0].strengths
    other = ProjectorChannel(0, radius, ((h11, h12), (h12, 1.01 * h22)))
    same = ProjectorChannel(0, radius, ((h11, h12), (h12, h22)))
    made = [
        GTH(4, 0.44, SILICON.c1, projectors=[one, SILICON.projectors[1]]) for one in (same, other)
    ]
    assert made[0] == SILICON
    assert made[1] != SILICON


@pytest.mark.parametrize(
    ("channel", "said"),
    [
        ((0, 0.4, ((1.0, 2.0), (3.0, 4.0))), "expected a full symmetric matrix"),
        ((0, 0.4, ((1.0, 2.0),)), "expected a full symmetric matrix"),
        ((0, 0.4, ()), "expected a full symmetric matrix"),
        ((0, 0.4, ((math.nan,),)), "expected a full symmetric matrix"),
        ((1, 0.0, ((1.0,),)), "a positive radius"),
        ((1, math.nan, ((1.0,),)), "a positive radius"),
        ((-1, 0.4, ((1.0,),)), "expected l of 0"),
    ],
)
def test_impossible_projectors(channel, said):
    with pytest.raises(PseudopotentialError, match=said):
        ProjectorChannel(*channel)


@pytest.mark.parametrize(
    "numbers", [(math.nan, 0.5), (3, math.nan), (3, math.inf), (3, 0.5, math.nan), (0, 0.5)]
)
def test_impossible_local_parts(numbers):
    with pytest.raises(PseudopotentialError, match="must be positive"):
        GTHLocal(*numbers)


def test_two_channels_of_one_angular_momentum():
    channel = ProjectorChannel(1, 0.4, ((1.0,),))
    with pytest.raises(PseudopotentialError, match=r"l = \[1, 1\]: expected one channel of each"):
        GTH(3, 0.5, projectors=[channel, channel])


def lost_beyond(wave, channel):
    """Share of each projector's norm in waves above one, by numerical Bessel transforms."""
    order, radius, count = channel.order, channel.radius, len(channel.strengths)
    r, dr = np.linspace(0.0, 12 * radius, 1501, retstep=True)
    q, dq = np.linspace(0.0, wave, 401, retstep=True)
    kept = []
    for i in range(1, count + 1):
        power = order + (4 * i - 1) / 2
        p = math.sqrt(2) * r ** (order + 2 * (i - 1)) * np.exp(-((r / radius) ** 2) / 2)
        p = p / (radius**power * math.sqrt(gamma(power)))
        assert np.trapezoid(p**2 * r**2, dx=dr) == pytest.approx(1.0, abs=1e-8)
        transform = np.trapezoid(p * r**2 * spherical_jn(order, np.outer(q, r)), dx=dr, axis=1)
        kept.append(math.sqrt(2 / math.pi * np.trapezoid(transform**2 * q**2, dx=dq)))
    return 1 - np.array(kept)


@pytest.mark.parametrize("channel", [*SILICON.projectors, *GOLD.projectors], ids=str)
def test_coarsest_spacing_keeps_all_but_a_hundredth_of_each_projector(channel):
    spacing = channel.coarsest_spacing()
    assert lost_beyond(math.pi / spacing, channel).max() == pytest.approx(0.01, abs=5e-4)


def test_mesh_too_coarse_for_the_projectors_is_refused():
    limit = SILICON.coarsest_spacing(1.2)
    assert limit < 0.9 * SILICON.local.coarsest_spacing(1.2)
    space = TensorSpace([7.65] * 3, 2, 7)
    assert limit < space.spacing < SILICON.local.coarsest_spacing(1.2)
    assert Electrostatics(SILICON.local).bind(fcc(), space).short_range.abs().max() > 0.1
    with pytest.raises(SpaceError, match=f"too coarse .* of Si: {limit:.3f} bohr is the largest"):
        Electrostatics(SILICON).bind(fcc().replace(numbers=["Si"] * 4), space)


def test_a_density_alone_is_refused_projectors():
    with pytest.raises(FunctionalError, match=r"of Si has projectors \(l = 0, 1\).*\.local"):
        EnergyFunctional.orbital_free(pseudopotential={"Al": GTHFIT, "Si": SILICON})
    with pytest.raises(FunctionalError, match=r"has projectors"):
        EnergyFunctional.orbital_free(pseudopotential=GOLD)
    EnergyFunctional.orbital_free(pseudopotential={"Si": SILICON.local})


@pytest.mark.parametrize(("symbol", "valence"), [("H", 1), ("He", 2), ("Li", 3)])
def test_a_density_alone_carries_what_has_no_projectors(symbol, valence):
    one = GTH.load(symbol, f"gth-pade-q{valence}")
    assert one.projectors == GTHFIT.projectors == ()
    functional = EnergyFunctional.orbital_free(pseudopotential={symbol: one})
    assert functional.number_of_electrons(Structure([symbol], [[0.0] * 3])) == valence
    assert EnergyFunctional.from_description(functional.describe()).pseudopotentials[symbol] == one
