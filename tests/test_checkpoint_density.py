"""The density from which a calculation that was killed goes on."""

import numpy as np
import pytest
import torch
from systems import ERF, GTHFIT, dimer, rattled

from fedens import KohnSham, Structure, TensorSpace
from fedens.errors import DatasetError, OutputError
from fedens.reference.kohn_sham.checkpoint import Checkpoint

STRUCTURE = rattled()
SPACE = TensorSpace([7.65, 7.5, 7.8], 1, 4)
FUNCTIONAL = KohnSham("lda_pw", GTHFIT)
DENSITY = 1 + torch.sin(torch.arange(SPACE.n_points, dtype=torch.float64))


def checkpoint(path, structure=STRUCTURE, space=SPACE, functional=FUNCTIONAL):
    return Checkpoint.of(path, structure, space, functional)


@pytest.fixture
def path(tmp_path):
    """A file with the density in it."""
    path = tmp_path / "last.npz"
    checkpoint(path).write(DENSITY)
    return path


def test_read_back_to_the_bit(path):
    assert torch.equal(checkpoint(path).density(), DENSITY)


def test_the_last_density_counts(path):
    checkpoint(str(path)).write(2 * DENSITY)
    assert torch.equal(checkpoint(path).density(), 2 * DENSITY)
    assert [file.name for file in path.parent.iterdir()] == ["last.npz"]


def test_equal_calculations_share_it(path):
    again = KohnSham("lda_pw", type(GTHFIT)(3, 0.7473, 4.9546, -0.8993))
    space = TensorSpace.from_description(SPACE.describe())
    assert torch.equal(checkpoint(path, rattled(), space, again).density(), DENSITY)


def test_without_a_file_there_is_no_density(tmp_path):
    assert checkpoint(tmp_path / "new" / "last.npz").density() is None


def test_without_a_path_there_is_no_checkpoint():
    assert checkpoint(None) is None


def test_the_folder_is_made(tmp_path):
    there = checkpoint(tmp_path / "new" / "last.npz")
    there.write(DENSITY)
    assert torch.equal(there.density(), DENSITY)


def test_removed(path):
    checkpoint(path).remove()
    assert not path.exists()
    checkpoint(path).remove()  # nothing left to delete


LENGTHS, POSITIONS = STRUCTURE.orthorhombic_lengths(), STRUCTURE.positions
OTHERS = {
    "positions": {"structure": Structure(["Al"] * 4, POSITIONS + 1e-9, LENGTHS, True)},
    "elements": {"structure": Structure(["Si"] * 4, POSITIONS, LENGTHS, True)},
    "mesh": {"space": TensorSpace(LENGTHS, 2, 4)},
    "order": {"space": TensorSpace(LENGTHS, 1, 5)},
    "cell": {"space": TensorSpace(LENGTHS + 0.01, 1, 4)},
    "functional": {"functional": KohnSham("pbe", GTHFIT)},
    "pseudopotential": {"functional": KohnSham("lda_pw", ERF)},
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_calculation(path, name):
    with pytest.raises(DatasetError, match="another structure, space or functional; delete it"):
        checkpoint(path, **OTHERS[name]).density()


def test_another_charge(tmp_path):
    space = TensorSpace.for_structure(dimer(), spacing=2.0, order=4, margin=6.0)
    atoms = dimer()
    ion = Structure(atoms.numbers, atoms.positions, charge=1.0)
    path = tmp_path / "last.npz"
    checkpoint(path, atoms, space).write(torch.ones(space.n_points))
    assert checkpoint(path, atoms, space).density() is not None
    with pytest.raises(DatasetError, match="another structure"):
        checkpoint(path, ion, space).density()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DatasetError, match="no checkpoint of a density"):
        checkpoint(path).density()


def test_flipped_bits(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 255
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="no checkpoint of a density"):
        checkpoint(path).density()


def test_foreign_files(path):
    def arrays(**content):
        with path.open("wb") as file:
            np.savez(file, **content)

    def array():
        with path.open("wb") as file:
            np.save(file, np.ones(3))

    writers = [
        lambda: path.write_text("Al 0 0 0\n"),
        lambda: arrays(density=np.ones(3)),
        lambda: arrays(density=np.array([{}], dtype=object), identity=np.array("x")),
        array,
    ]
    for write in writers:
        write()
        with pytest.raises(DatasetError, match="delete it to start anew"):
            checkpoint(path).density()


def test_a_folder_in_its_place(tmp_path):
    with pytest.raises(DatasetError, match="is a folder: give a file in it"):
        checkpoint(tmp_path).density()
    with pytest.raises(OutputError):
        checkpoint(tmp_path).write(DENSITY)
