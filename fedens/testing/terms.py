"""What every energy term must satisfy."""

from __future__ import annotations

import torch

from fedens.data.density import Density
from fedens.energy.terms import DensityTerm
from fedens.fem.space import FunctionSpace
from fedens.testing.differences import check_derivatives


def check_energy_term(term: DensityTerm, density: Density, tolerance: float = 1e-8) -> None:
    """Check a term's energy against its energy density, and its derivatives against differences.

    The density must be made from root coefficients; it is changed along a random direction.
    Second derivatives are checked where the term says that it has them.
    """
    space, root = density.space, density.root_coefficients.detach()
    energy = float(term.energy(density))
    total = float(space.integrate(term.energy_density(density)))
    assert abs(energy - total) <= 1e-10 * abs(energy), f"energy {energy}, its density's {total}"
    random = torch.Generator().manual_seed(1)
    direction = torch.randn(root.shape, generator=random, dtype=torch.float64)
    # smooth, so that the density keeps its sign and its size
    direction = direction / (1 + space.laplacian_eigenvalues) ** 2
    direction *= 0.1 * root.norm() / direction.norm()

    slope = check_derivatives(
        lambda c: term.energy(Density.from_root(space, c)),
        root,
        direction,
        2e-2,
        (tolerance, 10 * tolerance) if term.twice_differentiable else (tolerance,),
        f"of {term.name}",
    )
    assert abs(slope) > 1e-6 * abs(energy), "the direction does not change the energy"


def check_uniform_response(
    term: DensityTerm, space: FunctionSpace, mean_density: float, tolerance: float = 1e-5
) -> None:
    """Check ``uniform_response`` against second differences of the energy on a periodic space."""
    mode = 1 + int(torch.argmin((space.laplacian_eigenvalues[1:] - 1.0).abs()))
    unit = torch.zeros(space.n_coefficients, dtype=torch.float64)
    unit[mode] = 1.0
    wave = space.evaluate(unit)
    q2 = space.laplacian_eigenvalues[mode : mode + 1]

    def energy(amplitude: float) -> float:
        root = torch.sqrt(mean_density + amplitude * wave)
        return float(term.energy(Density.from_root(space, space.project(root))))

    size = 0.005 * mean_density / float(wave.abs().max())
    second = (energy(size) - 2 * energy(0.0) + energy(-size)) / size**2
    expected = float(term.uniform_response(q2, torch.tensor(mean_density, dtype=q2.dtype)))
    assert abs(second - expected) <= tolerance * abs(expected), (
        f"response of {term.name} at q^2 = {float(q2):.3f} is {expected}, "
        f"second differences give {second}"
    )
