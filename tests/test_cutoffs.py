"""Default cutoffs: an atom's loss against that of crystals and molecules."""

import numpy as np
import pytest
import torch
from systems import ERF, EVANESCENT, FCC, GNH, GTHFIT, fcc

from fedens import GTH, AllElectron, GTHLocal, KohnSham, Structure, solve_kohn_sham
from fedens.energy.projectors import ProjectorChannel
from fedens.errors import PseudopotentialError
from fedens.fem.modes import space_for_cutoff
from fedens.reference.kohn_sham.confined_atom import SphericalWaves, solve_atom
from fedens.reference.kohn_sham.cutoffs import atomic_cutoff, default_cutoff, energy_lost
from fedens.reference.kohn_sham.smearing import Smearing
from fedens.units import HARTREE_IN_EV

MEV = 1e-3 / HARTREE_IN_EV
ACCURACY = 2e-5  # the default
LOCAL = {"gthfit": GTHFIT, "erf": ERF, "evanescent": EVANESCENT, "gnh": GNH}

# Free energy at cutoffs (hartree) less its limit, hartree/atom. GTH by ABINIT 9.6.2, kT = 0.01
# hartree; local potentials by this package's own solver, fcc aluminium, a = 7.65 bohr. The first
# group chose the radius and the smearing of the atom.
CHOSEN_BY = {
    "gthfit": {12: 6.28e-5, 15: 1.73e-5, 16: 1.09e-5},
    "Al-pade-q3": {12: 3.9e-4, 16: 1.6e-4, 30: 1.15e-5, 44: 8e-7},  # fcc
    "Si-pade-q4": {16: 3.3e-4, 20: 1.25e-4, 30: 1.6e-5, 44: 1.3e-6},  # diamond
    "Mg-pade-q2": {16: 2.8e-6},  # hcp
    "H-pade-q1": {60: 2.9e-4, 80: 8e-5, 100: 2.4e-5, 130: 4e-6},  # H2 in a box
    "Li-pade-q3": {150: 7.3e-6},
    "N-pade-q5": {155: 4.4e-6},  # N2 in a box
    "O-pade-q6": {150: 2.1e-4, 200: 1.3e-5},  # H2O in a box, the whole molecule
}
# One k-point (1/4, 1/4, 1/4).
NOT_CHOSEN_BY = {
    "erf": {6: 2.5e-4, 8: 3.08e-5, 10: 4.62e-6},
    "evanescent": {12: 3.23e-4, 21: 1.39e-5},
    "gnh": {6: 1.11e-3, 8: 2.17e-4, 12: 2.94e-5},
    "Al-pbe-q3": {20: 9.5e-5, 36: 8.0e-6, 44: 1.8e-6},  # fcc
    "Li-pade-q3": {110: 1.84e-4, 138: 1.97e-5, 160: 3.85e-6},  # bcc, a = 6.6 bohr
    "Li-pade-q1": {8: 1.91e-4, 12: 1.66e-5, 13: 8.57e-6, 16: 9.53e-7},  # bcc, 6.6
    "C-pade-q4": {60: 4.45e-4, 87: 2.13e-5, 110: 1.62e-6},  # diamond, 6.74
    "Mg-pade-q2": {9: 2.61e-5, 11: 8.68e-6},  # fcc, 8.5
    "P-pade-q5": {25: 4.47e-4, 39: 3.17e-5},  # simple cubic, 4.5
    "Cu-pade-q11": {100: 1.14e-3, 128: 2.09e-5},  # fcc, 6.8
    "Ga-pade-q3": {8: 1.85e-3, 14: 1.07e-5},  # fcc, 8.2
    "Ge-pade-q4": {20: 3.09e-4, 30: 1.69e-5},  # diamond, 10.6
    "Sn-pade-q4": {12: 2.95e-4, 19: 1.65e-5},  # diamond, 12.2
}
# The warm atom has electrons in p and d levels that these hardly use.
GENEROUS = {
    "Na-pade-q1": {4: 6.47e-5, 6: 6.30e-6, 7: 4.43e-6, 9: 3.53e-7},  # bcc, 7.98
    "K-pade-q1": {8: 3.22e-4, 13: 3.49e-6},  # bcc, 9.9
    "Ca-pade-q2": {15: 7.99e-5, 26: 3.60e-7},  # fcc, 10.4
}
# Metallic: squeezed far beyond what a molecule of it is.
SQUEEZED = {"H-pade-q1": {60: 5.47e-4, 80: 1.57e-4, 96: 5.12e-5}}  # bcc, 3.2
# Where the atom loses the default accuracy and the ratio is this or more, it is 1 meV at most.
ENOUGH = ACCURACY / MEV


def measured(table, low, high):
    return [(name, errors, low, high) for name, errors in table.items()]


def pseudopotential(name):
    """``gthfit``, or a GTH potential such as ``Al-pade-q3``."""
    if name in LOCAL:
        return LOCAL[name]
    symbol, kind = name.split("-", maxsplit=1)
    return GTH.load(symbol, f"gth-{kind}")


@pytest.mark.parametrize(
    ("name", "errors", "low", "high"),
    measured(CHOSEN_BY, ENOUGH, 2.2)
    + measured(NOT_CHOSEN_BY, ENOUGH, 2.2)
    + measured(GENEROUS, ENOUGH, 80)
    + measured(SQUEEZED, ENOUGH / 2, 2.2),
)
def test_an_atom_loses_what_crystals_and_molecules_lose(name, errors, low, high):
    lost = energy_lost(pseudopotential(name), list(errors))
    ratio = lost / np.array(list(errors.values()))
    assert low < ratio.min()
    assert ratio.max() < high


@pytest.mark.parametrize("name", sorted({*CHOSEN_BY, *NOT_CHOSEN_BY, *GENEROUS}))
def test_a_cutoff_is_the_lowest_whole_one(name):
    cutoff = atomic_cutoff(pseudopotential(name), ACCURACY)
    assert cutoff == round(cutoff)
    below, at = energy_lost(pseudopotential(name), [cutoff - 1, cutoff])
    assert at <= ACCURACY < below


@pytest.mark.parametrize("name", ["gthfit", "evanescent"])
def test_the_default_is_within_1_mev_of_the_limit(name):
    functional = KohnSham("lda_pz", LOCAL[name])
    cutoff = default_cutoff(fcc(), functional)
    point = ([[0.25, 0.25, 0.25]], [1.0])
    default, limit = (
        solve_kohn_sham(fcc(), space_for_cutoff(fcc(), e), functional, point, 0.01, e).free_energy
        for e in (cutoff, 2 * cutoff)
    )
    assert 0.2 * MEV < (default - limit) / len(FCC) < MEV


def test_the_default_is_that_of_the_hardest_element():
    potentials = {"Al": GTH.load("Al", "gth-pade-q3"), "C": GTH.load("C", "gth-pade-q4")}
    alone = {symbol: atomic_cutoff(one, ACCURACY) for symbol, one in potentials.items()}
    assert alone["Al"] < alone["C"]
    both = Structure(["Al", "C", "Al"], [[0, 0, 0], [0, 0, 4], [0, 0, 8]])
    aluminium = Structure(["Al"], [[0, 0, 0]])
    functional = KohnSham("lda_pw", potentials)
    assert default_cutoff(both, functional) == alone["C"]
    assert default_cutoff(aluminium, functional) == alone["Al"]
    assert default_cutoff(aluminium, functional, 1e-6) > alone["Al"]


def test_sharper_projectors_ask_for_more():
    soft, sharp = (
        atomic_cutoff(GTH(3, 0.8, projectors=[ProjectorChannel(0, r, ((2.0,),))]), ACCURACY)
        for r in (0.8, 0.4)
    )
    assert sharp > 2 * soft


def test_orders_beyond_the_waves_change_nothing():
    strange = GTH(3, 0.8, projectors=[ProjectorChannel(4, 0.1, ((2.0,),))])
    assert atomic_cutoff(strange, ACCURACY) == atomic_cutoff(GTHLocal(3, 0.8), ACCURACY)


def test_a_nucleus_is_refused():
    functional = KohnSham("lda_pz", AllElectron.by_symbol(["Al"]))
    with pytest.raises(PseudopotentialError, match="Kohn-Sham here needs a pseudopotential"):
        default_cutoff(fcc(), functional)


def test_an_element_without_pseudopotential_is_named():
    functional = KohnSham("lda_pz", {"Mg": GTHFIT})
    with pytest.raises(PseudopotentialError, match="no pseudopotential for Al"):
        default_cutoff(fcc(), functional)


@pytest.mark.parametrize("name", ["gthfit", "Al-pade-q3", "O-pade-q6"])
def test_the_loss_is_what_fewer_waves_cost(name):
    """A bound, and a close one, to the rise of the levels in the first waves of each l."""
    waves = SphericalWaves(5.0, 2, 60)
    atom = solve_atom(waves, pseudopotential(name), Smearing(0.001))
    lost = atom.energy_beyond().sum(dim=0)
    few = int((lost > ACCURACY).nonzero()[-1]) + 1
    hamiltonian = atom.hamiltonian[:, :few, :few]
    rise = torch.linalg.eigvalsh(hamiltonian) - atom.levels[:, :few]
    expected = float((rise * atom.electrons[:, :few]).sum())
    assert expected < float(lost[few]) < 1.1 * expected
