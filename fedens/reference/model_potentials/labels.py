"""Samples of random model potentials, from a handful of settings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from fedens.data.sample import Sample
from fedens.errors import ConfigurationError
from fedens.fem.edges import whole_elements
from fedens.fem.tensor import TensorSpace
from fedens.reference.kohn_sham.smearing import Smearing
from fedens.reference.model_potentials.drawing import KINDS, Drawn, Unit, draw_potential
from fedens.reference.model_potentials.planar import solve_planar
from fedens.reference.model_potentials.separable import solve_separable
from fedens.reference.model_potentials.state import ModelState

#: The gas for which the defaults were chosen, fcc aluminium: electron/bohr^3.
ALUMINIUM = 12 / 7.65**3


@dataclass(frozen=True)
class ModelPotentialLabels:
    """Exact labels of random potentials; each depends on kind, place and seed alone.

    Attributes:
        reference_density: of the bulk metal that they are for, electron/bohr^3.
        smearing: of the occupations; None: Methfessel-Paxton, 0.04 hartree at aluminium's density,
            in proportion to the Fermi energy.
        spacing, kspacing: of mesh (bohr) and k-points (1/bohr) at aluminium's density, scaled with
            its lengths. order: polynomial order.
        densities: smallest and largest mean density, over the reference density.
    """

    reference_density: float
    smearing: Smearing | None = None
    spacing: float = 0.34
    kspacing: float = 0.0343
    order: int = 8
    densities: tuple[float, float] = field(default=(0.75, 1.2))

    def __post_init__(self) -> None:
        if not 0 < self.reference_density < math.inf:
            raise ConfigurationError(
                f"reference_density is {self.reference_density} electron/bohr^3, expected a "
                "positive number"
            )

    def samples(self, counts: Mapping[str, int], seed: int = 0) -> Iterator[tuple[str, Sample]]:
        """Names, such as ``separable-0003``, and samples; ``counts``: of each kind.

        Raises:
            ConfigurationError: an unknown kind.
        """
        for kind, count in counts.items():
            for index in range(count):
                yield f"{kind}-{index:04d}", self.sample(kind, index, seed)

    def sample(self, kind: str, index: int, seed: int = 0) -> Sample:
        """One label. ``kind``: ``planar``, ``separable``, ``planes``, ``slab`` or ``cores``.

        ``planes`` looks like a crystal's lattice planes, of which one may be missing; ``cores``
        has the sharp repulsion of pseudopotentials.

        Raises:
            ConfigurationError: an unknown kind.
        """
        if kind not in KINDS:
            expected = ", ".join(KINDS)
            raise ConfigurationError(f"no model potential {kind!r} is known: expected {expected}")
        place = list(KINDS).index(kind)
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(place, index)))
        drawn = draw_potential(kind, Unit(self.reference_density), rng)
        mean = self.reference_density * rng.uniform(*self.densities) * drawn.filled
        sample = self._solve(drawn, mean).to_sample()
        sample.provenance["drawn"] = {
            "labels": self.describe(),
            "kind": kind,
            "index": index,
            "seed": seed,
        }
        return sample

    @property
    def chosen_smearing(self) -> Smearing:
        """The smearing, also where it follows from the density."""
        return self.smearing or Smearing(0.04 / self._scale**2, "methfessel_paxton")

    @property
    def _scale(self) -> float:
        """Lengths over those of aluminium."""
        return (ALUMINIUM / self.reference_density) ** (1 / 3)

    def _solve(self, drawn: Drawn, mean_density: float) -> ModelState:
        space = self._space(drawn)
        electrons = mean_density * space.volume
        counts = [self._count(potential.length) for potential in drawn.potentials]
        if drawn.planar:
            (potential,), (count,) = drawn.potentials, counts
            return solve_planar(space, potential, electrons, self.chosen_smearing, count)
        return solve_separable(space, drawn.potentials, electrons, self.chosen_smearing, counts)

    def _count(self, length: float) -> int:
        spacing = self.kspacing / self._scale
        return math.ceil(2 * math.pi / (length * spacing) - 1e-6)

    def _space(self, drawn: Drawn) -> TensorSpace:
        longest = self.spacing * self._scale * self.order
        lengths = [potential.length for potential in drawn.potentials]
        if drawn.planar:
            lengths = [longest, longest, *lengths]
        elements = [whole_elements(length / longest) for length in lengths]
        return TensorSpace(lengths, elements, self.order)

    def describe(self) -> dict[str, Any]:
        """All attributes, as JSON can hold them."""
        smearing = None if self.smearing is None else asdict(self.smearing)
        return {**vars(self), "smearing": smearing, "densities": list(self.densities)}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """The labels of :meth:`describe`."""
        given = description["smearing"]
        smearing = None if given is None else Smearing(**given)
        densities = tuple(description["densities"])
        return cls(**{**description, "smearing": smearing, "densities": densities})
