"""One axis of a tensor-product space: 1-D finite elements of any order and their eigenmodes.

scikit-fem supplies mesh, basis, quadrature and the mass and stiffness matrices. The generalised
eigenproblem K v = lambda M v is solved once, so that in the basis of its eigenmodes the mass
matrix is the identity and the (negative) Laplacian is diagonal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from skfem import Basis, ElementLineP1, ElementLineP2, ElementLinePp, MeshLine
from skfem.models.poisson import laplace, mass
from torch import Tensor

from fedens.errors import DeviceError, SpaceError

MAX_ORDER = 10


@dataclass(frozen=True, eq=False)
class Axis:
    """Quadrature and Laplacian eigenmodes of one axis.

    Attributes:
        edges: element boundaries, (n_elements + 1,), bohr.
        order: polynomial order of the elements.
        periodic: whether the last edge is the first one again; otherwise functions vanish
            at both ends (Dirichlet).
        phase: kappa of periodic axes: functions take the factor exp(2 pi i kappa) from one
            period to the next. Modes are real where kappa is a multiple of 1/2.
        points, weights: Gauss points, order + 1 in each element, (n_points,), bohr.
        values, derivatives: eigenmodes and their slopes at the points, (n_points, n_modes).
        eigenvalues: of minus the second derivative, ascending, (n_modes,), bohr^-2.
    """

    edges: Tensor
    order: int
    periodic: bool
    points: Tensor
    weights: Tensor
    values: Tensor
    derivatives: Tensor
    eigenvalues: Tensor
    phase: float = 0.0

    @classmethod
    def build(
        cls, edges: NDArray[np.float64], order: int, periodic: bool, phase: float = 0.0
    ) -> Axis:
        """Axis on the given element boundaries (bohr, ascending)."""
        edges = np.asarray(edges, dtype=np.float64)
        if not 1 <= order <= MAX_ORDER:
            raise SpaceError(f"order is {order}; expected 1 to {MAX_ORDER}")
        if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
            raise SpaceError("element edges must be at least two ascending numbers (bohr)")
        if not periodic and len(edges) == 2 and order == 1:
            raise SpaceError("one linear element between two fixed ends has no freedom left")
        length = edges[-1] - edges[0]
        # Unit axes are cached: cells of one size or another share the same eigenproblem.
        relative = tuple(np.round((edges - edges[0]) / length, 14))
        axis = _unit_axis(relative, order, periodic, phase).scaled(torch.tensor(length))
        start = float(edges[0])
        return replace(axis, edges=axis.edges + start, points=axis.points + start)

    @property
    def length(self) -> float:
        """Distance from the first to the last edge, bohr."""
        edges = self.edges.detach()
        return float(edges[-1] - edges[0])

    @property
    def vertices(self) -> tuple[Tensor, Tensor]:
        """Element boundaries and the integrals of the linear hat functions there, bohr."""
        halves = torch.diff(self.edges) / 2
        nothing = halves.new_zeros(1)
        weights = torch.cat([halves, nothing]) + torch.cat([nothing, halves])
        if not self.periodic:
            return self.edges, weights
        joined = torch.cat([weights[:1] + weights[-1:], weights[1:-1]])
        return self.edges[:-1], joined

    def scaled(self, factor: Tensor) -> Axis:
        """The axis stretched about the origin; modes stay orthonormal."""
        return replace(
            self,
            edges=self.edges * factor,
            points=self.points * factor,
            weights=self.weights * factor,
            values=self.values / factor**0.5,
            derivatives=self.derivatives / factor**1.5,
            eigenvalues=self.eigenvalues / factor**2,
        )

    def with_phase(self, phase: float) -> Axis:
        """The same periodic axis for functions with a phase, folded to -1/2 < kappa <= 1/2."""
        if not self.periodic and phase:
            raise SpaceError(f"phase {phase} along an axis that does not repeat; it must be 0")
        folded = round(0.5 - (0.5 - phase) % 1.0, 12)
        if folded == self.phase:
            return self
        if folded not in self._with_phases:
            edges = self.edges.detach().cpu().numpy()
            axis = Axis.build(edges, self.order, self.periodic, folded)
            self._with_phases[folded] = axis.to(self.edges.device)
        return self._with_phases[folded]

    def lowest(self, count: int) -> Axis:
        """The axis with its first ``count`` modes only."""
        if count not in self._with_fewer_modes:
            self._with_fewer_modes[count] = replace(
                self,
                values=self.values[:, :count].contiguous(),
                derivatives=self.derivatives[:, :count].contiguous(),
                eigenvalues=self.eigenvalues[:count],
            )
        return self._with_fewer_modes[count]

    @cached_property
    def _with_phases(self) -> dict[float, Axis]:
        # many k-points share the phases along an axis
        return {}

    @cached_property
    def _with_fewer_modes(self) -> dict[int, Axis]:
        return {}

    def refined(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Gauss points, ``count`` in each element, with their weights and the modes there.

        Returns:
            points and weights (n_elements count,), bohr; modes (n_elements count, n_modes).
        """
        nodes, weights = _gauss(count)
        t, w = (torch.as_tensor(a).to(self.edges) for a in (nodes, weights))
        edges = self.edges.detach()
        halves = torch.diff(edges)[:, None] / 2
        points = (edges[1:] + edges[:-1])[:, None] / 2 + halves * t
        modes = self._legendre_coefficients
        values = torch.einsum("kq,kem->eqm", _legendre(t, self.order).to(modes.dtype), modes)
        return points.reshape(-1), (halves * w).reshape(-1), values.reshape(points.numel(), -1)

    def to(self, device: torch.device | str) -> Axis:
        """The axis with its tensors on another device.

        Raises:
            DeviceError: torch does not have it here.
        """
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise DeviceError(f"device is {device!r}, but {reason}; use 'cpu'") from error
        names = [field.name for field in fields(self) if field.type == "Tensor"]
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def longest_element_at(self, x: Tensor) -> float:
        """Length of the longest element that holds or touches a position of ``x`` (n,), bohr."""
        edges, x = self.edges.detach(), x.detach()[:, None]
        if self.periodic:
            x = edges[0] + (x - edges[0]) % self.length
        tolerance = 1e-9 * self.length
        holds = (edges[:-1] <= x + tolerance) & (x - tolerance <= edges[1:])
        return float((torch.diff(edges) * holds).max())

    def modes_at(self, x: Tensor) -> Tensor:
        """Eigenmodes at arbitrary positions ``x`` (n,), bohr; result (n, n_modes)."""
        edges = self.edges.detach()
        x = x.detach().to(edges)
        cells = torch.div(x - edges[0], self.length, rounding_mode="floor")
        if self.periodic:
            x = edges[0] + (x - edges[0]) % self.length
        tolerance = 1e-12 * self.length
        if (x < edges[0] - tolerance).any() or (x > edges[-1] + tolerance).any():
            raise SpaceError(
                f"points reach outside the box [{float(edges[0]):.3f}, {float(edges[-1]):.3f}] "
                "bohr; fields are known only inside: move the points or enlarge the margin"
            )
        element = (torch.searchsorted(edges, x.contiguous()) - 1).clamp(0, len(edges) - 2)
        low, high = edges[element], edges[element + 1]
        polynomials = _legendre((2 * x - low - high) / (high - low), self.order)
        coefficients = self._legendre_coefficients[:, element]
        modes = torch.einsum("kn,knm->nm", polynomials.to(coefficients.dtype), coefficients)
        return modes * self.bloch_factors(cells)[:, None] if self.phase else modes

    def bloch_factors(self, cells: Tensor) -> Tensor:
        """exp(2 pi i kappa cells) of whole numbers of periods; real where the modes are."""
        if not self.values.is_complex():
            return 1 - 2 * (cells % 2) if self.phase else torch.ones_like(cells)
        return torch.exp(2j * math.pi * self.phase * cells)

    @cached_property
    def _legendre_coefficients(self) -> Tensor:
        """Every mode in every element as Legendre polynomials, (order + 1, n_elements, n_modes)."""
        n_elements = len(self.edges) - 1
        edges, points = self.edges.detach(), self.points.detach().reshape(n_elements, -1)
        lengths, middles = torch.diff(edges)[:, None], ((edges[1:] + edges[:-1]) / 2)[:, None]
        polynomials = _legendre(2 * (points - middles) / lengths, self.order)
        weights = self.weights.detach().reshape(n_elements, -1) / lengths
        values = self.values.detach().reshape(*points.shape, -1)
        norms = 2 * torch.arange(self.order + 1, dtype=points.dtype, device=points.device) + 1
        weighted = (polynomials * weights * norms[:, None, None]).to(values.dtype)
        return torch.einsum("keq,eqm->kem", weighted, values)


@lru_cache(maxsize=64)
def _gauss(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gauss-Legendre nodes in [-1, 1] and their weights."""
    return np.polynomial.legendre.leggauss(count)


def _legendre(t: Tensor, order: int) -> Tensor:
    """Legendre polynomials P_0 to P_order at ``t`` in [-1, 1]; result (order + 1, ...)."""
    result = [torch.ones_like(t), t]
    for k in range(1, order):
        result.append(((2 * k + 1) * t * result[k] - k * result[k - 1]) / (k + 1))
    return torch.stack(result)


def _solve_unit(
    edges: tuple[float, ...], order: int, periodic: bool, phase: float
) -> tuple[Basis, NDArray[np.float64], NDArray[Any]]:
    # scikit-fem asks for its own classes where they exist
    element = {1: ElementLineP1, 2: ElementLineP2}.get(order, partial(ElementLinePp, order))()
    basis = Basis(MeshLine(np.array(edges)), element, intorder=2 * order + 1)
    reduction = _boundary_reduction(basis, periodic, phase)
    adjoint = reduction.conj().T
    stiffness = adjoint @ (laplace.assemble(basis) @ reduction)
    masses = adjoint @ (mass.assemble(basis) @ reduction)
    eigenvalues, vectors = scipy.linalg.eigh(stiffness, masses)
    if periodic and not phase:
        eigenvalues[0] = 0.0  # the constant, exact in every order
    return basis, eigenvalues, reduction @ vectors


def _boundary_reduction(basis: Basis, periodic: bool, phase: float) -> NDArray[Any]:
    """Map from free coefficients to all of them: ends joined by a phase, or fixed at zero."""
    factor = {0.0: 1.0, 0.5: -1.0}.get(phase, np.exp(2j * np.pi * phase))
    everything = np.eye(basis.N, dtype=type(factor))
    x = basis.mesh.p[0]
    first = basis.nodal_dofs[0, np.argmin(x)]
    last = basis.nodal_dofs[0, np.argmax(x)]
    if periodic:
        everything[last, first] = factor
        return np.delete(everything, last, axis=1)
    return np.delete(everything, [first, last], axis=1)


@lru_cache(maxsize=1024)
def _unit_axis(edges: tuple[float, ...], order: int, periodic: bool, phase: float) -> Axis:
    basis, eigenvalues, modes = _solve_unit(edges, order, periodic, phase)
    n_elements, n_quadrature = basis.dx.shape
    values = np.zeros((n_elements, n_quadrature, basis.N))
    slopes = np.zeros_like(values)
    for local, (function,) in enumerate(basis.basis):
        dofs = basis.element_dofs[local]
        elements = np.arange(n_elements)
        values[elements, :, dofs] += np.asarray(function)
        slopes[elements, :, dofs] += function.grad[0]
    flat = (n_elements * n_quadrature, basis.N)
    return Axis(
        edges=torch.tensor(edges, dtype=torch.float64),
        order=order,
        periodic=periodic,
        points=torch.tensor(np.asarray(basis.global_coordinates())[0].ravel()),
        weights=torch.tensor(basis.dx.ravel()),
        values=torch.tensor(values.reshape(flat) @ modes),
        derivatives=torch.tensor(slopes.reshape(flat) @ modes),
        eigenvalues=torch.tensor(eigenvalues),
        phase=phase,
    )
