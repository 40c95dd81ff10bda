"""Models of molecules: symmetry, exact forces and charges, energies, potentials, files."""

import copy
import json
from dataclasses import replace

import molecules
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from fedens.atoms.spherical import superposed_fields
from fedens.errors import ExtrapolationWarning, ModelError
from fedens.models.base import Model
from fedens.models.molecule.model import MolecularModel, with_charge
from fedens.models.molecule.prediction import Calibration
from fedens.models.molecule.training import train_molecules
from fedens.structure import Structure
from fedens.testing import central_difference

# a model of four displaced molecules finds many others foreign
pytestmark = pytest.mark.filterwarnings("ignore::fedens.errors.ExtrapolationWarning")

UNSEEN = molecules.rattled(molecules.WATER, 9, size=0.02)
TURN = Rotation.from_rotvec([0.4, -1.1, 0.7]).as_matrix()
MIRROR = TURN @ np.diag([1.0, 1.0, -1.0])
#: Of networks in single precision.
SINGLE = {"rtol": 2e-4, "atol": 2e-5}


def becke_grid(structure, level=4):
    """PySCF's points and weights of a molecule, which reach as far as its functions."""
    from pyscf import dft, gto

    mole = gto.M(
        atom=list(zip(structure.symbols, structure.positions, strict=True)),
        basis="def2-svp",
        unit="Bohr",
        charge=int(structure.charge),
    )
    grids = dft.gen_grid.Grids(mole)
    grids.level, grids.prune = level, None
    grids.build()
    return torch.tensor(grids.coords), torch.tensor(grids.weights)


@pytest.fixture(scope="module")
def hydroxide():
    """A model of two OH- and a third molecule, in few steps."""
    made = [
        Structure(["O", "H"], [[0, 0, 0], [0.3, 0, distance]], charge=-1)
        for distance in (1.75, 1.85, 1.95)
    ]
    samples = [molecules.label(structure) for structure in made[:2]]
    settings = replace(molecules.SETTINGS, committee=1, steps=20, energy_steps=20)
    return train_molecules(samples, molecules.atoms_of("O", "H"), settings), made[2], samples


@pytest.mark.parametrize("turn", [TURN, MIRROR], ids=["rotated", "reflected"])
def test_everything_turns_with_the_molecule(water_model, turn):
    shift = np.array([0.5, -2.0, 7.0])
    turned = UNSEEN.replace(positions=UNSEEN.positions @ turn.T + shift)
    before, after = map(water_model.energy_and_forces, (UNSEEN, turned))
    assert after.energy == pytest.approx(before.energy, abs=2e-7)
    assert np.abs(before.forces).max() > 0.01
    np.testing.assert_allclose(after.forces, before.forces @ turn.T, atol=2e-5)
    here, there = water_model.predict(UNSEEN), water_model.predict(turned)
    assert np.linalg.norm(here.dipole) > 0.1
    np.testing.assert_allclose(there.dipole, turn @ here.dipole, atol=1e-4)
    points = torch.tensor(np.random.default_rng(1).standard_normal((30, 3)))
    fields = here.fields(points)
    moved = there.fields(points @ torch.tensor(turn).T + torch.tensor(shift))
    for name, values in fields.items():
        torch.testing.assert_close(moved[name], values, **SINGLE)
    assert there.energies == pytest.approx(here.energies, abs=1e-4)


def test_atoms_may_be_numbered_in_any_order(water_model):
    order = [2, 0, 1]
    other = Structure([UNSEEN.symbols[i] for i in order], UNSEEN.positions[order])
    before, after = map(water_model.energy_and_forces, (UNSEEN, other))
    assert after.energy == pytest.approx(before.energy, abs=1e-7)
    np.testing.assert_allclose(after.forces, before.forces[order], atol=1e-5)
    points = torch.tensor(np.random.default_rng(1).standard_normal((30, 3)))
    here, there = (water_model.predict(s).fields(points) for s in (UNSEEN, other))
    for name, values in here.items():
        torch.testing.assert_close(there[name], values, **SINGLE)


def differences_of_energy(model, structure, step):
    """Minus the energy's derivative by differences, (n_atoms, 3)."""
    forces = np.zeros_like(structure.positions)
    for index in np.ndindex(forces.shape):

        def energy(shift, index=index):
            positions = structure.positions.copy()
            positions[index] += shift
            return model.energy(structure.replace(positions=positions))

        forces[index] = -central_difference(energy, step)
    return forces


def test_forces_are_the_derivative_of_the_energy(water_model):
    """As far as the networks' single precision lets differences tell."""
    forces = water_model.forces(UNSEEN)
    assert np.abs(forces).max() > 0.01
    expected = differences_of_energy(water_model, UNSEEN, 5e-3)
    np.testing.assert_allclose(forces, expected, atol=1e-5)


def test_forces_are_the_derivative_to_many_digits(water_model, monkeypatch):
    """The same networks in double precision."""
    single = water_model.forces(UNSEEN)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    networks = [copy.deepcopy(network).double() for network in water_model.energy_networks]
    precise = replace(water_model, energy_networks=networks)
    forces = precise.forces(UNSEEN)
    expected = differences_of_energy(precise, UNSEEN, 5e-4)
    np.testing.assert_allclose(forces, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(single, forces, rtol=0, atol=1e-6)


def test_forces_sum_to_zero_and_exert_no_torque(water_model):
    forces = water_model.forces(UNSEEN)
    np.testing.assert_allclose(forces.sum(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.cross(UNSEEN.positions, forces).sum(axis=0), 0, atol=5e-6)


def test_density_has_all_electrons(water_model):
    prediction = water_model.predict(UNSEEN)
    charges = prediction.basis.integrals(UNSEEN)
    for coefficients in prediction.coefficients:
        assert float(coefficients[0] @ charges) == pytest.approx(0, abs=1e-12)
    points, weights = becke_grid(UNSEEN)
    density = prediction.fields(points)["density"]
    assert float(weights @ density) == pytest.approx(10, abs=1e-5)


def test_density_of_an_anion_has_one_more(hydroxide):
    model, structure, _ = hydroxide
    prediction = model.predict(structure)
    charges = prediction.basis.integrals(structure)
    assert float(prediction.coefficients[0, 0] @ charges) == pytest.approx(1, abs=1e-12)
    points, weights = becke_grid(structure)
    density = prediction.fields(points)["density"]
    assert float(weights @ density) == pytest.approx(10, abs=1e-5)
    with pytest.raises(ModelError, match="charge 0; this model is for isolated molecules of ch"):
        model.predict(structure.replace(charge=0))


def test_charge_is_put_right_by_the_smallest_change():
    coefficients = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    charges = torch.tensor([2.0, 0.0, -1.0])
    found = with_charge(coefficients, charges, 4.0)
    assert float(found[0] @ charges) == pytest.approx(4.0)
    assert torch.equal(found[1], coefficients[1])
    change = found[0] - coefficients[0]
    assert torch.allclose(change / change[0], charges / charges[0])


def test_integrals_of_the_fields_are_the_energies(water_model):
    prediction = water_model.predict(UNSEEN)
    points, weights = becke_grid(UNSEEN)
    fields = prediction.fields(points)
    energies = prediction.energies
    for name in ("kinetic", "xc"):
        assert float(weights @ fields[name]) == pytest.approx(energies[name], abs=2e-4)
    learned = prediction.differences(points)
    by_fields = prediction.coefficients.mean(dim=0) @ prediction.basis.integrals(UNSEEN)
    for row, name in ((1, "kinetic"), (2, "xc")):
        assert float(weights @ learned[name]) == pytest.approx(float(by_fields[row]), abs=1e-5)
        assert abs(float(by_fields[row])) > 0.01
    parts = [energies[name] for name in ("kinetic", "xc", "electrostatic")]
    assert sum(parts) == pytest.approx(energies["total"], abs=1e-10)
    assert energies["total"] == prediction.energy == pytest.approx(water_model.energy(UNSEEN))


def test_integrals_on_tetrahedra(water_model):
    """With the error of the mesh; its walls are far enough for the widest functions."""
    prediction = water_model.predict(UNSEEN)
    expected = prediction.coefficients.mean(dim=0) @ prediction.basis.integrals(UNSEEN)
    errors = []
    for finest, growth in ((0.7, 1.0), (0.3, 0.7)):
        space = molecules.mesh(UNSEEN, finest, growth, margin=12.0)
        learned = prediction.differences(space.points)
        integrals = [float(space.integrate(learned[n])) for n in ("density", "kinetic", "xc")]
        errors.append(max(abs(a - float(b)) for a, b in zip(integrals, expected, strict=True)))
    assert errors[0] < 5e-4
    assert errors[1] < 0.3 * errors[0]


def test_dipole_is_that_of_the_predicted_density(water_model):
    prediction = water_model.predict(UNSEEN)
    points, weights = becke_grid(UNSEEN)
    electrons = (weights * prediction.fields(points)["density"]) @ points
    nuclei = UNSEEN.numbers @ UNSEEN.positions
    assert prediction.dipole == pytest.approx(nuclei - electrons.numpy(), abs=1e-4)


def test_hellmann_feynman_forces_by_quadrature(water_model):
    """Of the other nuclei and of the density on grids around each nucleus."""
    prediction = water_model.predict(UNSEEN)
    points, weights = becke_grid(UNSEEN, 5)
    density = prediction.fields(points)["density"]
    expected = np.zeros((3, 3))
    for atom, charge in enumerate(UNSEEN.numbers):
        away = points - torch.tensor(UNSEEN.positions[atom])
        pull = away / away.norm(dim=1, keepdim=True) ** 3
        expected[atom] = charge * ((weights * density) @ pull).numpy()
        between = UNSEEN.positions - UNSEEN.positions[atom]
        for other in {0, 1, 2} - {atom}:
            repulsion = charge * UNSEEN.numbers[other] / np.linalg.norm(between[other]) ** 3
            expected[atom] -= repulsion * between[other]
    found = prediction.hellmann_feynman_forces
    assert np.abs(found).max() > 0.05
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_potential_and_density_as_a_harris_step_wants_them(water_model):
    prediction = water_model.predict(UNSEEN)
    points = np.random.default_rng(4).standard_normal((8, 3))
    found = prediction.density_at(points)
    fields = prediction.fields(torch.tensor(points))
    np.testing.assert_allclose(found["density"], fields["density"])
    for axis in range(3):
        shift = 1e-4 * np.eye(3)[axis]
        ahead, behind = (prediction.density_at(points + s)["density"] for s in (shift, -shift))
        slope = (ahead - behind) / 2e-4
        np.testing.assert_allclose(found[f"gradient_{'xyz'[axis]}"], slope, rtol=1e-4, atol=1e-6)
    assert all(values.shape == (8,) for values in found.values())
    # the Laplacian of the potential is -4 pi times the difference to atoms
    step, around = 1e-3, -6 * found["difference_potential"]
    for shift in step * np.concatenate([np.eye(3), -np.eye(3)]):
        around = around + prediction.density_at(points + shift)["difference_potential"]
    difference = prediction.differences(torch.tensor(points))["density"]
    np.testing.assert_allclose(around / step**2, -4 * np.pi * difference, rtol=1e-3, atol=1e-5)


def coulomb_energy(prediction):
    """Of the predicted difference with itself, by PySCF's integrals of the primitives."""
    from pyscf import gto

    basis, structure = prediction.basis, prediction.structure
    mole = gto.M(
        atom=list(zip(structure.symbols, structure.positions, strict=True)),
        basis={
            symbol: [[l, [a, 1.0]] for l, shell in enumerate(shells) for a in shell.tolist()]
            for symbol, shells in basis.exponents.items()
        },
        unit="Bohr",
    )
    density, primitives = prediction.coefficients.mean(dim=0)[0], []
    for atom, l, where in basis.shells(structure):
        matrix = basis.contractions[structure.symbols[atom]][l]
        own = matrix @ density[where].unflatten(0, (-1, 2 * l + 1))
        # PySCF's p functions are x, y, z
        primitives.append((own[:, [2, 0, 1]] if l == 1 else own).flatten())
    vector = torch.cat(primitives).numpy()
    return 0.5 * vector @ mole.intor("int2c2e") @ vector


def test_electrostatic_energy_density(water_model):
    """Its integral is the energy of the difference with the atoms' potential and with itself."""
    prediction = water_model.predict(UNSEEN)
    points, weights = becke_grid(UNSEEN)
    learned = prediction.differences(points)["density"]
    atoms = superposed_fields(UNSEEN, points, prediction.atoms)["potential"]
    expected = float(weights @ (learned * atoms)) + coulomb_energy(prediction)
    assert coulomb_energy(prediction) > 0.01
    assert float(weights @ prediction.electrostatic(points)) == pytest.approx(expected, abs=1e-5)


def test_learned_samples_are_predicted_well(water_model, water_samples, bounded):
    """Density and energies of what was learned, against superposed atoms."""
    for sample in water_samples:
        points, weights = torch.tensor(sample.points), torch.tensor(sample.weights)
        prediction = water_model.predict(sample.structure)
        atoms = superposed_fields(sample.structure, points, prediction.atoms)["density"]
        true = torch.tensor(sample.fields["density"])
        wrong = weights @ (prediction.fields(points)["density"] - true).abs()
        bounded("density over superposed atoms'", wrong / (weights @ (atoms - true).abs()), 0.39)
        bounded("energy (hartree)", abs(prediction.energy - sample.energy), 4.5e-3)
        for name, limit in {"kinetic": 0.07, "xc": 0.02}.items():
            error = abs(prediction.energies[name] - sample.energies[name])
            bounded(f"{name} energy (hartree)", error, limit)


def test_committee_says_how_sure_it_is(water_model, bounded):
    """By the spread of its members, times the calibration."""
    factors = Calibration(density=1.7, energy=0.6)
    prediction = replace(water_model, calibration=factors).predict(UNSEEN)
    first, second = prediction.energies_of_members.tolist()
    assert prediction.energy_uncertainty == pytest.approx(0.6 * abs(first - second) / 2**0.5)
    assert prediction.energy_uncertainty > 0
    points = torch.tensor(np.random.default_rng(1).standard_normal((10, 3)))
    spread = prediction.density_uncertainty(points)
    assert spread.shape == (10,)
    first, second = (replace(prediction, coefficients=c[None]) for c in prediction.coefficients)
    apart = (first.fields(points)["density"] - second.fields(points)["density"]).abs()
    torch.testing.assert_close(spread, 1.7 * apart / 2**0.5)
    single = replace(
        water_model,
        field_networks=water_model.field_networks[:1],
        energy_networks=water_model.energy_networks[:1],
    ).predict(UNSEEN)
    assert single.energy_uncertainty is None
    assert single.density_uncertainty(points) is None
    far = molecules.rattled(molecules.WATER, 5, size=0.4)
    sure, unsure = (water_model.predict(s).energy_uncertainty for s in (UNSEEN, far))
    bounded("uncertainty over that of a molecule far off", sure / unsure, 0.046)


@pytest.mark.filterwarnings("error::fedens.errors.ExtrapolationWarning")
def test_surroundings_that_were_not_seen_are_noticed(water_model, water_samples):
    for sample in water_samples:
        water_model.predict(sample.structure)
    stretched = molecules.WATER.replace(
        positions=molecules.WATER.positions * np.array([[1.0], [1.6], [1.0]])
    )
    for ask in (water_model.predict, water_model.energy, water_model.forces):
        with pytest.warns(ExtrapolationWarning, match="leaves the range of the training.*H 1"):
            ask(stretched)


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (molecules.AMMONIA, "no functions for N; the model knows H, O"),
        (UNSEEN.replace(charge=1), r"charge 1; this model .* of charge 0"),
        (UNSEEN.replace(spin=2), "spin 2"),
        (UNSEEN.replace(cell=[20.0] * 3, pbc=True), r"pbc \[True, True, True\]"),
    ],
)
def test_molecules_of_another_kind_are_refused(water_model, structure, message):
    for ask in (water_model.predict, water_model.energy_and_forces):
        with pytest.raises(ModelError, match=message):
            ask(structure)


def test_results_that_are_not_finite_are_refused(water_model):
    broken = [copy.deepcopy(network) for network in water_model.energy_networks]
    torch.nn.init.constant_(broken[0].by_element()["O"].scalars.bias, torch.nan)
    model = replace(water_model, energy_networks=broken)
    for ask in (model.predict, model.energy_and_forces):
        with pytest.raises(ModelError, match=r"not finite.*far outside the training's range"):
            ask(UNSEEN)


@pytest.fixture
def folder(water_model, tmp_path):
    water_model.save(tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_model_predicts_the_same(water_model, folder):
    loaded = Model.load(folder)
    assert isinstance(loaded, MolecularModel)
    before, after = water_model.predict(UNSEEN), loaded.predict(UNSEEN)
    assert torch.equal(before.coefficients, after.coefficients)
    assert torch.equal(before.energies_of_members, after.energies_of_members)
    assert before.energies == after.energies
    np.testing.assert_array_equal(loaded.forces(UNSEEN), water_model.forces(UNSEEN))
    points = torch.zeros(1, 3).double()
    assert torch.equal(before.fields(points)["density"], after.fields(points)["density"])
    assert loaded.provenance == water_model.provenance
    assert loaded.provenance["functional"]["basis"] == "sto-3g"
    assert loaded.provenance["formulas"] == ["OH2"]
    assert loaded.calibration == water_model.calibration
    assert [losses["step"] for losses in loaded.history.values()] == 4 * [[50, 100, 120]]


def test_an_anions_charge_is_kept(hydroxide, tmp_path):
    model, structure, _ = hydroxide
    model.save(tmp_path)
    assert MolecularModel.load(tmp_path).charge == -1
    assert MolecularModel.load(tmp_path).energy(structure) == model.energy(structure)


def changed_description(folder, change):
    path = folder / "model.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))


def without_tensors(folder, word):
    from safetensors.torch import load_file, save_file

    path = folder / "weights.safetensors"
    kept = {name: t for name, t in load_file(path).items() if word not in name}
    save_file(kept, path)


DAMAGES = {
    "no weights": lambda f: (f / "weights.safetensors").unlink(),
    "truncated weights": lambda f: (f / "weights.safetensors").write_bytes(b"x" * 100),
    "no description": lambda f: (f / "model.json").unlink(),
    "no JSON": lambda f: (f / "model.json").write_text("{"),
    "key missing": lambda f: changed_description(f, lambda d: d.pop("nuclear_charges")),
    "other size": lambda f: changed_description(
        f, lambda d: d["networks"]["fields"][0]["O"].update(hidden=17)
    ),
    "other kind": lambda f: changed_description(f, lambda d: d.pop("kind")),
    "other descriptor": lambda f: changed_description(
        f, lambda d: d["descriptor"].update(kind="bananas")
    ),
    "no atom": lambda f: without_tensors(f, "atoms.O"),
    "no functions": lambda f: without_tensors(f, "basis.O.0"),
    "no calibration": lambda f: changed_description(f, lambda d: d.pop("calibration")),
    "no ranges": lambda f: without_tensors(f, "ranges.O"),
    "no layer": lambda f: without_tensors(f, "energy.1.networks.H.gates"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_folders_are_refused(folder, damage):
    DAMAGES[damage](folder)
    with pytest.raises(ModelError):
        MolecularModel.load(folder)


def test_what_is_shown_of_a_model(water_model):
    summary = water_model.summary
    assert summary["of molecules of"] == "H, O"
    assert summary["trained on"] == "4 samples of OH2"
    assert summary["committee"] == 2
    assert summary["functional"] == water_model.provenance["functional"]


def test_positions_may_be_given(water_model):
    moved = molecules.rattled(UNSEEN, 3, size=0.02)
    positions = torch.tensor(moved.positions)
    assert water_model.predict(UNSEEN, positions=positions).energy == water_model.energy(moved)
    assert float(water_model.energy_of(UNSEEN, positions).detach()) == water_model.energy(moved)
