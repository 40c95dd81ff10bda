"""What models of molecules learn from: fits of fields, and energies without those of atoms."""

from dataclasses import replace

import molecules
import numpy as np
import pytest
import torch

from fedens.atoms.gaussian_basis import AtomicBasis
from fedens.atoms.spherical import pair_energy, superposed_fields
from fedens.errors import ModelError
from fedens.features.gmp import GMP
from fedens.fields import LOCAL_FIELDS
from fedens.models.molecule.data import (
    _TAIL,
    _draw,
    atomic_moments,
    prepare_molecule,
    whitened_basis,
)
from fedens.testing import central_difference

N_POINTS = 2000
DESCRIPTOR = GMP([0.8, 2.0], 2, {s: [(1.0, 2.0)] for s in ("O", "H")}, channels="element")
#: Few functions, for speed.
BASIS = AtomicBasis({"O": [[0.3, 1.0, 3.0, 20.0], [0.5, 2.0], [0.8]], "H": [[0.3, 1.2], [0.9]]})


def prepare(sample, n_points=N_POINTS, seed=0, basis=BASIS):
    return prepare_molecule(sample, basis, molecules.atoms_of("O", "H"), DESCRIPTOR, n_points, seed)


@pytest.fixture(scope="module")
def prepared(water_samples):
    return [prepare(sample, seed=i) for i, sample in enumerate(water_samples)]


def differences(sample):
    """Fields of a sample minus superposed atoms', (3, n_points), and those atoms' density."""
    atoms, points = molecules.atoms_of("O", "H"), torch.tensor(sample.points)
    superposed = superposed_fields(sample.structure, points, atoms)
    wrong = [torch.tensor(sample.fields[f]) - superposed[f] for f in LOCAL_FIELDS]
    return torch.stack(wrong), superposed["density"]


def coefficients_of(structure, seed=3):
    size = BASIS.offsets(structure)[-1]
    return 0.1 * torch.tensor(np.random.default_rng(seed).standard_normal((3, size)))


def quadratic(one, coefficients):
    product = coefficients @ one.gram.double()
    return (coefficients * (product - 2 * one.loads)).sum(dim=1) + one.squares


def squared_errors(sample, coefficients):
    """At every point, divided by the density and a constant, (3, n_points)."""
    fields, density = differences(sample)
    fitted = BASIS.evaluate(sample.structure, torch.tensor(sample.points), coefficients)
    return (fields - fitted) ** 2 / (density + _TAIL)


def test_quadratic_form_is_the_squared_error_at_the_drawn_points(water_samples, prepared):
    sample, one = water_samples[0], prepared[0]
    coefficients = coefficients_of(sample.structure)
    (density, *_), superposed = differences(sample)
    weights = torch.tensor(sample.weights)
    chosen, shares = _draw(superposed, density, weights, N_POINTS, 0)
    errors = squared_errors(sample, coefficients)[:, chosen]
    expected = errors @ (shares * weights[chosen])
    torch.testing.assert_close(quadratic(one, coefficients), expected, rtol=1e-5, atol=1e-6)


def test_drawn_points_stand_for_all(water_samples):
    """The draw has no bias: with many points the sum is the integral."""
    sample = water_samples[0]
    coefficients = coefficients_of(sample.structure)
    found = quadratic(prepare(sample, n_points=100_000), coefficients)
    expected = squared_errors(sample, coefficients) @ torch.tensor(sample.weights)
    torch.testing.assert_close(found, expected, rtol=0.03, atol=0.0)


def test_draws_are_reproducible(water_samples, prepared):
    again, other = prepare(water_samples[0]), prepare(water_samples[0], seed=1)
    assert torch.equal(again.gram, prepared[0].gram)
    assert torch.equal(again.loads, prepared[0].loads)
    assert not torch.equal(other.gram, prepared[0].gram)


def test_energy_and_forces_are_those_without_atoms(water_samples, prepared):
    sample, one = water_samples[1], prepared[1]
    atoms = molecules.atoms_of("O", "H")
    of_atoms = sum(sum(atoms[s].energies.values()) for s in ("O", "H", "H"))
    pairs = float(pair_energy(sample.structure, atoms))
    assert one.energy + of_atoms + pairs == pytest.approx(sample.energy, abs=1e-10)
    for place in range(9):

        def moved(shift, place=place):
            positions = sample.structure.positions.copy()
            positions.flat[place] += shift
            return float(pair_energy(sample.structure.replace(positions=positions), atoms))

        of_pairs = -central_difference(moved, 1e-3)
        total = float(one.forces[place]) + of_pairs
        assert total == pytest.approx(sample.forces.flat[place], abs=1e-6)


def test_dipole_is_pyscfs(water_samples, prepared):
    for sample, one in zip(water_samples, prepared, strict=True):
        expected = sample.provenance["dipole_electron_bohr"]
        assert one.dipole.numpy() == pytest.approx(expected, abs=2e-3)
        assert np.linalg.norm(expected) > 0.3
        assert one.excess == 0


def test_moments_and_their_derivatives(prepared):
    one = prepared[0]
    positions = torch.tensor(one.structure.positions)
    torch.testing.assert_close(one.moments, atomic_moments(DESCRIPTOR, one.structure, positions))
    assert one.moments_by_position.shape == (*one.moments.shape, 9)
    step, place = 1e-4, 4
    shift = torch.zeros(9, dtype=torch.float64)
    shift[place] = step
    ahead, behind = (
        atomic_moments(DESCRIPTOR, one.structure, positions + sign * shift.view(3, 3))
        for sign in (1, -1)
    )
    slope = (ahead - behind) / (2 * step)
    torch.testing.assert_close(one.moments_by_position[:, :, place], slope, rtol=1e-6, atol=1e-8)


def test_whitened_functions_are_orthonormal_on_average(prepared):
    basis, contraction = whitened_basis(BASIS, prepared)
    assert basis.n_radial("O") == BASIS.n_radial("O")
    blocks = {}
    for one in prepared:
        gram = one.contracted(contraction(one.structure)).gram.double()
        for atom, l, where in basis.shells(one.structure):
            own = gram[where, where].unflatten(0, (-1, 2 * l + 1)).unflatten(2, (-1, 2 * l + 1))
            key = one.structure.symbols[atom], l
            blocks.setdefault(key, []).append(own.diagonal(dim1=1, dim2=3).mean(dim=-1))
    assert set(blocks) == {("O", 0), ("O", 1), ("O", 2), ("H", 0), ("H", 1)}
    for found in blocks.values():
        average = torch.stack(found).mean(dim=0)
        torch.testing.assert_close(average, torch.eye(len(average)).double(), rtol=0, atol=1e-4)


def test_contractions_change_the_functions_not_the_fields(prepared):
    basis, contraction = whitened_basis(BASIS, prepared)
    structure = prepared[0].structure
    matrix, points = contraction(structure), torch.tensor([[0.3, -0.2, 0.9], [1.0, 2.0, -1.0]])
    points = points.double()
    mixed = BASIS.functions(structure, points) @ matrix
    torch.testing.assert_close(basis.functions(structure, points), mixed)
    mine = coefficients_of(structure)
    plain = quadratic(prepared[0], mine @ matrix.T)
    white = quadratic(prepared[0].contracted(matrix), mine)
    torch.testing.assert_close(white, plain, rtol=1e-4, atol=1e-5)


def test_fit_of_a_field_in_the_space_of_the_functions_is_exact(water_samples):
    """Fields that the functions can make are found again."""
    sample = water_samples[0]
    wanted = coefficients_of(sample.structure)
    made = BASIS.evaluate(sample.structure, torch.tensor(sample.points), wanted)
    superposed = (
        torch.tensor(np.stack([sample.fields[f] for f in LOCAL_FIELDS])) - differences(sample)[0]
    )
    fields = dict(zip(LOCAL_FIELDS, (superposed + made).numpy(), strict=True))
    one = prepare(replace(sample, fields=fields))
    found = torch.linalg.solve(one.gram.double(), one.loads.T).T
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    assert float(quadratic(one, found).abs().max()) < 1e-4 * float(one.squares.min())


def test_samples_of_another_kind_are_refused(water_samples):
    sample = water_samples[0]
    fields = {"density": sample.fields["density"]}
    with pytest.raises(ModelError, match="no field kinetic, xc"):
        prepare(replace(sample, fields=fields))
    periodic = sample.structure.replace(cell=[20.0] * 3, pbc=True)
    with pytest.raises(ModelError, match="is periodic"):
        prepare(replace(sample, structure=periodic))
    with pytest.raises(ModelError, match="2 unpaired electrons"):
        prepare(replace(sample, structure=sample.structure.replace(spin=2)))


def test_elements_without_functions_are_refused(water_samples):
    with pytest.raises(ModelError, match="no functions for O"):
        prepare(water_samples[0], basis=AtomicBasis({"H": [[1.0]]}))


def test_sample_without_forces(water_samples):
    assert prepare(replace(water_samples[0], forces=None)).forces is None
