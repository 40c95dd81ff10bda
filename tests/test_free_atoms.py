"""Spherical free atoms: tables against PySCF's own integrals, and the cache on disk."""

import numpy as np
import pytest
import torch

from fedens.atoms.spherical import find_atom
from fedens.errors import ConvergenceError, FunctionalError
from fedens.reference.pyscf import free_atoms as module
from fedens.reference.pyscf.free_atoms import free_atom, free_atoms, solve_atom
from fedens.reference.pyscf.orbital_fields import hartree_potential, local_fields


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and nothing remembered from other tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    free_atom.cache_clear()
    yield tmp_path / "fedens" / "free_atoms"
    free_atom.cache_clear()


@pytest.mark.parametrize(
    ("symbol", "xc", "basis"),
    [("H", "pbe", "def2-svp"), ("O", "pbe", "def2-tzvp"), ("Cl", "tpss", "def2-svp")],
)
def test_energies_are_those_of_pyscf(symbol, xc, basis):
    """To 1e-9 hartree; integrals over the radius against Gaussian integrals."""
    own, atom = solve_atom(symbol, xc, basis), free_atom(symbol, xc, basis)
    molecule, matrix = own.mol, own.make_rdm1()
    expected = {
        "kinetic": (molecule.intor("int1e_kin") * matrix).sum(),
        "nuclear_attraction": (molecule.intor("int1e_nuc") * matrix).sum(),
        "hartree": own.scf_summary["coul"],
        "xc": own.scf_summary["exc"],
    }
    assert atom.energies == pytest.approx(expected, rel=0, abs=1e-9)
    assert sum(atom.energies.values()) == pytest.approx(own.e_tot, abs=1e-9)
    assert atom.number_of_electrons == pytest.approx(molecule.nelectron, abs=1e-10)
    assert atom.charge == molecule.nelectron


def test_fields_are_the_same_in_all_directions():
    own, atom = solve_atom("O", "tpss", "def2-svp"), free_atom("O", "tpss", "def2-svp")
    r = np.array([1e-4, 0.003, 0.05, 0.4, 1.3, 3.0, 6.0])
    directions = np.random.default_rng(5).standard_normal((len(r), 3))
    points = r[:, None] * directions / np.linalg.norm(directions, axis=1)[:, None]
    expected = local_fields(own.mol, own.make_rdm1(), "tpss", points)
    radii = torch.tensor(r)
    for name, values in atom.fields(radii).items():
        assert values.numpy() == pytest.approx(expected[name], rel=1e-7, abs=1e-12)
    hartree = hartree_potential(own.mol, own.make_rdm1(), points)
    assert atom.hartree_potential(radii).numpy() == pytest.approx(hartree, abs=1e-9)
    assert atom.potential(radii).numpy() == pytest.approx(hartree - 8 / r, abs=1e-9)


def test_far_away_nothing_is_left():
    atom = free_atom("O", "pbe", "def2-svp")
    r = torch.tensor([30.0, 60.0, 1e4], dtype=torch.float64)
    assert atom.hartree_potential(r).numpy() == pytest.approx(8 / r.numpy(), rel=1e-12)
    assert atom.potential(r).abs().max() < 1e-12
    assert atom.fields(r)["density"].abs().max() < 1e-30


def test_fields_and_potential_have_derivatives():
    atom = free_atom("O", "pbe", "def2-svp")
    r = torch.tensor([0.02, 0.3, 1.1, 4.0], dtype=torch.float64, requires_grad=True)
    functions = [atom.potential, lambda x: atom.fields(x)["kinetic"]]
    functions.append(lambda x: atom.fields(x)["density"])
    for function in functions:
        (slope,) = torch.autograd.grad(function(r).sum(), r)
        h = 1e-4 * r.detach()
        difference = (function(r.detach() + h) - function(r.detach() - h)) / (2 * h)
        assert slope.numpy() == pytest.approx(difference.numpy(), rel=1e-5)


def test_atoms_are_read_from_the_cache(cache, monkeypatch):
    first = free_atoms(["H", "O", "H"], "pbe", "def2-svp")
    assert sorted(path.name.split("-")[0] for path in cache.iterdir()) == ["H", "O"]
    free_atom.cache_clear()
    monkeypatch.setattr(module, "solve_atom", None)
    again = free_atoms(["H", "O"], "pbe", "def2-svp")
    for symbol, atom in first.items():
        assert again[symbol].energies == atom.energies
        assert again[symbol].charge == atom.charge


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_broken_cache_is_made_again(cache, damage):
    energies = free_atom("H", "pbe", "def2-svp").energies
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    middle = len(whole) // 2
    changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    path.write_bytes({"cut": whole[:-7], "changed": changed, "empty": b""}[damage])
    free_atom.cache_clear()
    assert free_atom("H", "pbe", "def2-svp").energies == energies
    assert path.read_bytes() == whole


def test_other_levels_of_theory_have_other_files(cache):
    energies = {
        sum(free_atom("H", xc, basis).energies.values())
        for xc in ("pbe", "lda_pz")
        for basis in ("def2-svp", "def2-tzvp")
    }
    assert len(energies) == len(list(cache.iterdir())) == 4


def test_cache_that_cannot_be_written_only_costs_time(tmp_path, monkeypatch):
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocker))
    assert free_atom("H", "pbe", "def2-svp").charge == 1


def test_wrong_levels_of_theory(monkeypatch):
    with pytest.raises(FunctionalError, match="exact exchange"):
        free_atom("H", "b3lyp", "def2-svp")
    with pytest.raises(FunctionalError, match="leaves 28 core electrons"):
        free_atom("I", "pbe", "def2-svp")
    with pytest.raises(FunctionalError, match="no free atom of O; there is one of H"):
        find_atom(free_atoms(["H"], "pbe", "def2-svp"), "O")
    monkeypatch.setattr(module, "_MAX_CYCLES", 2)
    with pytest.raises(ConvergenceError, match=r"free atom of O .* after 2 cycles"):
        free_atom("O", "pbe", "def2-svp")
