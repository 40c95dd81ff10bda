"""Data sets on disk: round trips, writers that die, an index that follows the files."""

import json
import os
import subprocess
import sys

import pytest
from samples import FUNCTIONAL, assert_same, make_kohn_sham_sample, make_sample

from fedens.data.dataset import Dataset
from fedens.data.sample_file import SCHEMA_VERSION, stored_checksum, write_sample
from fedens.errors import DatasetError, OutputError


@pytest.fixture
def data(tmp_path):
    """A data set of three samples a, b, c."""
    result = Dataset.open(tmp_path / "data", create=True)
    for seed, name in enumerate("abc"):
        result.add(make_sample(seed), name)
    return result


@pytest.fixture
def file(data):
    """The file of sample b."""
    return data.path / "b.h5"


def test_round_trip(data):
    reopened = Dataset.open(data.path)
    assert reopened.names == ["a", "b", "c"]
    assert len(reopened) == 3
    assert "b" in reopened
    assert "d" not in reopened
    for seed, sample in enumerate(reopened):
        assert_same(sample, make_sample(seed))
    assert_same(reopened[1], reopened["b"])
    assert_same(reopened[-1], reopened["c"])


def test_missing_data_set_is_refused_unless_it_may_be_made(tmp_path):
    with pytest.raises(DatasetError, match="create=True"):
        Dataset.open(tmp_path / "none")
    with pytest.raises(DatasetError, match="no data set"):
        Dataset.open(tmp_path)
    assert len(Dataset.open(tmp_path / "none", create=True)) == 0
    assert Dataset.open(tmp_path / "none", create=True).functional is None


def test_unusable_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot make the folder"):
        Dataset.open(tmp_path / "file", create=True)
    with pytest.raises(OutputError, match="cannot be written"):
        write_sample(make_sample(), tmp_path / "file" / "a.h5")


def test_names(data):
    assert data.add(make_sample(3)) == "Al2-0003"
    assert data.add(make_sample(4)) == "Al2-0004"
    with pytest.raises(DatasetError, match="already has a sample 'b'"):
        data.add(make_sample(5), "b")
    assert_same(data["b"], make_sample(1))
    for name in ("", "../x", ".x", "a/b", "a b"):
        with pytest.raises(DatasetError, match="cannot name"):
            data.add(make_sample(5), name)
    with pytest.raises(DatasetError, match=r"no sample 'z'; it has .*a, b, c"):
        _ = data["z"]
    with pytest.raises(IndexError):
        _ = data[5]


def test_name_taken_by_another_writer_is_refused(data):
    Dataset.open(data.path).add(make_sample(3), "d")
    assert "d" not in data
    with pytest.raises(DatasetError, match="already has"):
        data.add(make_sample(4), "d")
    assert Dataset.open(data.path).names == ["a", "b", "c", "d"]


def test_two_writers_lose_nothing(data):
    other = Dataset.open(data.path)
    other.add(make_sample(3), "d")
    data.add(make_sample(4), "e")
    assert Dataset.open(data.path).names == ["a", "b", "c", "d", "e"]


def test_index_is_rebuilt_from_the_files(data):
    index = data.path / "index.json"
    complete = index.read_text()
    assert json.loads(complete)["samples"]["a"]["energy_hartree"] == make_sample(0).energy
    for broken in ("", "{", "[]", '{"schema_version": 1, "samples": 3, "functional": null}'):
        index.write_text(broken)
        assert Dataset.open(data.path).names == ["a", "b", "c"]
        assert index.read_text() == complete
    index.unlink()
    assert Dataset.open(data.path).functional == FUNCTIONAL
    assert index.read_text() == complete


def test_index_follows_files_that_come_and_go(data):
    (data.path / "a.h5").unlink()
    write_sample(make_sample(7), data.path / "d.h5")
    reopened = Dataset.open(data.path)
    assert reopened.names == ["b", "c", "d"]
    assert list(json.loads((data.path / "index.json").read_text())["samples"]) == ["b", "c", "d"]


def test_newer_index_is_refused(data):
    content = json.loads((data.path / "index.json").read_text())
    content["schema_version"] = SCHEMA_VERSION + 1
    (data.path / "index.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="update fedens"):
        Dataset.open(data.path)


def test_interrupted_writer_leaves_nothing(data, monkeypatch):
    def interrupted(source, _target):
        assert os.path.getsize(source) > 0
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            data.add(make_sample(3), "d")
    assert sorted(p.name for p in data.path.iterdir()) == ["a.h5", "b.h5", "c.h5", "index.json"]
    assert "d" not in data
    data.add(make_sample(3), "d")
    assert_same(Dataset.open(data.path)["d"], make_sample(3))


KILLED_WRITER = """
import os, sys
sys.path.insert(0, sys.argv[2])
from samples import make_sample
from fedens.data.dataset import Dataset

os.replace = lambda source, target: os._exit(9)
Dataset.open(sys.argv[1]).add(make_sample(3), "d")
"""


@pytest.mark.slow
def test_killed_writer_leaves_no_sample(data):
    here = os.path.dirname(__file__)
    killed = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(data.path), here])
    assert killed.returncode == 9
    assert not (data.path / "d.h5").exists()
    reopened = Dataset.open(data.path)
    assert reopened.names == ["a", "b", "c"]
    reopened.add(make_sample(3), "d")
    assert sorted(p.name for p in data.path.iterdir()) == [
        *(f"{name}.h5" for name in "abcd"),
        "index.json",
    ]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_file_is_refused(data, file, share):
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DatasetError, match=r"b\.h5.*delete it and make it again"):
        _ = data["b"]
    (data.path / "index.json").unlink()
    with pytest.raises(DatasetError, match=r"b\.h5"):
        Dataset.open(data.path)


def test_unconverged_sample_is_refused_or_marked(data):
    unfinished = make_sample(3, converged=False)
    with pytest.raises(DatasetError, match="not converged"):
        data.add(unfinished, "d")
    assert not (data.path / "d.h5").exists()
    data.add(unfinished, "d", allow_unconverged=True)
    reopened = Dataset.open(data.path)
    assert [sample.converged for sample in reopened] == [True, True, True, False]
    assert [entry["converged"] for entry in reopened.index.values()] == [True, True, True, False]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"gaussian_widths": {"Al": 1.0}}, r"gaussian_widths\.Al is 1\.0 here and 1\.2"),
        ({"gaussian_widths": {}}, r"gaussian_widths\.Al is None"),
        ({"gauge": {"kinetic": "laplacian"}}, r"gauge\.kinetic"),
        ({"kinetic": "tfvw"}, r"functional\.kinetic is 'tfvw' here and 'wt'"),
        (
            {"pseudopotentials": {"Al": {"kind": "gth_local", "r_loc": 0.8}}},
            r"pseudopotentials\.Al\.r_loc",
        ),
    ],
)
def test_mixing_functionals_is_refused(data, change, named):
    other = make_sample(3, functional=FUNCTIONAL | change)
    with pytest.raises(DatasetError, match=named):
        data.add(other, "d")
    assert not (data.path / "d.h5").exists()


def test_mixing_through_the_back_door_is_refused(data):
    other = make_sample(3, functional=FUNCTIONAL | {"xc": "pbe"})
    write_sample(other, data.path / "b.h5")
    with pytest.raises(DatasetError, match=r"functional\.xc"):
        _ = data["b"]
    write_sample(make_sample(1), data.path / "b.h5")
    write_sample(other, data.path / "d.h5")
    with pytest.raises(DatasetError, match=r"functional\.xc"):
        Dataset.open(data.path)


def test_sample_without_functional_does_not_mix(data):
    with pytest.raises(DatasetError, match="functional is None here"):
        data.add(make_sample(3, provenance={}), "d")


def test_a_pseudopotential_file_may_lie_elsewhere(tmp_path):
    def table(path, contents):
        return {"pseudopotentials": {"Al": {"kind": "recpot", "path": path, "sha256": contents}}}

    data = Dataset.open(tmp_path, create=True)
    data.add(make_sample(0, functional=table("/one/al.recpot", "abc")))
    data.add(make_sample(1, functional=table("/two/al.recpot", "abc")))
    with pytest.raises(DatasetError, match=r"Al\.sha256"):
        data.add(make_sample(2, functional=table("/one/al.recpot", "xyz")))


def test_the_space_may_differ(data):
    provenance = {"functional": json.loads(json.dumps(FUNCTIONAL)), "space": {"spacing": 0.3}}
    data.add(make_sample(3, n_points=70, provenance=provenance), "d")
    assert len(data["d"].weights) == 70


def test_split_is_reproducible_and_nested(tmp_path):
    data = Dataset.open(tmp_path, create=True)
    for seed in range(8):
        data.add(make_sample(seed, n_points=2))
    train, test = data.split(train=5, seed=3)
    assert sorted(train + test) == data.names
    assert (len(train), len(test)) == (5, 3)
    assert Dataset.open(tmp_path).split(train=5, seed=3) == (train, test)
    assert data.split(train=2, seed=3)[0] == train[:2]
    assert data.split(train=5, seed=4)[0] != train
    for count in (0, 9):
        with pytest.raises(DatasetError, match=f"cannot train on {count}"):
            data.split(train=count)


def test_the_index_tells_structures_and_contents_apart(data):
    other = make_sample(1, structure=make_sample(0).structure)
    data.add(other, "d")
    index = Dataset.open(data.path).index
    assert index["d"]["structure_digest"] == index["a"]["structure_digest"]
    assert index["d"]["structure_digest"] == other.structure.digest
    assert len({entry["structure_digest"] for entry in index.values()}) == 3
    assert len({entry["checksum"] for entry in index.values()}) == 4
    assert index["d"]["checksum"] == stored_checksum(data.path / "d.h5")


def test_an_index_without_digests_is_completed(data):
    index = data.path / "index.json"
    complete = index.read_text()
    content = json.loads(complete)
    del content["samples"]["b"]["structure_digest"], content["samples"]["c"]["checksum"]
    index.write_text(json.dumps(content))
    Dataset.open(data.path)
    assert index.read_text() == complete


SAMPLING = {
    "kspacing_per_bohr": 0.1,
    "kpoints": 512,
    "smearing": "methfessel_paxton",
    "width_hartree": 0.04,
}


def test_samples_of_another_sampling_are_refused(tmp_path):
    data = Dataset.open(tmp_path / "data", create=True)
    data.add(make_kohn_sham_sample(SAMPLING, 0), "a")
    data.add(make_kohn_sham_sample(SAMPLING | {"kspacing_per_bohr": 0.115}, 1), "b")
    with pytest.raises(DatasetError, match=r"'c' and 'b'.*0\.0900 per bohr and 0\.1150 per bohr"):
        data.add(make_kohn_sham_sample(SAMPLING | {"kspacing_per_bohr": 0.09}, 2), "c")
    other = make_kohn_sham_sample(SAMPLING | {"smearing": "cold"}, 2)
    with pytest.raises(DatasetError, match=r"'c' and 'a'.*cold of 0\.04 hartree and methfessel"):
        data.add(other, "c")
    write_sample(other, data.path / "c.h5")
    with pytest.raises(DatasetError, match=r"'c' and 'a'"):
        Dataset.open(data.path)
    (data.path / "c.h5").unlink()
    assert Dataset.open(data.path).index["b"]["sampling"]["kspacing_per_bohr"] == 0.115


def test_other_kohn_sham_functionals_are_refused(tmp_path):
    data = Dataset.open(tmp_path / "data", create=True)
    data.add(make_kohn_sham_sample(SAMPLING), "a")
    provenance = {**make_kohn_sham_sample(SAMPLING).provenance, "functional": {"xc": "pbe"}}
    with pytest.raises(DatasetError, match=r"functional\.xc is 'pbe' here and 'lda_pw'"):
        data.add(make_kohn_sham_sample(SAMPLING, provenance=provenance), "b")
