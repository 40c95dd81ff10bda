"""Networks on atoms: their outputs turn with the molecule and know how many neighbours see what."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from fedens.features.gmp import GMP
from fedens.fem.harmonics import solid_harmonics
from fedens.learning.equivariant import (
    ElementNetwork,
    EquivariantNetwork,
    Whitening,
    _sphere,
    split_orders,
)
from fedens.models.molecule.data import atomic_moments
from fedens.structure import Structure
from fedens.testing import central_difference

ORDER, OUTPUTS = 3, {"C": (2, 3, 1, 1, 2), "H": (1, 2, 1)}
DESCRIPTOR = GMP([0.7, 1.5, 3.0], ORDER, {s: [(1.0, 2.0)] for s in ("C", "H")}, channels="element")
#: No symmetry at all.
MOLECULE = Structure(
    ["H", "C", "H", "C", "H"],
    [[-1.9, 0.3, 0.1], [0, 0, 0], [0.4, 1.8, 0.6], [0.9, -1.2, 2.1], [2.7, -0.8, 2.9]],
)
TURN = torch.tensor(Rotation.from_rotvec([0.4, -1.1, 0.7]).as_matrix())
MIRROR = TURN @ torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))


def on_harmonics(turn, order):
    """Matrix D with R_lm(turn r) = sum over m' of D_mm' R_lm'(r)."""
    points = torch.tensor(np.random.default_rng(0).standard_normal((50, 3)))
    part = slice(order**2, (order + 1) ** 2)
    before, after = (solid_harmonics(order)(p)[:, part] for p in (points, points @ turn.T))
    return torch.linalg.lstsq(before, after).solution.T


def seen(positions, structure=MOLECULE):
    """Moments of displaced atoms."""
    structure = structure.replace(positions=positions)
    return atomic_moments(DESCRIPTOR, structure, torch.tensor(structure.positions))


@pytest.fixture(scope="module")
def moments():
    """Of every element's atoms in rattled molecules, by l."""
    random = np.random.default_rng(1)
    rows = [seen(MOLECULE.positions + 0.3 * random.standard_normal((5, 3))) for _ in range(6)]
    by_element = {
        s: torch.cat([row[[t == s for t in MOLECULE.symbols]] for row in rows]) for s in OUTPUTS
    }
    return {s: split_orders(rows, ORDER) for s, rows in by_element.items()}


@pytest.fixture(scope="module")
def network(moments):
    """With random weights everywhere, also where they start as zeros."""
    torch.manual_seed(2)
    result = EquivariantNetwork(
        {s: ElementNetwork(Whitening.fit(moments[s], 1e-3), 6, OUTPUTS[s], 8) for s in OUTPUTS}
    )
    for parameter in result.parameters():
        torch.nn.init.normal_(parameter, std=0.5 / math.sqrt(parameter.shape[-1]))
    for symbol, counts in OUTPUTS.items():
        scales = [torch.linspace(0.5, 1.5, n) for n in counts]
        result.set_units(symbol, torch.linspace(-1.0, 1.0, counts[0]), scales)
    return result.eval()


def predicted(network, structure):
    """Output of each atom by l, (n_outputs, 2l+1) each."""
    components = atomic_moments(DESCRIPTOR, structure, torch.tensor(structure.positions))
    result = [None] * len(structure)
    with torch.no_grad():
        for atoms, numbers in network(components, structure.symbols):
            counts = OUTPUTS[structure.symbols[int(atoms[0])]]
            widths = [n * (2 * l + 1) for l, n in enumerate(counts)]
            for atom, row in zip(atoms.tolist(), numbers, strict=True):
                parts = row.split(widths)
                result[atom] = [p.unflatten(0, (n, -1)) for n, p in zip(counts, parts, strict=True)]
    return result


def test_components_are_the_moments_by_order():
    positions = torch.tensor(MOLECULE.positions)
    by_order = DESCRIPTOR.moments(positions, MOLECULE, positions=positions)
    for l, part in enumerate(split_orders(seen(MOLECULE.positions), ORDER)):
        assert part.shape == (5, 2 * l + 1, 6)
        for m in range(2 * l + 1):
            torch.testing.assert_close(part[:, m], by_order[l][:, m].T)


def test_components_can_be_differentiated_in_the_positions():
    positions = torch.tensor(MOLECULE.positions, requires_grad=True)
    components = atomic_moments(DESCRIPTOR, MOLECULE, positions)
    weights = torch.tensor(np.random.default_rng(3).standard_normal(components.shape))
    (slope,) = torch.autograd.grad((weights * components).sum(), positions)
    for atom, axis in ((0, 0), (1, 2), (3, 1)):

        def moved(shift, atom=atom, axis=axis):
            there = MOLECULE.positions.copy()
            there[atom, axis] += shift
            return float((weights * seen(there)).sum())

        assert float(slope[atom, axis]) == pytest.approx(central_difference(moved, 1e-4), rel=1e-6)


def test_whitened_moments_have_unit_covariance(moments):
    whitening = Whitening.fit(moments["H"], 1e-12)
    for l, white in enumerate(whitening(moments["H"])):
        rows = white.double().flatten(0, 1)
        covariance = rows.T @ rows / len(rows)
        torch.testing.assert_close(covariance, torch.eye(len(covariance)).double(), **LOOSE)
        if l == 0:
            assert rows.mean(dim=0).abs().max() < 1e-3


LOOSE = {"rtol": 1e-3, "atol": 1e-3}


def test_directions_that_hardly_vary_are_damped_or_left_out():
    """Variances are 1, half the floor of 0.02, and nothing."""
    random = np.random.default_rng(4).standard_normal((4000, 1, 3))
    values = torch.tensor(random * np.sqrt([1.0, 0.01, 1e-9]))
    whitening = Whitening.fit([values], 0.02)
    assert whitening.sizes == [(3, 2)]
    (white,) = whitening([values])
    small, large = sorted(float(v) for v in white.flatten(0, 1).var(dim=0))
    assert large == pytest.approx(1 / 1.02, rel=0.02)
    assert small == pytest.approx(0.01 / 0.03, rel=0.05)


def test_products_on_the_sphere_are_exact():
    """Of three functions of order 3, expanded to order 4, against many more directions."""
    up, down = (matrix.double() for matrix in _sphere(3, 4))
    finer_up, finer_down = (matrix.double() for matrix in _sphere(5, 4))
    functions = torch.tensor(np.random.default_rng(5).standard_normal((16, 3)))
    product = (up @ functions).prod(dim=1)
    finer = (finer_up[:, :16] @ functions).prod(dim=1)
    assert len(finer) > len(product)
    torch.testing.assert_close(down @ product, finer_down @ finer, rtol=1e-5, atol=1e-5)
    # functions have the mean square that their coefficients' squares sum to
    squares = down[0] @ (up @ functions) ** 2
    torch.testing.assert_close(squares, (functions**2).sum(dim=0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close((down @ up)[:16], torch.eye(16).double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("turn", [TURN, MIRROR], ids=["rotated", "reflected"])
def test_outputs_turn_with_the_molecule(network, turn):
    positions = torch.tensor(MOLECULE.positions) @ turn.T + torch.tensor([0.3, -2.0, 5.0])
    before = predicted(network, MOLECULE)
    after = predicted(network, MOLECULE.replace(positions=positions.numpy()))
    for first, second in zip(before, after, strict=True):
        for l, (old, new) in enumerate(zip(first, second, strict=True)):
            expected = old.double() @ on_harmonics(turn, l).T
            assert expected.abs().max() > 0.01
            torch.testing.assert_close(new.double(), expected, rtol=1e-4, atol=1e-4)


def test_outputs_follow_the_atoms_numbers(network):
    order = [3, 0, 4, 1, 2]
    other = Structure([MOLECULE.symbols[i] for i in order], MOLECULE.positions[order])
    before, after = predicted(network, MOLECULE), predicted(network, other)
    for place, atom in enumerate(order):
        for old, new in zip(before[atom], after[place], strict=True):
            torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-5)


def test_units_shift_and_scale(network, moments):
    unscaled = network.by_element()["C"]([part[:1] for part in moments["C"]])
    components = torch.cat([part[:1].flatten(1) for part in moments["C"]], dim=1)
    ((atoms, numbers),) = network(components, ["C"])
    assert atoms.tolist() == [0]
    parts = []
    for l, (output, count) in enumerate(zip(unscaled, OUTPUTS["C"], strict=True)):
        mean = torch.linspace(-1.0, 1.0, count)[:, None] if l == 0 else 0.0
        parts.append((mean + torch.linspace(0.5, 1.5, count)[:, None] * output).flatten(1))
    torch.testing.assert_close(numbers, torch.cat(parts, dim=1))


def test_angles_are_seen():
    """The same distances from the first atom at another angle; nothing from the others."""
    torch.manual_seed(0)
    arms = {"bent": [0.0, 2.0, 0.0], "straight": [-2.0, 0.0, 0.0]}
    components = {
        name: atomic_moments(
            DESCRIPTOR,
            (one := Structure(["C", "H", "H"], [[0, 0, 0], [2.0, 0, 0], arm])),
            torch.tensor(one.positions),
        )[:1]
        for name, arm in arms.items()
    }
    bent, straight = (split_orders(c, ORDER) for c in components.values())
    torch.testing.assert_close(bent[0], straight[0])
    spread = [torch.cat([bent[l], straight[l]]) for l in range(ORDER + 1)]
    network = ElementNetwork(Whitening.fit(spread, 1e-3), 6, (1,), 8)
    torch.nn.init.normal_(network.scalars.weight)
    with torch.no_grad():
        difference = network(bent)[0] - network(straight)[0]
    assert float(difference.abs()) > 1e-2


def test_molecule_without_an_element_of_the_network(network):
    hydrogen = Structure(["H", "H"], [[0, 0, 0], [0, 0, 1.4]])
    assert [len(parts) for parts in predicted(network, hydrogen)] == [3, 3]


def test_surroundings_far_outside_the_training_do_not_run_away(moments):
    """Cubic in the moments without the cut: a hundred times larger is a million times more."""
    torch.manual_seed(0)
    network = ElementNetwork(Whitening.fit(moments["H"], 1e-3), 6, OUTPUTS["H"], 8)
    with torch.no_grad():
        near = max(float(y.abs().max()) for y in network(moments["H"]))
        far = max(float(y.abs().max()) for y in network([100 * a for a in moments["H"]]))
    assert far < 1e3 * near
