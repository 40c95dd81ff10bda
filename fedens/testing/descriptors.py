"""What every descriptor must satisfy."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from fedens.features.descriptor import Descriptor, descriptor_from_description
from fedens.structure import Structure
from fedens.testing.differences import check_derivatives

#: What features may be differentiated in.
ARGUMENTS = ("points", "positions", "cell", "occupancies")
#: Step of finite differences, bohr (without unit for occupancies).
_STEP = 5e-3
#: Lengths are multiplied by this where the descriptor says what its features do then.
_DILATION = 1.3


def check_descriptor(
    descriptor: Descriptor,
    structure: Structure,
    points: Tensor | None = None,
    arguments: Sequence[str] = ARGUMENTS,
    second_derivatives: bool = True,
    tolerance: float = 1e-8,
    seed: int = 0,
) -> None:
    """Check that an object behaves as a :class:`fedens.features.Descriptor`.

    Shapes, names, description; the same features when everything is turned or moved, atoms are
    exchanged, or atoms and points are replaced by periodic images; those of
    :meth:`Descriptor.dilated` when all lengths grow, where the descriptor has it; float32 for
    points in float32; first and second derivatives against finite differences.

    Args:
        descriptor: any descriptor that takes any points.
        structure: a periodic or isolated structure without symmetry, at least two atoms.
        points: (n_points, 3), float64, bohr; default: six at random among the atoms.
        arguments: in what features can be differentiated; the cell only where there is one.
        second_derivatives: whether features can be differentiated twice.
        tolerance: largest error relative to the largest value of each feature (derivatives:
            a thousand times that, relative to the derivative).
        seed: of all random choices.
    """
    random = np.random.default_rng(seed)
    if points is None:
        low, high = structure.positions.min(axis=0), structure.positions.max(axis=0)
        points = torch.tensor(low + (high - low + 1.0) * random.uniform(size=(6, 3)))
    features = descriptor(points, structure)
    _check_form(descriptor, structure, points, features)
    size = features.detach().abs().amax(dim=0)
    assert (size > 0).any(), "all features vanish: choose other points"

    def same(found: Tensor, what: str, factors: Tensor | float = 1.0) -> None:
        error = ((found - factors * features).abs() - tolerance * size * factors).amax(dim=0)
        worst = int(error.argmax())
        assert float(error[worst]) <= 1e-14, (
            f"{what} changes feature {descriptor.names[worst]} "
            f"by {float(error[worst]):.1e}, its size is {float(size[worst]):.1e}"
        )

    turn = Rotation.random(random_state=seed).as_matrix()
    same(descriptor(points @ torch.tensor(turn.T), _mapped(structure, turn)), "rotation")
    shift = random.uniform(-3.0, 3.0, 3)
    moved = structure.replace(positions=structure.positions + shift)
    same(descriptor(points + torch.tensor(shift), moved), "translation")
    same(descriptor(points, _shuffled(structure, random)), "another order of the atoms")
    if structure.periodic:
        vectors = torch.tensor(structure.cell)
        cells = torch.tensor(random.integers(-2, 3, points.shape), dtype=torch.float64)
        same(descriptor(points + cells @ vectors, structure), "the periodic image of a point")
        same(descriptor(points, _with_images(structure, random)), "the periodic image of an atom")
    dilated = descriptor.dilated(_DILATION)
    if dilated is not None:
        larger, factors = dilated
        same(
            larger(_DILATION * points, _mapped(structure, _DILATION * np.eye(3))),
            "a dilation",
            factors,
        )
    weights = torch.tensor(random.normal(size=features.shape)) / torch.where(size > 0, size, 1.0)
    _check_derivatives(
        descriptor, structure, points, weights, arguments, second_derivatives, 1e3 * tolerance
    )


def _check_form(
    descriptor: Descriptor, structure: Structure, points: Tensor, features: Tensor
) -> None:
    """Shapes, names, types, and that the description makes the same descriptor."""
    names = descriptor.names
    assert len(set(names)) == len(names) == descriptor.n_features, "names are not unique"
    shape = (len(points), descriptor.n_features)
    assert features.shape == shape, f"features have shape {tuple(features.shape)}, not {shape}"
    assert features.dtype == torch.float64, f"features are {features.dtype}, not float64"
    assert torch.isfinite(features).all(), "features are not finite"
    again = descriptor_from_description(json.loads(json.dumps(descriptor.describe())))
    assert again.names == names, "the description makes a descriptor with other features"
    assert torch.equal(again(points, structure), features), "the description loses something"
    assert descriptor(points[:0], structure).shape == (0, len(names)), "no points: wrong shape"
    single = descriptor(points.float(), structure)
    assert single.dtype == torch.float32, f"float32 points give {single.dtype}"
    error = (single - features).abs().amax(dim=0) / (features.abs().amax(dim=0) + 1e-30)
    assert float(error.max()) < 1e-3, f"float32 is {float(error.max()):.1e} off"


def _check_derivatives(
    descriptor: Descriptor,
    structure: Structure,
    points: Tensor,
    weights: Tensor,
    arguments: Sequence[str],
    twice: bool,
    tolerance: float,
) -> None:
    """Derivatives of a weighted sum of all features along a random direction of each argument."""
    values = {
        "points": points,
        "positions": torch.tensor(structure.positions),
        "occupancies": torch.tensor(structure.occupancies),
    }
    if structure.periodic:
        values["cell"] = torch.tensor(structure.cell)
    random = torch.Generator().manual_seed(0)
    for name in (name for name in arguments if name in values):
        value = values[name]
        direction = torch.randn(value.shape, generator=random, dtype=value.dtype)
        direction = direction / direction.norm()

        def total(moved: Tensor, name: str = name) -> Tensor:
            given = {other: moved if other == name else None for other in ARGUMENTS[1:]}
            where = moved if name == "points" else points
            return (weights * descriptor(where, structure, **given)).sum()

        tolerances = (tolerance, tolerance) if twice else (tolerance,)
        check_derivatives(total, value, direction, _STEP, tolerances, f"in {name}", 1e-3)


def _mapped(structure: Structure, matrix: np.ndarray) -> Structure:
    cell = None if structure.cell is None else structure.cell @ matrix.T
    return structure.replace(positions=structure.positions @ matrix.T, cell=cell)


def _shuffled(structure: Structure, random: np.random.Generator) -> Structure:
    order = random.permutation(len(structure))
    return structure.replace(
        numbers=structure.numbers[order],
        positions=structure.positions[order],
        occupancies=structure.occupancies[order],
    )


def _with_images(structure: Structure, random: np.random.Generator) -> Structure:
    assert structure.cell is not None
    cells = random.integers(-2, 3, structure.positions.shape)
    return structure.replace(positions=structure.positions + cells @ structure.cell)
