"""Errors of fields, energies and forces, as functions of arrays and quadrature weights."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from fedens.structure import Structure

Array = NDArray[np.float64]

#: Points closer than this to a nucleus count as near nuclei, bohr.
NEAR_NUCLEUS = 1.0


def percent(weights: Tensor, error: Tensor, reference: Tensor) -> float:
    """100 times the integral of |error| over that of |reference|; all (n_points,)."""
    return 100 * float(weights @ error.abs() / (weights @ reference.abs()))


def density_errors(
    structure: Structure, points: Array, weights: Tensor, error: Tensor, reference: Tensor
) -> dict[str, float]:
    """NMAPE: integral of |error| over that of the reference density, everywhere and near nuclei.

    Args:
        points: (n_points, 3), bohr. weights, error, reference: (n_points,).
    """
    near = weights * torch.tensor(near_nuclei(structure, points), device=weights.device)
    return {
        "nmape_percent": percent(weights, error, reference),
        "density_error_near_nuclei_percent": percent(near, error, reference),
    }


def near_nuclei(structure: Structure, points: Array) -> Array:
    """1.0 at points (n_points, 3) within :data:`NEAR_NUCLEUS` of a nucleus or image, else 0.0."""
    if structure.periodic:
        box = structure.orthorhombic_lengths()
        tree = cKDTree(structure.positions % box % box, boxsize=box)
        distances, _ = tree.query(points % box % box)
    else:
        distances, _ = cKDTree(structure.positions).query(points)
    return (distances < NEAR_NUCLEUS).astype(np.float64)


def mean_absolute_error(values: Array, reference: Array, unit: float) -> float:
    """Mean of |values - reference| over all components, times a unit."""
    return unit * float(np.abs(values - reference).mean())
