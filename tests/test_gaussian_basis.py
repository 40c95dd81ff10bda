"""Functions on atoms: values, integrals and potentials against PySCF and quadrature."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from fedens.atoms import gaussian_basis as atomic_basis
from fedens.atoms.gaussian_basis import AtomicBasis
from fedens.errors import ModelError
from fedens.structure import Structure
from fedens.testing import central_difference

#: Different numbers of exponents for each l, and of l for each element.
EXPONENTS = {
    "O": [[0.3, 1.1, 40.0], [0.5, 7.0], [0.9], [1.3, 0.6], [0.4, 2.0]],
    "H": [[0.2, 3.0], [0.6, 1.7]],
}
WATER = Structure(["O", "H", "H"], [[0.1, 0.0, 0.2], [0.0, 1.43, -0.9], [0.2, -1.5, -0.8]])
N_RADIAL = {"O": [2, 2, 1, 1, 2], "H": [1, 2]}


def random(*shape, seed=0):
    return torch.tensor(np.random.default_rng(seed).standard_normal(shape))


@pytest.fixture
def basis():
    return AtomicBasis(EXPONENTS)


@pytest.fixture
def contracted():
    """Random contractions of the same functions."""
    return AtomicBasis(
        EXPONENTS,
        {
            s: [
                random(len(a), n, seed=l)
                for l, (a, n) in enumerate(zip(x, N_RADIAL[s], strict=True))
            ]
            for s, x in EXPONENTS.items()
        },
    )


def pyscf_molecule(structure=WATER, exponents=EXPONENTS):
    """The same primitives, which PySCF normalises in the same way."""
    from pyscf import gto

    return gto.M(
        atom=list(zip(structure.symbols, structure.positions, strict=True)),
        basis={
            s: [[l, [a, 1.0]] for l, shell in enumerate(shells) for a in shell]
            for s, shells in exponents.items()
        },
        unit="Bohr",
    )


def in_our_order(basis, structure=WATER):
    """Numbers of PySCF's functions in the order of ours: its p functions are x, y, z."""
    order = []
    for _, l, where in basis.shells(structure):
        for start in range(where.start, where.stop, 2 * l + 1):
            order += [start + m for m in ((1, 2, 0) if l == 1 else range(2 * l + 1))]
    return order


def atom_grid(structure, atom):
    """Points and weights around one atom, exact for what is smooth around it."""
    from pyscf.dft import gen_grid

    grids = gen_grid.gen_atomic_grids(pyscf_molecule(structure), {"O": (120, 302), "H": (120, 302)})
    away, weights = grids[structure.symbols[atom]]
    return torch.tensor(away + structure.positions[atom]), torch.tensor(weights)


def test_values_are_those_of_normalised_primitives(basis):
    points = random(40, 3)
    expected = pyscf_molecule().eval_gto("GTOval_sph", points.numpy())[:, in_our_order(basis)]
    found = basis.functions(WATER, points)
    assert found.shape == (40, basis.offsets(WATER)[-1])
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_contractions_mix_radial_functions(basis, contracted):
    points = random(10, 3)
    plain, mixed = basis.functions(WATER, points), contracted.functions(WATER, points)
    assert mixed.shape[1] == contracted.offsets(WATER)[-1] == 38 + 7 + 7
    pairs = zip(basis.shells(WATER), contracted.shells(WATER), strict=True)
    for (atom, l, here), (_, _, there) in pairs:
        matrix = contracted.contractions[WATER.symbols[atom]][l]
        own = plain[:, here].unflatten(1, (-1, 2 * l + 1))
        expected = torch.einsum("pim,ij->pjm", own, matrix).flatten(1)
        torch.testing.assert_close(mixed[:, there], expected)


def test_evaluating_and_testing_use_the_same_functions_in_any_block(contracted, monkeypatch):
    points, functions = random(50, 3), contracted.functions(WATER, random(50, 3))
    coefficients, fields = random(3, functions.shape[1], seed=1), random(3, 50, seed=2)
    for block in (20_000, 7):
        monkeypatch.setattr(atomic_basis, "_BLOCK", block)
        values = contracted.evaluate(WATER, points, coefficients)
        torch.testing.assert_close(values, coefficients @ functions.T)
        tested = contracted.test(WATER, points, fields)
        torch.testing.assert_close(tested, fields @ functions)
    # adjoint to each other
    assert float((values * fields).sum()) == pytest.approx(float((tested * coefficients).sum()))


def test_fields_can_be_differentiated_in_the_points(contracted):
    coefficients = random(1, contracted.offsets(WATER)[-1])
    points = random(1, 3).requires_grad_()
    value = contracted.evaluate(WATER, points, coefficients)
    (slope,) = torch.autograd.grad(value.sum(), points)
    for axis in range(3):

        def along(shift, axis=axis):
            moved = points.detach() + shift * torch.eye(3, dtype=torch.float64)[axis]
            return float(contracted.evaluate(WATER, moved, coefficients))

        assert float(slope[0, axis]) == pytest.approx(central_difference(along, 1e-4), rel=1e-6)


def test_integrals_and_dipoles_by_quadrature(contracted):
    integrals, dipoles = contracted.integrals(WATER), contracted.dipoles(WATER)
    offsets = contracted.offsets(WATER)
    for atom, (start, stop) in enumerate(pairwise(offsets)):
        points, weights = atom_grid(WATER, atom)
        own = contracted.functions(WATER, points)[:, start:stop]
        torch.testing.assert_close(integrals[start:stop], weights @ own, rtol=1e-8, atol=1e-8)
        expected = (weights[:, None] * own).T @ points
        torch.testing.assert_close(dipoles[start:stop], expected, rtol=1e-8, atol=1e-8)
    assert integrals.abs().max() > 1
    assert dipoles.abs().max() > 1


def test_dipoles_follow_the_atoms(contracted):
    positions = torch.tensor(WATER.positions) + random(3, 3)
    moved = WATER.replace(positions=positions.numpy())
    torch.testing.assert_close(contracted.dipoles(WATER, positions), contracted.dipoles(moved))
    coefficients = random(contracted.offsets(WATER)[-1])
    positions.requires_grad_()
    along_x = (coefficients @ contracted.dipoles(WATER, positions))[0]
    (slope,) = torch.autograd.grad(along_x, positions)
    charges = coefficients * contracted.integrals(WATER)
    offsets = contracted.offsets(WATER)
    expected = [charges[i:j].sum() for i, j in pairwise(offsets)]
    torch.testing.assert_close(slope[:, 0], torch.stack(expected))


@pytest.mark.parametrize("distance", [3.0, 0.3, 1e-2, 1e-4, 0.0])
def test_potential_is_pyscfs_coulomb_integral(basis, distance):
    """With a charge at each point, from the nuclei outwards; each function by itself."""
    from pyscf import gto

    directions = random(6, 3)
    away = distance * directions / directions.norm(dim=1, keepdim=True)
    points = torch.cat([torch.tensor(position) + away for position in WATER.positions])
    charges = gto.fakemol_for_charges(points.numpy())
    expected = gto.intor_cross("int2c2e", pyscf_molecule(), charges)[in_our_order(basis)]
    for row, unit in zip(expected, torch.eye(len(expected), dtype=torch.float64), strict=True):
        found = basis.potential(WATER, points, unit)
        np.testing.assert_allclose(found, row, rtol=1e-11, atol=1e-11)


def test_potential_can_be_differentiated_in_the_points(contracted):
    """Also at a nucleus, where the series is used."""
    coefficients = random(contracted.offsets(WATER)[-1])
    start = torch.cat([random(2, 3), torch.tensor(WATER.positions[:1])])
    points, direction = start.clone().requires_grad_(), random(3, 3, seed=5)
    values = contracted.potential(WATER, points, coefficients)
    (slope,) = torch.autograd.grad(values.sum(), points)

    def along(shift):
        return float(contracted.potential(WATER, start + shift * direction, coefficients).sum())

    assert float((slope * direction).sum()) == pytest.approx(central_difference(along, 1e-3))


def test_potential_solves_poissons_equation(contracted):
    """Its Laplacian is -4 pi times the field; by differences."""
    coefficients, points, step = random(contracted.offsets(WATER)[-1]), random(20, 3), 1e-3
    shifts = step * torch.cat([torch.eye(3), -torch.eye(3)]).double()
    here = contracted.potential(WATER, points, coefficients)
    around = sum(contracted.potential(WATER, points + s, coefficients) for s in shifts)
    field = contracted.evaluate(WATER, points, coefficients[None])[0]
    laplacian = (around - 6 * here) / step**2
    torch.testing.assert_close(laplacian, -4 * np.pi * field, rtol=1e-4, atol=1e-4)


def test_potential_far_away_is_that_of_charge_and_dipole(contracted):
    coefficients = random(contracted.offsets(WATER)[-1])
    charge = coefficients @ contracted.integrals(WATER)
    dipole = coefficients @ contracted.dipoles(WATER)
    errors = []
    for distance in (100.0, 200.0):
        point = distance * torch.tensor([0.48, -0.6, 0.64], dtype=torch.float64)
        found = contracted.potential(WATER, point[None], coefficients)[0]
        errors.append(float(found - charge / distance - dipole @ point / distance**3))
    assert abs(errors[0]) < 1e-4 * float(charge.abs())
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.2)  # the quadrupole is left


def test_description_gives_the_same_functions(contracted):
    description = json.loads(json.dumps(contracted.describe()))
    again = AtomicBasis.restore(description, contracted.tensors())
    points = random(5, 3)
    assert torch.equal(again.functions(WATER, points), contracted.functions(WATER, points))


def test_default_functions():
    basis = AtomicBasis.even_tempered(["O", "C", "H", "O"])
    assert list(basis.exponents) == ["C", "H", "O"]
    assert basis.max_order == 4
    assert basis.n_radial("H") == [len(shell) for shell in basis.exponents["H"]]
    for shells in basis.exponents.values():
        for shell in shells:
            ratios = shell[1:] / shell[:-1]
            torch.testing.assert_close(ratios, ratios[0].expand_as(ratios))
    carbon, oxygen = (basis.exponents[s][0] for s in ("C", "O"))
    assert float(carbon[0]) == pytest.approx(0.08)
    assert 600 <= float(carbon[-1]) < 600 * 2.2
    assert float(oxygen[0]) == pytest.approx(0.08 * (8 / 6) ** 1.6)
    assert float(oxygen[-1]) >= 600 * (8 / 6) ** 2
    # sulfur's valence begins where oxygen's does
    sulfur = AtomicBasis.even_tempered(["S"]).exponents["S"][0]
    assert float(sulfur[0]) == pytest.approx(float(oxygen[0]))


def test_elements_without_functions_are_named(basis):
    other = Structure(["N", "H", "S"], [[0, 0, 0], [0, 0, 2], [0, 3, 0]])
    for ask in (basis.check, basis.integrals, lambda s: basis.functions(s, random(2, 3))):
        with pytest.raises(ModelError, match=r"no functions for N, S; the model knows O, H"):
            ask(other)


@pytest.mark.parametrize(
    "exponents",
    [{}, {"H": []}, {"H": [[1.0], []]}, {"H": [[1.0, -2.0]]}, {"H": [[float("nan")]]}],
)
def test_exponents_are_needed(exponents):
    with pytest.raises(ModelError, match="expected some for each element and l, above 0"):
        AtomicBasis(exponents)


@pytest.mark.parametrize(
    "contractions",
    [
        {"H": [torch.ones(3, 1)]},
        {"H": [torch.ones(2, 1)] * 2},
        {"H": []},
        {"O": [torch.ones(2, 1)]},
    ],
)
def test_contractions_have_to_fit(contractions):
    with pytest.raises(ModelError, match=r"H: contractions of .* expected \[2\]"):
        AtomicBasis({"H": [[1.0, 2.0]]}, contractions)
