"""Response fields: what the uniform electron gas would do around the ions.

The ions' potential is screened by the linear response of the uniform gas of the cell's mean
density. On a periodic TensorSpace that is a function of the Laplacian, so each field costs two
transforms, and it carries the long-range oscillations that Gaussians of finite width miss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fedens.energy.functional import EnergyFunctional
from fedens.energy.nonlocal_kinetic import screened_response
from fedens.errors import DescriptorError
from fedens.features.descriptor import Descriptor
from fedens.features.surroundings import Surroundings

_SMOOTHINGS = (0.5, 1.0, 2.0, 4.0, 8.0)
_CURVATURES = (0.25, 1.0)
_GRADIENTS = (0.0, 1.0, 4.0)
#: Rounds off the gradient's modulus where it vanishes, relative to the mean density per bohr.
_GRADIENT_FLOOR = 1e-3


class ResponseFields(Descriptor):
    """Fifteen scalar fields from the linear response to the ions, at the points of a space.

    With dn the screened density change, lambda the eigenvalues of minus the Laplacian and n0 the
    mean density (densities in units of n0): dn; exp(-s lambda/2) dn for s = 0.5, 1, 2, 4, 8; the
    screened potential, plain and smoothed; lambda exp(-s lambda) dn for s = 0.25, 1; |grad f| of
    dn and of two smoothings (rounded at zero); dn^2 screened like a charge and smoothed. Scalars
    under rotation, differentiable in the positions.

    Args:
        functional: its pseudopotentials make the ions' potential, its xc part of the screening.
    """

    kind = "response_fields"

    def __init__(self, functional: EnergyFunctional):
        self.functional = functional

    @property
    def names(self) -> list[str]:
        return [
            "response",
            *(f"response_smoothed_{s:g}" for s in _SMOOTHINGS),
            "screened_potential",
            "screened_potential_smoothed_1",
            *(f"response_curvature_{s:g}" for s in _CURVATURES),
            *(f"response_gradient_{s:g}" for s in _GRADIENTS),
            "response_squared_screened",
            "response_squared_smoothed_1",
        ]

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "functional": self.functional.describe()}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> ResponseFields:
        return cls(EnergyFunctional.from_description(description["functional"]))

    def features(self, around: Surroundings) -> Tensor:
        """Features (n_points, 15).

        Raises:
            DescriptorError: unless the points are those of a periodic TensorSpace; for occupancies
                other than the structure's own.
        """
        space = around.space
        if space is None or not space.is_periodic:
            raise DescriptorError(
                "response fields need a periodic TensorSpace as points: they are functions of "
                "its Laplacian; for isolated systems or free points use GMP alone"
            )
        if around.occupancies_given:
            raise DescriptorError("response fields differentiate in positions only")
        bound = self.functional.bind(around.structure, space, around.positions)
        mean = bound.mean_density
        response = screened_response(space, mean, self.functional.xc_term)
        external = space.test(bound.ions.short_range - space.solve_poisson(bound.ions.charge))
        change = response * external / mean
        coulomb = space.coulomb_kernel * mean
        eigenvalues = space.laplacian_eigenvalues

        def smooth(s: float) -> Tensor:
            return torch.exp(-0.5 * s * eigenvalues)

        potential = external + coulomb * change
        linear = [
            change,
            *(smooth(s) * change for s in _SMOOTHINGS),
            potential,
            smooth(1.0) * potential,
            *(eigenvalues * torch.exp(-s * eigenvalues) * change for s in _CURVATURES),
        ]
        fields = list(space.evaluate(torch.stack(linear)))
        fields += [_smooth_modulus(space.evaluate_gradient(smooth(s) * change)) for s in _GRADIENTS]
        square = space.test(fields[0] ** 2)
        second = [response / response.abs().max() * square, smooth(1.0) * square]
        fields += list(space.evaluate(torch.stack(second)))
        return torch.stack(fields, dim=1)


def _smooth_modulus(gradient: Tensor) -> Tensor:
    """|gradient| (n_points,), rounded at zero so that no feature has a kink."""
    floor = _GRADIENT_FLOOR
    return torch.sqrt((gradient**2).sum(dim=1) + floor**2) - floor
