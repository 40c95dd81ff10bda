"""Samples on disk: round trips, and everything that must be refused."""

import h5py
import numpy as np
import pytest
from samples import assert_same, make_kohn_sham_sample, make_sample

from fedens.data.sample_file import SCHEMA_VERSION, read_sample, stored_checksum, write_sample
from fedens.errors import DatasetError
from fedens.structure import Structure


@pytest.fixture
def file(tmp_path):
    """The file of a sample."""
    write_sample(make_sample(1), tmp_path / "b.h5")
    return tmp_path / "b.h5"


def test_round_trip_of_isolated_atoms_without_optional_entries(tmp_path):
    structure = Structure(["H"], [[0, 0, 0]], spin=1, occupancies=[0.5])
    sample = make_sample(structure=structure, forces=None, stress=None, energies={})
    write_sample(sample, tmp_path / "x.h5")
    back = read_sample(tmp_path / "x.h5")
    assert back.structure.cell is None
    assert back.forces is None
    assert back.stress is None
    assert back.structure.spin == 1
    assert back.structure.occupancies.tolist() == [0.5]


def test_round_trip_of_bands_and_their_units(tmp_path):
    sample = make_kohn_sham_sample({"kspacing_per_bohr": 0.1})
    write_sample(sample, tmp_path / "x.h5")
    assert_same(read_sample(tmp_path / "x.h5"), sample)
    with h5py.File(tmp_path / "x.h5") as file:
        units = {name: array.attrs["unit"] for name, array in file["bands"].items()}
        assert file["fields/effective_potential"].attrs["unit"] == "hartree"
    energies = {"eigenvalues": "hartree", "chemical_potential": "hartree"}
    assert units == {"kpoints": "1", "weights": "1", "occupations": "1", **energies}


def test_the_chemical_potential_is_kept_and_found_among_the_bands_of_old_files(tmp_path):
    sample = make_kohn_sham_sample({"kspacing_per_bohr": 0.1}, chemical_potential=0.25)
    write_sample(sample, tmp_path / "x.h5")
    assert read_sample(tmp_path / "x.h5").chemical_potential == 0.25
    old = make_kohn_sham_sample({"kspacing_per_bohr": 0.1})
    write_sample(old, tmp_path / "old.h5")
    assert read_sample(tmp_path / "old.h5").chemical_potential == old.bands.chemical_potential
    with pytest.raises(DatasetError, match="chemical potential is nan"):
        make_sample(chemical_potential=np.nan)


def test_every_array_carries_its_unit(file):
    units = {}
    with h5py.File(file) as content:
        content.visititems(
            lambda name, item: (
                units.update({name: item.attrs["unit"]}) if isinstance(item, h5py.Dataset) else None
            )
        )
        assert content.attrs["schema_version"] == SCHEMA_VERSION
        assert content.attrs["units"] == "hartree atomic units"
    assert units["fields/density"] == "electron/bohr^3"
    assert units["energies/kinetic"] == units["energy"] == units["ion_energy"] == "hartree"
    assert units["fields/kinetic"] == "hartree/bohr^3"
    assert units["structure/positions"] == "bohr"
    assert units["structure/numbers"] == "1"
    assert len(units) == 19


def test_files_that_are_no_samples_are_refused(file):
    file.write_text("this is text")
    with pytest.raises(DatasetError, match="truncated, damaged or foreign"):
        read_sample(file)
    with h5py.File(file, "w") as content:
        content["density"] = np.ones(3)
    with pytest.raises(DatasetError, match="not a sample"):
        read_sample(file)
    with pytest.raises(DatasetError, match="there is no sample"):
        read_sample(file.with_name("none.h5"))


def test_changed_array_is_refused(file):
    with h5py.File(file, "a") as content:
        content["fields/density"][7] *= 1 + 1e-15
    with pytest.raises(DatasetError, match="checksum"):
        read_sample(file)


@pytest.mark.parametrize("name", ["converged", "provenance"])
def test_changed_history_is_refused(file, name):
    changed = {"converged": False, "provenance": "{}"}
    with h5py.File(file, "a") as content:
        content.attrs[name] = changed[name]
    with pytest.raises(DatasetError, match="checksum"):
        read_sample(file)


def test_renamed_array_is_refused(file):
    with h5py.File(file, "a") as content:
        content.move("fields/xc", "fields/total")
    with pytest.raises(DatasetError, match="checksum"):
        read_sample(file)


def test_exchanged_arrays_are_refused(file):
    with h5py.File(file, "a") as content:
        content.move("fields/kinetic", "x")
        content.move("fields/xc", "fields/kinetic")
        content.move("x", "fields/xc")
    with pytest.raises(DatasetError, match="checksum"):
        read_sample(file)


@pytest.mark.parametrize("name", ["fields/density", "structure/cell", "stress", "energies/xc"])
def test_missing_or_wrong_unit_is_refused(file, name):
    with h5py.File(file, "a") as content:
        del content[name].attrs["unit"]
    with pytest.raises(DatasetError, match=f"{name}.*None"):
        read_sample(file)
    with h5py.File(file, "a") as content:
        content[name].attrs["unit"] = "eV"
    with pytest.raises(DatasetError, match=f"{name}.*'eV'"):
        read_sample(file)


@pytest.mark.parametrize("name", ["schema_version", "units", "provenance", "checksum", "converged"])
def test_missing_attribute_is_refused(file, name):
    with h5py.File(file, "a") as content:
        del content.attrs[name]
    with pytest.raises(DatasetError, match=name):
        read_sample(file)


def test_missing_array_is_refused(file):
    with h5py.File(file, "a") as content:
        del content["energy"]
    with pytest.raises(DatasetError, match="checksum"):
        read_sample(file)


def test_newer_schema_is_refused(file):
    with h5py.File(file, "a") as content:
        content.attrs["schema_version"] = SCHEMA_VERSION + 1
    with pytest.raises(DatasetError, match=f"schema version {SCHEMA_VERSION + 1}.*update fedens"):
        read_sample(file)


def test_field_without_a_known_unit_is_refused(tmp_path):
    sample = make_sample()
    sample.fields["temperature"] = np.ones(50)
    with pytest.raises(DatasetError, match="temperature"):
        write_sample(sample, tmp_path / "x.h5")
    assert not list(tmp_path.iterdir())


def test_provenance_must_be_json(tmp_path):
    for value in (np.ones(3), float("nan"), object()):
        with pytest.raises(DatasetError, match="provenance"):
            write_sample(make_sample(provenance={"x": value}), tmp_path / "x.h5")


def test_fields_of_one_spin_have_the_unit_of_both(tmp_path):
    sample = make_sample()
    sample.fields["density_up"] = np.ones(50)
    write_sample(sample, tmp_path / "x.h5")
    assert read_sample(tmp_path / "x.h5").fields["density_up"].tolist() == [1.0] * 50


def test_the_checksum_tells_samples_apart(file, tmp_path):
    for sample, same in ((make_sample(1), True), (make_sample(2), False)):
        write_sample(sample, tmp_path / "other.h5")
        assert (stored_checksum(tmp_path / "other.h5") == stored_checksum(file)) is same
