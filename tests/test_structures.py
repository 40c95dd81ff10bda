"""The structures of a run: reproducible, spread as asked, and read from files."""

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule

from fedens.configuration import StructureFileOptions, ThermalCellsOptions
from fedens.errors import ConfigurationError, StructureError
from fedens.sources.structures import (
    displacement_amplitude,
    further_structures,
    has_vacancy,
    make_structures,
    read_structures,
    thermal_cell,
)

OPTIONS = ThermalCellsOptions()


def ideal_positions(structure):
    """Where the 32 sites of the default crystal lie in a strained cell."""
    crystal = bulk("Al", "fcc", a=1.0, cubic=True) * (2, 2, 2)
    return crystal.positions / 2 * structure.orthorhombic_lengths()


def test_the_default_series():
    structures = make_structures(OPTIONS, seed=0)
    assert len(structures) == 24
    assert [len(s) for s in structures] == [32, 31] * 12
    assert all(s.periodic and set(s.symbols) == {"Al"} for s in structures)


def test_strain_is_orthorhombic_and_within_its_range():
    lengths = np.array([s.orthorhombic_lengths() for s in make_structures(OPTIONS)])
    strains = lengths / (2 * 7.65) - 1
    assert np.abs(strains).max() <= 0.02
    assert np.abs(strains).max() > 0.018
    assert np.ptp(strains, axis=1).min() > 0  # not only volumetric
    unstrained = thermal_cell(OPTIONS.model_copy(update={"strain": 0.0}), 0)
    assert unstrained.orthorhombic_lengths() == pytest.approx([15.3] * 3, abs=1e-12)


def test_without_displacement_the_sites_of_the_strained_crystal_remain():
    options = ThermalCellsOptions(displacement=(0.0, 0.0), vacancy_fraction=0.0)
    structure = thermal_cell(options, 5)
    assert np.allclose(structure.positions, ideal_positions(structure), rtol=0, atol=1e-10)


@pytest.mark.parametrize("index", [0, 4, 21])
def test_displacements_have_the_amplitude_promised(index):
    options = OPTIONS.model_copy(update={"vacancy_fraction": 0.0})
    structure = thermal_cell(options, index, seed=5)
    displacement = structure.positions - ideal_positions(structure)
    # 96 numbers: the standard deviation is known to about 7 %
    assert displacement.std() == pytest.approx(displacement_amplitude(options, index), rel=0.25)


@pytest.mark.parametrize(
    "part", [slice(0, 12), slice(12, 24), slice(0, 24, 2), slice(1, 24, 2)], ids=str
)
def test_every_half_of_the_series_covers_the_range_of_displacements(part):
    amplitudes = np.sort([displacement_amplitude(OPTIONS, i) for i in range(24)][part])
    padded = np.concatenate([[0.05], amplitudes, [0.4]])
    assert np.diff(padded).min() >= 0
    assert np.diff(padded).max() < 0.2 * 0.35


def test_a_vacancy_removes_one_site_and_moves_no_other():
    whole = thermal_cell(OPTIONS.model_copy(update={"vacancy_fraction": 0.0}), 3)
    holed = thermal_cell(OPTIONS.model_copy(update={"vacancy_fraction": 1.0}), 3)
    kept = (whole.positions[:, None] == holed.positions).all(axis=2).any(axis=1)
    assert kept.sum() == len(holed) == 31


@pytest.mark.parametrize("share", [0.0, 0.29, 0.5, 0.7, 1.0])
def test_share_of_vacancies(share):
    options = ThermalCellsOptions(vacancy_fraction=share)
    assert sum(has_vacancy(options, i) for i in range(100)) == round(100 * share)


def test_each_structure_can_be_made_alone_and_again():
    series = make_structures(OPTIONS, seed=7)
    again = thermal_cell(OPTIONS, 9, seed=7)
    assert np.array_equal(series[9].positions, again.positions)
    assert np.array_equal(series[9].cell, again.cell)
    longer = make_structures(OPTIONS.model_copy(update={"count": 30}), seed=7)
    assert np.array_equal(longer[23].positions, series[23].positions)


def test_seeds_and_indices_give_different_structures():
    one = thermal_cell(OPTIONS, 0, seed=0).positions
    assert np.abs(one - thermal_cell(OPTIONS, 0, seed=1).positions).max() > 0.1
    assert np.abs(one - thermal_cell(OPTIONS, 2, seed=0).positions).max() > 0.1


def test_other_crystals():
    options = ThermalCellsOptions(
        element="Cu", lattice_constant=6.8, supercell=(1, 2, 3), count=2, vacancy_fraction=0.0
    )
    first, second = make_structures(options)
    assert first.formula == second.formula == "Cu24"
    assert first.orthorhombic_lengths() == pytest.approx([6.8, 13.6, 20.4], rel=0.021)


def test_displacements_that_make_atoms_overlap_are_refused():
    options = ThermalCellsOptions(displacement=(20.0, 20.0))
    with pytest.raises(StructureError, match="closer than"):
        make_structures(options)


def test_periodic_file(tmp_path):
    images = [bulk("Al", "fcc", a=a, cubic=True) for a in (4.0, 4.05, 4.1)]
    ase.io.write(tmp_path / "cells.extxyz", images)
    structures = make_structures(StructureFileOptions(file=tmp_path / "cells.extxyz"))
    lengths = [s.orthorhombic_lengths()[0] * 0.529177 for s in structures]
    assert lengths == pytest.approx([4.0, 4.05, 4.1], rel=1e-6)
    assert all(s.periodic for s in structures)
    options = StructureFileOptions(file=tmp_path / "cells.extxyz", index=-1)
    assert make_structures(options)[0].volume == pytest.approx(structures[2].volume)
    assert len(read_structures(tmp_path / "cells.extxyz", "1:")) == 2


def test_further_cells_continue_the_series():
    further = further_structures(OPTIONS, 3, seed=1)
    assert list(further) == [OPTIONS.count + i for i in range(3)]
    for place, structure in further.items():
        expected = thermal_cell(OPTIONS, place, seed=1)
        np.testing.assert_array_equal(structure.positions, expected.positions)


def test_further_structures_of_a_file_are_those_its_index_leaves(tmp_path):
    edges = [4.0 + 0.01 * i for i in range(6)]
    images = [bulk("Al", "fcc", a=a, cubic=True) for a in edges]
    ase.io.write(tmp_path / "cells.extxyz", images)
    for index, left in (("::2", [1, 3, 5]), ("1:4", [0, 4, 5]), (-1, [0, 1, 2]), (2, [0, 1, 3])):
        options = StructureFileOptions(file=tmp_path / "cells.extxyz", index=index)
        further = further_structures(options, 3)
        assert list(further) == left
        for place, structure in further.items():
            length = structure.orthorhombic_lengths()[0] * 0.529177
            assert length == pytest.approx(edges[place], rel=1e-6)
    with pytest.raises(ConfigurationError, match=r"has 5 structures besides.*narrow the index"):
        further_structures(options, 6)
    options = StructureFileOptions(file=tmp_path / "cells.extxyz", index="id=3")
    with pytest.raises(ConfigurationError, match="a number or a slice"):
        further_structures(options, 1)


def test_isolated_file(tmp_path):
    ase.io.write(tmp_path / "water.xyz", molecule("H2O"))
    (water,) = read_structures(tmp_path / "water.xyz")
    assert water.formula == "OH2"
    assert not water.periodic
    assert np.allclose(water.positions * 0.529177, molecule("H2O").positions, atol=1e-5)


def test_vasp_file(tmp_path):
    ase.io.write(tmp_path / "POSCAR", bulk("Al", "fcc", a=4.05, cubic=True))
    (crystal,) = read_structures(tmp_path / "POSCAR")
    assert (crystal.formula, crystal.periodic) == ("Al4", True)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(StructureError, match=r"no structure file .*none\.xyz"):
        read_structures(tmp_path / "none.xyz")
    (tmp_path / "text.xyz").write_text("three\nlines\nof text\n")
    with pytest.raises(StructureError, match=r"ASE cannot read .*text\.xyz"):
        read_structures(tmp_path / "text.xyz")
    ase.io.write(tmp_path / "water.xyz", molecule("H2O"))
    for index in (5, "True", "a:b"):
        with pytest.raises(StructureError, match=f"index {index}"):
            read_structures(tmp_path / "water.xyz", index)
    with pytest.raises(StructureError, match="no structures at index 3:"):
        read_structures(tmp_path / "water.xyz", "3:")


def test_unusable_structure_of_a_file_is_named(tmp_path):
    good, slab = bulk("Al", "fcc", a=4.05, cubic=True), bulk("Al", "fcc", a=4.05, cubic=True)
    slab.pbc = [True, True, False]
    ase.io.write(tmp_path / "mixed.extxyz", [good, slab])
    with pytest.raises(StructureError, match=r"mixed\.extxyz, structure 1 of :: pbc"):
        read_structures(tmp_path / "mixed.extxyz")
