"""The theory of the reference data of crystals: orbital-free, or Kohn-Sham with k-points."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, model_validator

from fedens.configuration.material import Pseudopotentials
from fedens.configuration.options import Options, refuse


class OrbitalFreeOptions(Options):
    """Orbital-free: the sections ``functional`` and ``solver`` say the rest."""

    kind: Literal["orbital_free"] = "orbital_free"


class SmearingOptions(Options):
    """Fractional occupations, which metals need."""

    kind: Literal["fermi_dirac", "gaussian", "methfessel_paxton", "cold"] = "methfessel_paxton"
    width: float = Field(default=0.04, ge=0, description="hartree; 0: none, for insulators")


class KohnShamOptions(Options):
    """Kohn-Sham theory of periodic cells; the section ``space`` is the mesh.

    The section ``functional`` is then where the learned differences begin, and may be null.
    """

    kind: Literal["kohn_sham"]
    xc: str = Field(
        default="lda_pw", description="lda_pz, lda_pw, lda_teter, pbe or a name of libxc"
    )
    pseudopotentials: Pseudopotentials = Field(
        description="by chemical symbol: a name such as gth-pade-q3, or a section with a kind"
    )
    gaussian_width: PositiveFloat = Field(
        default=1.2, description="of the ions' Gaussian charges, bohr"
    )
    kspacing: PositiveFloat | None = Field(
        default=0.105,
        description="largest spacing of the k-points, 2 pi/(n L), 1/bohr; null: the point Gamma",
    )
    smearing: SmearingOptions = SmearingOptions()
    cutoff: PositiveFloat | None = Field(
        default=None,
        description="kinetic energy of the shortest waves of the orbitals, hartree; null: chosen "
        "from the pseudopotentials",
    )
    density_cutoff: PositiveFloat | None = Field(
        default=None,
        description="of the waves kept in products of orbitals, hartree; 1.44 times the cutoff is "
        "quick; null: products at all points of the mesh",
    )
    residual_tolerance: PositiveFloat = Field(
        default=1e-6, description="change of the density over a step, of the electrons"
    )
    max_iterations: PositiveInt = Field(default=60, description="self-consistent steps")

    @model_validator(mode="after")
    def _cutoffs_agree(self) -> KohnShamOptions:
        if self.cutoff and self.density_cutoff and self.density_cutoff < self.cutoff:
            refuse("density_cutoff", f"is {self.density_cutoff:g}, below cutoff {self.cutoff:g}")
        return self


Theory = Annotated[OrbitalFreeOptions | KohnShamOptions, Discriminator("kind")]
#: By kind.
THEORIES: dict[str, type[Options]] = {
    "orbital_free": OrbitalFreeOptions,
    "kohn_sham": KohnShamOptions,
}
