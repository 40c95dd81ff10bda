"""Thermal cells: reproducible, and spread as asked."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from ase.neighborlist import neighbor_list

from fedens.configuration import ThermalCellsOptions
from fedens.errors import StructureError
from fedens.sources.thermal_cells import ThermalCells

CELLS = ThermalCells()


def ideal_positions(structure):
    """Where the 32 sites of the default crystal lie in a strained cell."""
    crystal = bulk("Al", "fcc", a=1.0, cubic=True) * (2, 2, 2)
    return crystal.positions / 2 * structure.orthorhombic_lengths()


def test_the_default_series():
    structures = CELLS.structures(seed=0)
    assert len(structures) == 24
    assert [len(s) for s in structures] == [32, 31] * 12
    assert all(s.periodic and set(s.symbols) == {"Al"} for s in structures)


def test_strain_is_orthorhombic_and_within_its_range():
    lengths = np.array([s.orthorhombic_lengths() for s in CELLS.structures()])
    strains = lengths / (2 * 7.65) - 1
    assert np.abs(strains).max() <= 0.02
    assert np.abs(strains).max() > 0.018
    assert np.ptp(strains, axis=1).min() > 0  # not only volumetric
    unstrained = replace(CELLS, strain=0.0).structure(0)
    assert unstrained.orthorhombic_lengths() == pytest.approx([15.3] * 3, abs=1e-12)


def test_without_displacement_the_sites_of_the_strained_crystal_remain():
    cells = ThermalCells(displacement=(0.0, 0.0), vacancy_fraction=0.0)
    structure = cells.structure(5)
    assert np.allclose(structure.positions, ideal_positions(structure), rtol=0, atol=1e-10)


@pytest.mark.parametrize("index", [0, 4, 21])
def test_displacements_have_the_amplitude_promised(index):
    cells = replace(CELLS, vacancy_fraction=0.0)
    structure = cells.structure(index, seed=5)
    displacement = structure.positions - ideal_positions(structure)
    # 96 numbers: the standard deviation is known to about 7 %
    assert displacement.std() == pytest.approx(cells.displacement_amplitude(index), rel=0.25)


@pytest.mark.parametrize(
    "part", [slice(0, 12), slice(12, 24), slice(0, 24, 2), slice(1, 24, 2)], ids=str
)
def test_every_half_of_the_series_covers_the_range_of_displacements(part):
    amplitudes = np.sort([CELLS.displacement_amplitude(i) for i in range(24)][part])
    padded = np.concatenate([[0.05], amplitudes, [0.4]])
    assert np.diff(padded).min() >= 0
    assert np.diff(padded).max() < 0.2 * 0.35


def test_a_vacancy_removes_one_site_and_moves_no_other():
    whole = replace(CELLS, vacancy_fraction=0.0).structure(3)
    holed = replace(CELLS, vacancy_fraction=1.0).structure(3)
    kept = (whole.positions[:, None] == holed.positions).all(axis=2).any(axis=1)
    assert kept.sum() == len(holed) == 31


@pytest.mark.parametrize("share", [0.0, 0.29, 0.5, 0.7, 1.0])
def test_share_of_vacancies(share):
    cells = ThermalCells(vacancy_fraction=share)
    assert sum(cells.has_vacancy(i) for i in range(100)) == round(100 * share)


def test_each_structure_can_be_made_alone_and_again():
    series = CELLS.structures(seed=7)
    again = CELLS.structure(9, seed=7)
    assert np.array_equal(series[9].positions, again.positions)
    assert np.array_equal(series[9].cell, again.cell)
    longer = replace(CELLS, count=30).structures(seed=7)
    assert np.array_equal(longer[23].positions, series[23].positions)


def test_seeds_and_indices_give_different_structures():
    one = CELLS.structure(0, seed=0).positions
    assert np.abs(one - CELLS.structure(0, seed=1).positions).max() > 0.1
    assert np.abs(one - CELLS.structure(2, seed=0).positions).max() > 0.1


def test_other_crystals():
    cells = ThermalCells(
        element="Cu", lattice_constant=6.8, supercell=(1, 2, 3), count=2, vacancy_fraction=0.0
    )
    first, second = cells.structures()
    assert first.formula == second.formula == "Cu24"
    assert first.orthorhombic_lengths() == pytest.approx([6.8, 13.6, 20.4], rel=0.021)


def test_tetragonal_cells_are_the_same_crystal():
    still = {"displacement": (0.0, 0.0), "strain": 0.0, "vacancy_fraction": 0.0, "count": 1}
    small = ThermalCells(cell="tetragonal", supercell=(2, 2, 2), **still).structure(0)
    cubic = ThermalCells(**still).structure(0)
    assert small.orthorhombic_lengths() == pytest.approx(np.array([2**0.5, 2**0.5, 2]) * 7.65)
    assert (len(small), len(cubic)) == (16, 32)
    shells = [np.sort(neighbor_list("d", cell.to_ase(), 6.0)) for cell in (small, cubic)]
    np.testing.assert_allclose(np.repeat(shells[0], 2), shells[1], atol=1e-9)


def test_displacements_that_make_atoms_overlap_are_refused():
    cells = ThermalCells(displacement=(20.0, 20.0))
    with pytest.raises(StructureError, match="closer than"):
        cells.structures()


def test_further_cells_continue_the_series():
    further = CELLS.further(3, seed=1)
    assert list(further) == [CELLS.count + i for i in range(3)]
    for place, structure in further.items():
        expected = CELLS.structure(place, seed=1)
        np.testing.assert_array_equal(structure.positions, expected.positions)


def test_the_options_of_a_configuration_make_them():
    assert ThermalCellsOptions().source() == CELLS
    given = {"element": "Cu", "supercell": (1, 2, 3), "vacancy_fraction": 0.25}
    assert ThermalCellsOptions(**given).source() == ThermalCells(**given)
