"""The job ``generalisation``: how errors of a model around a defect depend on its training domain.

A run lives in one folder::

    config.yaml    resolved configuration      tables/      every number, CSV
    results.json   rows done so far            fields/      atoms for ParaView
    report.html    one page to read            positions/   relaxed by the reference
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from fedens.configuration.generalisation import BasisOptions, GeneralisationConfiguration
from fedens.files import write_atomically
from fedens.generalisation.defects import (
    DEFECTS,
    Crystal,
    check_relaxed,
    defect_in_ball,
    relaxed_crystal,
)
from fedens.generalisation.experiment import (
    LargeCrystal,
    compare,
    far_field_model,
    large_crystal,
    scaled_basis,
    spring_of_error,
)
from fedens.generalisation.far_field import THEORY, Order
from fedens.generalisation.gupta import Gupta
from fedens.generalisation.lattice import ForceConstants, force_constants
from fedens.generalisation.linear_model import DensityPolynomials, GuptaFeatures
from fedens.generalisation.measures import Strain, decay, slope
from fedens.generalisation.observations import Design
from fedens.generalisation.potential import Array
from fedens.generalisation.terms import Domain, judge, relaxation_volume, training_domain
from fedens.output.vtk import write_atoms
from fedens.progress import Progress
from fedens.report.generalisation import write_generalisation_report
from fedens.structure import Structure
from fedens.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV, HARTREE_IN_MEV

#: Shells for the strain's decay, lattice constants.
_SHELLS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0)
#: Atoms no further than this from the defect are written for ParaView, lattice constants.
_SHOWN = 4.0

Row = dict[str, Any]


def run(configuration: GeneralisationConfiguration, folder: Path, progress: Progress) -> Analysis:
    """Do the analysis, or go on with it where it was cut off, and write its report.

    Raises:
        ConfigurationError: the folder holds results of another configuration.
        StructureError: a crystal too small for the training domains, or one without equilibrium.
        ModelError: a reference that is not stable.
    """
    analysis = Analysis(configuration, folder, progress)
    analysis.check()
    analysis.defects()
    analysis.decay()
    analysis.far_field()
    analysis.fits()
    path = analysis.report()
    progress.say(analysis.advice())
    progress.say(f"open next: {path}")
    return analysis


class Analysis:
    """One configuration with its folder. What has been done is in ``results``, by name."""

    def __init__(
        self, configuration: GeneralisationConfiguration, folder: Path, progress: Progress
    ):
        self.configuration, self.folder, self.progress = configuration, folder, progress
        self.results: Row = configuration.results_in(folder / "results.json")
        configuration.write(folder / "config.yaml")

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """A result of this name, computed only if it is not there yet."""
        if name not in self.results:
            self.results[name] = compute()
            write_atomically(self.folder / "results.json", json.dumps(self.results, indent=1))
        return self.results[name]

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
        a = self.once(
            "lattice_constant",
            lambda: relaxed_crystal(self.reference, element, guess).lattice_constant,
        )
        crystal = Crystal(element, a)
        check_relaxed(self.reference, crystal)
        return crystal

    @cached_property
    def constants(self) -> ForceConstants:
        """Force constants of the perfect crystal."""
        return force_constants(self.reference, self.crystal)

    @cached_property
    def large(self) -> LargeCrystal:
        """The defect in the large crystal."""
        return self._relaxed(self.configuration.defect, self.configuration.ball)

    def _relaxed(self, kind: str, radius: float) -> LargeCrystal:
        """A defect relaxed by the reference; its positions are kept in a file."""
        path = self.folder / "positions" / f"{kind}_{radius:g}.npy"
        known = np.load(path) if path.is_file() else None
        found = large_crystal(self.reference, self.crystal, kind, radius, self.constants, known)
        if known is None:
            write_atomically(path, lambda to: _save(to, found.relaxed))
        return found

    def check(self) -> None:
        """Refuse a large crystal that is too small, before anything is computed."""
        options = self.configuration
        radius = options.ball * self.crystal.lattice_constant
        defect = defect_in_ball(self.crystal, options.defect, radius, self.reference.cutoff)
        empty = np.zeros((0, 3))
        large = LargeCrystal(self.reference, defect, self.constants, empty, 0.0, 0.0)
        large.check_size([*options.far_field.sizes, *options.fits.sizes])

    def defects(self) -> list[Row]:
        """Formation and relaxation energies and volumes of every kind of defect."""
        rows = []
        with self.progress.stage("defects relaxed by the reference", len(DEFECTS)) as advance:
            for kind in DEFECTS:
                rows.append(self.once(f"defect {kind}", partial(self._defect, kind)))
                advance(1)
        return self._table("defects", rows)

    def _defect(self, kind: str) -> Row:
        large = self._relaxed(kind, self.configuration.ball)
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

    def decay(self) -> list[Row]:
        """r^3 times the strain around the defect, in a larger ball still."""
        with self.progress.stage("decay of the strain", 1) as advance:
            rows = self._decay
            advance(1)
        return self._table("decay", rows)

    @cached_property
    def _decay(self) -> list[Row]:
        return self.once("decay", self._compute_decay)

    def _compute_decay(self) -> list[Row]:
        large = self._relaxed(self.configuration.defect, self.configuration.decay_ball)
        middle = self.configuration.decay_ball / 2
        shells = [limit for limit in _SHELLS if limit <= middle]
        distances, values = decay(large.defect, large.displacement, shells)
        return [
            {"distance_lattice_constants": r, "r3_strain": v}
            for r, v in zip(distances.tolist(), values.tolist(), strict=True)
        ]

    @property
    def amplitude(self) -> float:
        """b of the strain b (a / r)^3 beyond two lattice constants."""
        rows = self._decay
        far = [r["r3_strain"] for r in rows if r["distance_lattice_constants"] > 2]
        return float(np.mean(far or [rows[-1]["r3_strain"]]))

    def far_field(self) -> list[Row]:
        """Models that are wrong only beyond L."""
        options = self.configuration.far_field
        cases: list[tuple[Order, float]] = [(2, L) for L in options.sizes]
        cases += [(3, L) for L in options.sizes]
        rows = []
        with self.progress.stage("models wrong beyond L", len(cases)) as advance:
            for order, size in cases:
                name = f"far field {order} {size:g}"
                rows.append(self.once(name, partial(self._far_field, order, size)))
                advance(1)
        return self._table("far_field", rows)

    @cached_property
    def _spring(self) -> float:
        error = self.configuration.far_field.force_constant_error
        return self.once(
            "spring",
            lambda: spring_of_error(self.reference, self.constants, self.crystal, error),
        )

    def _far_field(self, order: Order, size: float) -> Row:
        model = far_field_model(self.large, self.reference, size, order, self._spring)
        error, _ = compare(self.large, model, crystal_of=self.reference)
        wrong = "force constants" if order == 2 else "third order"
        return {"wrong": wrong, "size_lattice_constants": size, **asdict(error)}

    def fits(self) -> list[Row]:
        """Models fitted in domains of growing size to each set of observations."""
        options = self.configuration.fits
        cases = []
        for size in options.sizes:
            cases += [(b, size, k) for b in ("small", "sufficient") for k in options.observations]
            if size * self.crystal.lattice_constant > self.reference.cutoff:
                cases.append(("exact", size, options.observations[-1]))
        rows = []
        with self.progress.stage("models fitted within L", len(cases)) as advance:
            for basis, size, kinds in cases:
                name = f"fit {basis} {size:g} {' '.join(kinds)}"
                rows.append(self.once(name, partial(self._fit, basis, size, kinds)))
                advance(1)
        return self._table("fits", rows)

    def _fit(self, basis: str, size: float, kinds: Sequence[str]) -> Row:
        options = self.configuration.fits
        design = self._design(basis, size)
        model = design.fit(
            kinds, {str(kind): value for kind, value in options.targets.items()}, options.ridge
        )
        # a model that is the reference should find the way from the unrelaxed atoms by itself
        start = self.large.defect.structure.positions if basis == "exact" else None
        error, positions = compare(self.large, model, start=start)
        self._write_fields(f"{basis}_{size:g}_{'_'.join(kinds)}", positions)
        if (basis, size, tuple(kinds)) == ("sufficient", min(options.sizes), self._first):
            write_atomically(self._shown, lambda to: _save(to, positions))
        terms = judge(model, self._domain(size))
        return {
            "basis": basis,
            "features": len(model.coefficients),
            "observations": ", ".join(kinds),
            "size_lattice_constants": size,
            **asdict(error),
            **{f"rms_{kind}": value for kind, value in design.errors(model).items()},
            "e_energy_ev": terms.errors.energy * HARTREE_IN_EV,
            "e_forces": terms.errors.forces,
            "e_force_constants": terms.errors.force_constants,
            "e_third_order": terms.errors.third_order,
            "e_virial_hartree_per_bohr3": terms.errors.virial,
            **{f"geometry_{name}": value for name, value in terms.geometry.items()},
            **{f"energy_{name}_mev": v * HARTREE_IN_MEV for name, v in terms.energy.items()},
            "advice": terms.advice(),
        }

    @property
    def _first(self) -> tuple[str, ...]:
        """The set of observations that the advice is about."""
        return tuple(self.configuration.fits.observations[0])

    @property
    def _shown(self) -> Path:
        """Relaxed positions of the model that the advice is about."""
        return self.folder / "positions" / "advised.npy"

    @property
    def displacement_error(self) -> Array:
        """Of that model in the large crystal, (n_atoms, 3), bohr; NaN where none was found."""
        return np.load(self._shown) - self.large.relaxed

    def _domain(self, size: float) -> Domain:
        """The training domain of a radius in lattice constants; the last one is kept."""
        if getattr(self, "_last_domain", (None, None))[0] != size:
            options = self.configuration.fits
            radius = size * self.crystal.lattice_constant
            defect = defect_in_ball(
                self.crystal, self.configuration.defect, radius, self.reference.cutoff
            )
            domain = training_domain(
                self.reference,
                defect,
                snapshots=options.snapshots,
                rattle=options.rattle,
                seed=self.configuration.seed,
                amplitude=self.amplitude,
            )
            self._last_domain = (size, domain)
        return self._last_domain[1]

    def _design(self, basis: str, size: float) -> Design:
        """Features of all observations of a domain; the last one is kept."""
        if getattr(self, "_last_design", (None, None))[0] != (basis, size):
            observations = self._domain(size).observations
            if basis == "exact":
                design = Design(GuptaFeatures(self.reference), observations)
            else:
                polynomials = self._polynomials(getattr(self.configuration.fits, basis))
                design = Design(scaled_basis(polynomials, observations), observations)
            self._last_design = ((basis, size), design)
        return self._last_design[1]

    def _polynomials(self, options: BasisOptions) -> DensityPolynomials:
        r = self.reference
        return DensityPolynomials(options.decays, options.degree, r.r0, r.cutoff_start, r.cutoff)

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

    def slopes(self) -> list[Row]:
        """Exponents of the errors against L, beside the theory's."""
        rows = list(self._slopes())
        return self._table("slopes", rows)

    def _slopes(self) -> Iterator[Row]:
        for wrong in ("force constants", "third order"):
            rows = [r for r in self.far_field() if r["wrong"] == wrong]
            for quantity in ("geometry", "formation_energy"):
                yield self._slope(
                    f"wrong {wrong} beyond L", quantity, rows, THEORY[wrong, quantity]
                )
        options = self.configuration.fits
        for basis in ("small", "sufficient"):
            for kinds in map(", ".join, options.observations):
                rows = [
                    r for r in self.fits() if r["basis"] == basis and r["observations"] == kinds
                ]
                yield self._slope(f"{basis} basis, {kinds}", "geometry", rows, None)

    @staticmethod
    def _slope(model: str, quantity: str, rows: Sequence[Row], theory: float | None) -> Row:
        sizes = np.array([r["size_lattice_constants"] for r in rows])
        errors = np.abs([r[quantity] for r in rows])
        good = np.isfinite(errors) & (errors > 0)
        row: Row = {"model": model, "quantity": quantity, "theory": theory}
        if good.sum() < 3:
            return row | {"slope": None, "half_width_95": None}
        found = slope(sizes[good], errors[good])
        return row | {"slope": found.value, "half_width_95": found.half_width}

    def advice(self) -> str:
        """What the first set of observations lacks in the smallest domain, in one paragraph."""
        options = self.configuration.fits
        kinds = ", ".join(self._first)
        row = next(
            r
            for r in self.fits()
            if r["basis"] == "sufficient"
            and r["observations"] == kinds
            and r["size_lattice_constants"] == min(options.sizes)
        )
        size = row["size_lattice_constants"]
        return (
            f"Fitted to {kinds.replace('_', ' ')} in a domain of {size:g} lattice constants. "
            f"{row['advice']}"
        )

    def report(self) -> Path:
        """Write tables and the report page."""
        options = self.configuration
        return write_generalisation_report(
            self.folder / "report.html",
            f"{options.name}: what generalises to a {options.defect}",
            self.advice(),
            self._what_was_run(),
            {
                "slopes": self.slopes(),
                "fits": self.fits(),
                "far_field": self.far_field(),
                "decay": self.decay(),
                "defects": self.defects(),
            },
            self._panels(),
        )

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

    def _panels(self) -> dict[str, tuple[Array, Array, Array]]:
        """Relaxation and its error in a plane: points and arrows (n, 2), angstrom; strains (n,)."""
        defect, a = self.large.defect, self.crystal.lattice_constant
        sites = defect.sites
        plane = (np.abs(sites[:, 2]) < 0.1 * a) & (defect.distances < _SHOWN * a)
        at, panels = sites[plane, :2] * BOHR_IN_ANGSTROM, {}
        error = np.nan_to_num(self.displacement_error)
        for title, moved in (("relaxation", self.large.displacement), ("its error", error)):
            strain = np.sqrt(Strain(defect).squared(moved))
            panels[title] = (at, moved[plane, :2] * BOHR_IN_ANGSTROM, strain[plane])
        return panels

    def _table(self, name: str, rows: list[Row]) -> list[Row]:
        text = io.StringIO()
        columns = list(dict.fromkeys(key for row in rows for key in row))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.folder / "tables" / f"{name}.csv", text.getvalue())
        return rows


def _save(path: Path, array: Array) -> None:
    with path.open("wb") as file:
        np.save(file, array)
