"""fedens: learning electron densities and energy densities on finite-element meshes.

The public names below are loaded when first used, so that ``import fedens`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version as _version
from typing import Any

__version__ = _version("fedens")

_PUBLIC = {
    "Structure": "fedens.structure",
    "TensorSpace": "fedens.fem.tensor",
    "SimplexSpace": "fedens.fem.simplex",
    "Density": "fedens.data.density",
    "EnergyFunctional": "fedens.energy.functional",
    "LearnedKinetic": "fedens.energy.learned_kinetic",
    "GTH": "fedens.energy.gth",
    "GTHLocal": "fedens.energy.gth",
    "AllElectron": "fedens.energy.pseudopotential",
    "EvanescentCore": "fedens.energy.pseudopotential",
    "GoodwinNeedsHeine": "fedens.energy.tabulated",
    "Recpot": "fedens.energy.tabulated",
    "KohnSham": "fedens.energy.kohn_sham",
    "solve_kohn_sham": "fedens.reference.kohn_sham.solver",
    "default_cutoff": "fedens.reference.kohn_sham.cutoffs",
    "space_for_cutoff": "fedens.fem.modes",
    "KohnShamState": "fedens.reference.kohn_sham.state",
    "solve_ground_state": "fedens.reference.orbital_free",
    "GroundState": "fedens.reference.orbital_free",
    "KPoints": "fedens.reference.kohn_sham.kpoints",
    "Smearing": "fedens.reference.kohn_sham.smearing",
    "monkhorst_pack": "fedens.reference.kohn_sham.kpoints",
    "kohn_sham": "fedens.reference.pyscf.kohn_sham",
    "solve_with_pyscf": "fedens.reference.pyscf.kohn_sham",
    "free_atoms": "fedens.reference.pyscf.free_atoms",
    "harris": "fedens.reference.pyscf.harris",
    "conformers": "fedens.sources.conformers",
    "energy_from_fields": "fedens.atoms.energy_from_fields",
    "Sample": "fedens.data.sample",
    "Bands": "fedens.data.bands",
    "Dataset": "fedens.data.dataset",
    "GMP": "fedens.features.gmp",
    "LODE": "fedens.features.lode",
    "PowerSpectrum": "fedens.features.spectrum",
    "ResponseFields": "fedens.features.response",
    "Concatenation": "fedens.features.descriptor",
    "reference_points": "fedens.features.points",
    "PointSet": "fedens.features.points",
    "train": "fedens.models.crystal.training",
    "TrainingSettings": "fedens.models.crystal.objective",
    "Predictor": "fedens.models.crystal.model",
    "train_energy_model": "fedens.models.points.training",
    "EnergyTrainingSettings": "fedens.models.points.objective",
    "EnergyModel": "fedens.models.points.model",
    "FunctionalModel": "fedens.models.functional.model",
    "CorrectionSettings": "fedens.models.functional.correction",
    "train_correction": "fedens.models.functional.correction",
    "GroundStateBaseline": "fedens.reference.baseline",
    "train_molecules": "fedens.models.molecule.training",
    "MolecularTrainingSettings": "fedens.models.molecule.training",
    "MolecularModel": "fedens.models.molecule.model",
    "Calculator": "fedens.calculator",
    "write_vtu": "fedens.output.vtk",
    "write_pvd": "fedens.output.vtk",
    "write_cube": "fedens.output.cube",
    "write_chgcar": "fedens.output.chgcar",
    "read_density": "fedens.reference.volumetric",
}

__all__ = sorted([*_PUBLIC, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fedens' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
