"""Structures read from files that ASE knows, and those that an index leaves over."""

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule

from fedens.configuration import StructureFileOptions
from fedens.errors import StructureError
from fedens.sources.structure_files import StructureFile, read_structures


def test_periodic_file(tmp_path):
    images = [bulk("Al", "fcc", a=a, cubic=True) for a in (4.0, 4.05, 4.1)]
    ase.io.write(tmp_path / "cells.extxyz", images)
    structures = StructureFile(tmp_path / "cells.extxyz").structures()
    lengths = [s.orthorhombic_lengths()[0] * 0.529177 for s in structures]
    assert lengths == pytest.approx([4.0, 4.05, 4.1], rel=1e-6)
    assert all(s.periodic for s in structures)
    file = StructureFile(tmp_path / "cells.extxyz", index=-1)
    assert file.structures()[0].volume == pytest.approx(structures[2].volume)
    assert len(read_structures(tmp_path / "cells.extxyz", "1:")) == 2


def test_further_structures_of_a_file_are_those_its_index_leaves(tmp_path):
    edges = [4.0 + 0.01 * i for i in range(6)]
    images = [bulk("Al", "fcc", a=a, cubic=True) for a in edges]
    ase.io.write(tmp_path / "cells.extxyz", images)
    places = {"::2": [1, 3, 5], "1:4": [0, 4, 5], -1: [0, 1, 2, 3, 4], 2: [0, 1, 3, 4, 5]}
    for index, left in places.items():
        file = StructureFile(tmp_path / "cells.extxyz", index=index)
        further = file.further(len(left))
        assert list(further) == left
        for place, structure in further.items():
            length = structure.orthorhombic_lengths()[0] * 0.529177
            assert length == pytest.approx(edges[place], rel=1e-6)
        with pytest.raises(StructureError, match=f"has {len(left)} structures besides.*narrow the"):
            file.further(len(left) + 1)
    file = StructureFile(tmp_path / "cells.extxyz", index="id=3")
    with pytest.raises(StructureError, match="a number or a slice"):
        file.further(1)


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


def test_the_options_of_a_configuration_make_it(tmp_path):
    options = StructureFileOptions(file=tmp_path / "a.xyz", index="::2")
    assert options.source() == StructureFile(tmp_path / "a.xyz", "::2")
