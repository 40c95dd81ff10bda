"""The functional as a list of terms: the usual ones, and one's own."""

import json

import pytest
import torch
from systems import GTHFIT, rattled

from fedens import EnergyFunctional, ResponseFields, TensorSpace, solve_ground_state
from fedens.energy.electrostatics import Electrostatics
from fedens.energy.kinetic import ThomasFermi, VonWeizsaecker
from fedens.energy.terms import DensityTerm
from fedens.energy.xc import PerdewZunger, exchange_correlation
from fedens.errors import FunctionalError
from fedens.testing import check_energy_term, check_uniform_response

SPACE = TensorSpace.for_structure(rattled(), 0.6, 6)
USUAL = EnergyFunctional.orbital_free(pseudopotential=GTHFIT)


class Repulsion(DensityTerm):
    """strength/2 n^2, in nobody's table."""

    name = "repulsion"
    group = "xc"

    def __init__(self, strength):
        self.strength = strength

    def energy_density(self, density):
        return 0.5 * self.strength * density.values**2

    def uniform_response(self, q2, density):  # noqa: ARG002
        return self.strength + torch.zeros_like(q2)


class StoredRepulsion(Repulsion):
    kind = "repulsion_of_a_test"
    parameters = ("strength",)


def density():
    return solve_ground_state(rattled(), SPACE, USUAL, residual_tolerance=1e-4).density


def test_a_term_of_ones_own_goes_in_like_any_other():
    term = Repulsion(3.0)
    functional = EnergyFunctional([*USUAL.terms, term])
    n = density()
    check_energy_term(term, n)
    check_uniform_response(term, SPACE, 0.03)
    plain, bound = (f.bind(rattled(), SPACE) for f in (USUAL, functional))
    added = 1.5 * float(SPACE.integrate(n.values**2))
    assert float(bound.energy(n) - plain.energy(n)) == pytest.approx(added, rel=1e-10)
    assert bound.energies(n)["repulsion"] == pytest.approx(added, rel=1e-12)
    more = bound.energy_densities(n)["xc"] - plain.energy_densities(n)["xc"]
    assert torch.allclose(more, 1.5 * n.values**2, rtol=0, atol=1e-14)
    state = solve_ground_state(rattled(), SPACE, functional)
    assert state.energy > solve_ground_state(rattled(), SPACE, USUAL).energy + 1e-3
    assert state.energy < float(bound.energy(n))


def test_the_usual_list_written_by_hand_is_the_usual_functional():
    by_hand = EnergyFunctional(
        [ThomasFermi(), VonWeizsaecker(), PerdewZunger(), Electrostatics(GTHFIT)]
    )
    n = density()
    energies = [float(f.bind(rattled(), SPACE).energy(n)) for f in (USUAL, by_hand)]
    assert energies[0] == energies[1]
    assert by_hand.xc == USUAL.xc == "lda_pz"
    assert by_hand.kinetic == "thomas_fermi, von_weizsaecker"
    assert USUAL.kinetic == "tfvw"


@pytest.mark.parametrize("xc", ["lda_pz", "lda_x", "lda_pw", "lda_teter", "pbe"])
def test_any_list_of_stored_terms_can_be_described(xc):
    functional = EnergyFunctional(
        [
            *EnergyFunctional.orbital_free("wgc", pseudopotential={"Al": GTHFIT}).terms[:3],
            StoredRepulsion(2.0),
            exchange_correlation(xc),
            Electrostatics({"Al": GTHFIT}, 1.1),
        ]
    )
    description = json.loads(json.dumps(functional.describe()))
    copy = EnergyFunctional.from_description(description)
    assert copy.describe() == description
    n = density()
    energies = [float(f.bind(rattled(), SPACE).energy(n)) for f in (functional, copy)]
    assert energies[0] == energies[1]


def test_a_term_that_cannot_be_described_is_not_left_out():
    class Heavier(ThomasFermi):
        """Would come back as its parent."""

    ions = Electrostatics(GTHFIT)
    for terms in (
        [*USUAL.terms, Repulsion(3.0)],
        [Heavier(), VonWeizsaecker(), PerdewZunger(), ions],
    ):
        functional = EnergyFunctional(terms)
        with pytest.raises(FunctionalError, match="cannot be stored"):
            functional.describe()
        with pytest.raises(FunctionalError, match="cannot be stored"):
            ResponseFields(functional).describe()


def test_a_term_of_an_unknown_kind_is_named():
    description = {"terms": [{"kind": "bananas"}]}
    with pytest.raises(FunctionalError, match=r"'bananas' is not known; expected one of .*lda_pz"):
        EnergyFunctional.from_description(description)


class Elsewhere(Repulsion):
    group = "external"


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ([*USUAL.terms, Repulsion(1.0), Repulsion(2.0)], "different names"),
        ([*USUAL.terms, Elsewhere(1.0)], "group 'external'"),
        (USUAL.terms[:-1], "exactly one Electrostatics"),
        (USUAL.terms[1:2] + USUAL.terms[3:], "one density term named 'xc'"),
        (USUAL.terms[:1] + USUAL.terms[2:], "one VonWeizsaecker"),
    ],
)
def test_lists_that_are_no_functional(terms, said):
    with pytest.raises(FunctionalError, match=said):
        EnergyFunctional(terms)
