"""The job ``generalisation``: how errors of a model around a defect depend on its training domain.

Beside what every run's folder holds (:mod:`fedens.jobs.run`)::

    results.json   every row        tables/   the same, CSV        positions/   relaxed atoms
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property, lru_cache, partial
from typing import Any, ClassVar

import numpy as np

from fedens.configuration import GeneralisationConfiguration
from fedens.files import write_atomically
from fedens.generalisation.defects import (
    DEFECTS,
    Crystal,
    defect_in_ball,
    relaxed_crystal,
)
from fedens.generalisation.experiment import (
    LargeCrystal,
    check_size,
    compare,
    far_field_model,
    large_crystal,
    scaled_basis,
    spring_of_error,
)
from fedens.generalisation.far_field import Order
from fedens.generalisation.gupta import Gupta
from fedens.generalisation.lattice import ForceConstants, force_constants
from fedens.generalisation.linear_model import DensityPolynomials, GuptaFeatures
from fedens.generalisation.measures import Strain, decay
from fedens.generalisation.observations import Design
from fedens.generalisation.potential import Array
from fedens.generalisation.slopes import slopes
from fedens.generalisation.terms import Domain, judge, relaxation_volume, training_domain
from fedens.jobs.run import Run, Section
from fedens.jobs.summary import REPORT, Summary
from fedens.output.vtk import write_atoms
from fedens.report.generalisation import SLOPES, write_generalisation_report
from fedens.report.sections import rows_table
from fedens.structure import Structure
from fedens.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV

#: Shells for the strain's decay, lattice constants.
_SHELLS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0)
#: Atoms no further than this from the defect are written for ParaView, lattice constants.
_SHOWN = 4.0

Row = dict[str, Any]


class GeneralisationRun(Run[GeneralisationConfiguration]):
    """Analyses what generalises from small training domains to a defect.

    Its steps: ``generate`` relaxes the defects by the reference, ``train`` makes and tests the
    models, ``evaluate`` fits the slopes and writes tables and report.
    """

    data_sections = (
        "seed",
        "element",
        "lattice_constant",
        "reference",
        "defect",
        "ball",
        "decay_ball",
    )
    leaves: ClassVar = {
        **Run.leaves,
        "generate": ("defects relaxed by the reference", "positions"),
        "train": ("models tested; their rows", "sections.json"),
    }

    @cached_property
    def reference(self) -> Gupta:
        """The reference potential."""
        o = self.configuration.reference
        return Gupta(
            o.repulsion / HARTREE_IN_EV,
            o.attraction / HARTREE_IN_EV,
            o.repulsion_decay,
            o.attraction_decay,
            o.r0 / BOHR_IN_ANGSTROM,
            o.cutoff[0] / BOHR_IN_ANGSTROM,
            o.cutoff[1] / BOHR_IN_ANGSTROM,
        )

    @cached_property
    def crystal(self) -> Crystal:
        """The perfect crystal in equilibrium."""
        element, guess = self.configuration.element, self.configuration.lattice_constant

        def compute() -> float:
            return relaxed_crystal(self.reference, element, guess).lattice_constant

        inputs = self.chosen("element", "lattice_constant", "reference")
        return Crystal(element, self.once("lattice_constant", Section(inputs, compute)))

    @cached_property
    def constants(self) -> ForceConstants:
        """Force constants of the perfect crystal."""
        return force_constants(self.reference, self.crystal)

    @cached_property
    def large(self) -> LargeCrystal:
        """The defect in the large crystal, from the positions that :attr:`defects` leave."""
        kind, radius = self.configuration.defect, self.configuration.ball
        return self._relaxed(kind, radius, np.load(self.folder / _positions(kind, radius)))

    def _relaxed(self, kind: str, radius: float, known: Array | None = None) -> LargeCrystal:
        return large_crystal(self.reference, self.crystal, kind, radius, self.constants, known)

    def generate(self) -> None:
        """Relax the defects, each in the large crystal, by the reference.

        Raises:
            StructureError: a crystal too small for the training domains, or without equilibrium.
            ModelError: a reference that is not stable.
        """
        options = self.configuration
        check_size(options.ball, max(*options.far_field.sizes, *options.fits.sizes))
        _ = self.defects, self.decay

    def train(self) -> None:
        """Make the models and compare each with the reference; :meth:`generate` goes before."""
        self.generate()
        _ = self.far_field, self.fits

    @cached_property
    def defects(self) -> list[Row]:
        """Formation and relaxation energies and volumes of every kind of defect."""
        ball = self.configuration.ball
        inputs = self.chosen("element", "lattice_constant", "reference", "ball")
        cases = {
            f"defect {kind}": Section(inputs, partial(self._defect, kind), [_positions(kind, ball)])
            for kind in DEFECTS
        }
        return self.each("defects relaxed by the reference", cases)

    def _defect(self, kind: str) -> Row:
        large = self._relaxed(kind, self.configuration.ball)
        self._save(_positions(kind, self.configuration.ball), large.relaxed)
        volume = relaxation_volume(self.reference, large.defect, large.relaxed)
        return {
            "defect": kind,
            "atoms": len(large.defect.structure),
            "free_atoms": int(large.defect.free.sum()),
            "formation_energy_ev": large.formation_energy * HARTREE_IN_EV,
            "relaxation_energy_ev": large.relaxation_energy * HARTREE_IN_EV,
            "relaxation_volume_atomic_volumes": volume / self.crystal.atomic_volume,
            "strain_norm": Strain(large.defect).norm(large.displacement),
            "largest_strain": Strain(large.defect).largest(large.displacement),
        }

    @cached_property
    def decay(self) -> list[Row]:
        """r^3 times the strain around the defect, in a larger ball still."""
        inputs = self.chosen("element", "lattice_constant", "reference", "defect", "decay_ball")
        (rows,) = self.each("decay of the strain", {"decay": Section(inputs, self._decay)})
        return rows

    def _decay(self) -> list[Row]:
        kind, radius = self.configuration.defect, self.configuration.decay_ball
        large = self._relaxed(kind, radius)
        self._save(_positions(kind, radius), large.relaxed)
        shells = [limit for limit in _SHELLS if limit <= radius / 2]
        distances, values = decay(large.defect, large.displacement, shells)
        return [
            {"distance_lattice_constants": r, "r3_strain": v}
            for r, v in zip(distances.tolist(), values.tolist(), strict=True)
        ]

    @cached_property
    def far_field(self) -> list[Row]:
        """Models that are wrong only beyond L."""
        inputs = {"defects": self.defects, **self.chosen("far_field.force_constant_error")}
        orders: tuple[Order, ...] = (2, 3)
        cases = {
            f"far field {order} {size:g}": Section(inputs, partial(self._far_field, order, size))
            for order in orders
            for size in self.configuration.far_field.sizes
        }
        return self.each("models wrong beyond L", cases)

    @cached_property
    def _spring(self) -> float:
        error = self.configuration.far_field.force_constant_error
        return spring_of_error(self.reference, self.constants, self.crystal, error)

    def _far_field(self, order: Order, size: float) -> Row:
        model = far_field_model(self.large, self.reference, size, order, self._spring)
        error, _ = compare(self.large, model, crystal_of=self.reference)
        wrong = "force constants" if order == 2 else "third order"
        return {"wrong": wrong, "size_lattice_constants": size, **asdict(error)}

    @cached_property
    def fits(self) -> list[Row]:
        """Models fitted in domains of growing size to each set of observations."""
        options, cases = self.configuration.fits, dict[str, Section]()
        for size in options.sizes:
            for basis in ("small", "sufficient"):
                cases |= dict(self._fit_of(basis, size, kinds) for kinds in options.observations)
            if size * self.crystal.lattice_constant > self.reference.cutoff:
                cases |= dict([self._fit_of("exact", size, options.observations[-1])])
        return self.each("models fitted within L", cases)

    def _fit_of(self, basis: str, size: float, kinds: Sequence[str]) -> tuple[str, Section]:
        """Name and section of a fit."""
        same = ("seed", "fits.snapshots", "fits.rattle", "fits.targets", "fits.ridge")
        inputs = {"defects": self.defects, "decay": self.decay, **self.chosen(*same)}
        if basis != "exact":
            inputs |= self.chosen(f"fits.{basis}")
        files = [f"fields/{_file_name(basis, size, kinds)}.vtp"]
        if self._is_advised(basis, kinds):
            files.append(_fitted_positions(size))
        name = f"fit {basis} {size:g} {' '.join(kinds)}"
        return name, Section(inputs, partial(self._fit, basis, size, kinds), files)

    def _fit(self, basis: str, size: float, kinds: Sequence[str]) -> Row:
        options = self.configuration.fits
        design = self._design(basis, size)
        model = design.fit(
            kinds, {str(kind): value for kind, value in options.targets.items()}, options.ridge
        )
        # a model that is the reference should find the way from the unrelaxed atoms by itself
        start = self.large.defect.structure.positions if basis == "exact" else None
        error, positions = compare(self.large, model, start=start)
        self._write_fields(_file_name(basis, size, kinds), positions)
        if self._is_advised(basis, kinds):
            self._save(_fitted_positions(size), positions)
        terms = judge(model, self._domain(size))
        return {
            "basis": basis,
            "features": len(model.coefficients),
            "observations": ", ".join(kinds),
            "size_lattice_constants": size,
            **asdict(error),
            **{f"rms_{kind}": value for kind, value in design.errors(model).items()},
            **terms.columns(),
            "advice": terms.advice(),
        }

    def _is_advised(self, basis: str, kinds: Sequence[str]) -> bool:
        """Whether the advice is about fits of these observations."""
        return basis == "sufficient" and kinds == self.configuration.fits.observations[0]

    @cached_property
    def _domain(self) -> Callable[[float], Domain]:
        """The training domain of a radius in lattice constants; the last one is kept."""
        options, r3_strain = self.configuration, self.decay[-1]["r3_strain"]
        far = [row["r3_strain"] for row in self.decay if row["distance_lattice_constants"] > 2]

        @lru_cache(maxsize=1)
        def domain(size: float) -> Domain:
            radius = size * self.crystal.lattice_constant
            return training_domain(
                self.reference,
                defect_in_ball(self.crystal, options.defect, radius, self.reference.cutoff),
                snapshots=options.fits.snapshots,
                rattle=options.fits.rattle,
                seed=options.seed,
                amplitude=float(np.mean(far or [r3_strain])),
            )

        return domain

    @cached_property
    def _design(self) -> Callable[[str, float], Design]:
        """Features of all observations of a domain, by basis and size; the last one is kept."""
        r = self.reference

        @lru_cache(maxsize=1)
        def design(basis: str, size: float) -> Design:
            observations = self._domain(size).observations
            if basis == "exact":
                return Design(GuptaFeatures(r), observations)
            o = getattr(self.configuration.fits, basis)
            polynomials = DensityPolynomials(o.decays, o.degree, r.r0, r.cutoff_start, r.cutoff)
            return Design(scaled_basis(polynomials, observations), observations)

        return design

    def _write_fields(self, name: str, positions: Array) -> None:
        """Displacement, its error and strains of the atoms near the defect, for ParaView."""
        defect = self.large.defect
        near = defect.distances <= _SHOWN * self.crystal.lattice_constant
        strain, error = Strain(defect), positions - self.large.relaxed
        fields = {
            "displacement": self.large.displacement[near],
            "displacement_error": error[near],
            "strain": np.sqrt(strain.squared(self.large.displacement))[near],
            "strain_error": np.sqrt(strain.squared(error))[near],
        }
        units = {n: "1" if n.startswith("strain") else "bohr" for n in fields}
        atoms = Structure(defect.structure.numbers[near], self.large.relaxed[near])
        write_atoms(self.folder / "fields" / f"{name}.vtp", atoms, fields, units=units)

    def _advice(self) -> str:
        """What the first set of observations lacks in the smallest domain, in one paragraph."""
        kinds, size = ", ".join(self.configuration.fits.observations[0]), self._smallest
        found = {(r["basis"], r["observations"], r["size_lattice_constants"]): r for r in self.fits}
        return (
            f"Fitted to {kinds.replace('_', ' ')} in a domain of {size:g} lattice constants. "
            f"{found['sufficient', kinds, size]['advice']}"
        )

    @property
    def _smallest(self) -> float:
        return min(self.configuration.fits.sizes)

    def compared(self) -> Summary:
        """Slopes, tables and the report page."""
        self.train()
        tables = {
            "defects": self.defects,
            "decay": self.decay,
            "far_field": self.far_field,
            "fits": self.fits,
            "slopes": slopes(self.far_field, self.fits),
        }
        files = [f"tables/{name}.csv" for name in tables]
        inputs = {**tables, **self.chosen("fits", "far_field")}
        section = Section(inputs, partial(self._compared, tables), [*files, REPORT])
        return self.summarised("slopes and report", section)

    def _compared(self, tables: Mapping[str, list[Row]]) -> Summary:
        for name, rows in tables.items():
            write_atomically(self.folder / "tables" / f"{name}.csv", _csv(rows))
        constant = self.crystal.lattice_constant
        self.write_json("results.json", {"lattice_constant": constant, **tables})
        options, advice = self.configuration, self._advice()
        write_generalisation_report(
            self.folder / REPORT,
            f"{options.name}: what generalises to a {options.defect}",
            advice,
            self._what_was_run(),
            tables,
            self._panels(),
        )
        title = "slopes of the errors against the radius of the training domain"
        return Summary(rows_table(title, SLOPES, tables["slopes"]), [advice])

    def _what_was_run(self) -> dict[str, object]:
        options, a = self.configuration, self.crystal.lattice_constant
        free = int(self.large.defect.free.sum())
        return {
            "reference": f"Gupta potential of {options.element}",
            "lattice constant": f"{a * BOHR_IN_ANGSTROM:.6f} angstrom",
            "defect": options.defect,
            "large crystal": f"{free} free atoms within {options.ball:g} lattice constants",
            "training snapshots": f"relaxed and {options.fits.snapshots} rattled by "
            f"{options.fits.rattle:g} bohr",
            "seed": options.seed,
        }

    def _save(self, name: str, positions: Array) -> None:
        data = io.BytesIO()
        np.save(data, positions)
        write_atomically(self.folder / name, data.getvalue())

    def _panels(self) -> dict[str, tuple[Array, Array, Array]]:
        """Relaxation and its error in a plane: points and arrows (n, 2), angstrom; strains (n,)."""
        defect, a = self.large.defect, self.crystal.lattice_constant
        sites = defect.sites
        plane = (np.abs(sites[:, 2]) < 0.1 * a) & (defect.distances < _SHOWN * a)
        at, panels = sites[plane, :2] * BOHR_IN_ANGSTROM, {}
        fitted = np.load(self.folder / _fitted_positions(self._smallest))
        error = np.nan_to_num(fitted - self.large.relaxed)  # NaN where no minimum was found
        for title, moved in (("relaxation", self.large.displacement), ("its error", error)):
            strain = np.sqrt(Strain(defect).squared(moved))
            panels[title] = (at, moved[plane, :2] * BOHR_IN_ANGSTROM, strain[plane])
        return panels


def _positions(kind: str, radius: float) -> str:
    return f"positions/{kind}_{radius:g}.npy"


def _fitted_positions(size: float) -> str:
    return f"positions/fitted_{size:g}.npy"


def _file_name(basis: str, size: float, kinds: Sequence[str]) -> str:
    return f"{basis}_{size:g}_{'_'.join(kinds)}"


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    columns = dict.fromkeys(key for row in rows for key in row)
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
