"""Predictions for a file of structures: energies, forces, stress, fields."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from fedens.calculator import Calculator
from fedens.errors import FedensError, ModelError
from fedens.fem.simplex import SimplexSpace
from fedens.fem.tensor import TensorSpace
from fedens.learning.devices import resolve_device
from fedens.models.base import Model
from fedens.models.crystal.model import Predictor
from fedens.models.crystal.prediction import check_route
from fedens.models.functional.model import FunctionalModel
from fedens.models.molecule.model import MolecularModel
from fedens.output.vtk import write_pvd, write_vtu
from fedens.progress import Progress
from fedens.sources.structure_files import read_structures, write_xyz
from fedens.structure import Structure

#: What ASE's own files keep; the rest goes into arrays and numbers beside it.
_ASE_RESULTS = ("energy", "free_energy", "forces", "stress", "dipole")


def predict_file(
    source: Path,
    model: Path,
    target: Path,
    progress: Progress,
    *,
    route: str = "functional",
    refinement_steps: int = 0,
    fields: bool = False,
    uncertainty: bool = False,
    device: str = "auto",
) -> None:
    """Energies, forces and stress of all structures of a file, written as extended XYZ.

    Args:
        source: any file ASE reads. model: model folder. target: file to write.
        route, refinement_steps: see :class:`fedens.calculator.Calculator`; models of molecules
            have neither.
        fields: also a VTU file of the density of each structure, and a PVD, in the folder named
            after ``target``. uncertainty: also estimated errors, and the density's in the fields.

    Raises:
        ModelError: an unknown route, a broken model. StructureError: a bad structure. When one
            structure fails, those before it are written.
    """
    check_route(route)
    predictor = Model.load(model, resolve_device(device))
    structures = read_structures(source)
    folder = target.with_suffix("")
    images: list[Atoms] = []
    entries: list[tuple[float, list[Path]]] = []
    with progress.stage("predictions", len(structures)) as advance:
        for index, structure in enumerate(structures):
            try:
                images.append(
                    _predicted(predictor, structure, route, refinement_steps, uncertainty)
                )
                if fields:
                    path = folder / f"{index:04d}-{structure.formula}.vtu"
                    entries.append(
                        (index, _write_fields(path, predictor, structure, refinement_steps))
                    )
            except FedensError as error:
                write_xyz(target, images)
                raise type(error)(
                    f"structure {index} of {source} ({structure.formula}): {error}; "
                    f"{len(images)} predictions before it are in {target}"
                ) from error
            advance(1)
    write_xyz(target, images)
    progress.say(f"{len(images)} structures in {target} (eV, angstrom)")
    if entries:
        progress.say(f"in ParaView: {write_pvd(folder / 'density.pvd', entries)}")


def _predicted(
    predictor: Model,
    structure: Structure,
    route: str,
    refinement_steps: int,
    uncertainty: bool,
) -> Atoms:
    """ASE atoms that carry all that the route offers."""
    atoms = structure.to_ase()
    calculator = Calculator(predictor, route, refinement_steps=refinement_steps)
    wanted = [
        name
        for name in calculator.implemented_properties
        if (uncertainty or "uncertainty" not in name) and (structure.periodic or name != "stress")
    ]
    calculator.calculate(atoms, wanted)
    known = {k: v for k, v in calculator.results.items() if k in _ASE_RESULTS}
    atoms.calc = SinglePointCalculator(atoms, **known)
    for name in sorted(calculator.results.keys() - known.keys()):
        value = calculator.results[name]
        if getattr(value, "ndim", 0):
            atoms.set_array(name, value)
        else:
            atoms.info[name] = float(value)
    return atoms


def _write_fields(
    path: Path, predictor: Model, structure: Structure, refinement_steps: int
) -> list[Path]:
    """Fields of a crystal on its mesh, of a molecule on tetrahedra of the default sizes."""
    space: TensorSpace | SimplexSpace
    if isinstance(predictor, MolecularModel):
        space, molecule = SimplexSpace.for_structure(structure), predictor.predict(structure)
        fields = molecule.fields(space.points)
        uncertainty = molecule.density_uncertainty(space.points)
    elif isinstance(predictor, FunctionalModel):
        solved = predictor.predict(structure)
        space = cast(TensorSpace, solved.density.space)
        fields, uncertainty = solved.fields, solved.density_uncertainty
    elif isinstance(predictor, Predictor):
        prediction = predictor.predict(structure, refinement_steps=refinement_steps)
        space = cast(TensorSpace, prediction.density.space)
        fields, uncertainty = {"density": prediction.density.values}, prediction.density_uncertainty
    else:
        raise ModelError(
            f"a model of the kind {predictor.kind!r} gives no fields of a mesh; leave out --fields"
        )
    if uncertainty is not None:
        fields["density_uncertainty"] = uncertainty
    return write_vtu(path, space, fields, structure)
