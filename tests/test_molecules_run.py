"""The job ``molecules`` in small: from the command line to files, report and honest errors."""

import json
from pathlib import Path

import molecules
import numpy as np
import pytest
import pyvista
import yaml
from ase.io import read, write
from typer.testing import CliRunner

from fedens.commands.cli import app
from fedens.configuration import MoleculesConfiguration
from fedens.data.dataset import Dataset
from fedens.errors import (
    ConfigurationError,
    ConvergenceError,
    DatasetError,
    DeviceError,
    StructureError,
)
from fedens.jobs import molecules as molecules_run
from fedens.jobs.molecules import MoleculesRun
from fedens.jobs.registry import load_job, open_run
from fedens.models.molecule.model import MolecularModel
from fedens.progress import Progress
from fedens.reference.pyscf import kohn_sham as reference
from fedens.structure import Structure
from fedens.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV

EXAMPLE = Path(__file__).parents[1] / "examples" / "water.yaml"
#: The example with a small basis, a coarse mesh, few cold molecules and few steps.
SMALL = {
    "molecules": {"water": {"molecule": "H2O", "temperature": 150, "train": 8, "test": 3}},
    "theory": {"basis": "sto-3g", "grid_level": 1, "conv_tol": 1e-9},
    "space": {"finest": 0.7},
    "training": {
        "steps": 250,
        "energy_steps": 250,
        "points": 3000,
        "channels": 8,
        "hidden": 16,
        "learning_rate": 4e-3,
    },
    "evaluation": {"scf": 1, "fields": 1},
    "learning_curve": [2],
}
#: Hardly any training at all, for tests of what is done and not of how well.
BRIEF = {
    **SMALL,
    "training": {"committee": 1, "steps": 2, "energy_steps": 2, "points": 3000, "channels": 4},
    "evaluation": {"scf": 0, "fields": 0},
    "learning_curve": [],
}
QUIET = Progress(quiet=True)


def configured(folder, changes):
    """The example's file with some keys changed."""
    values = yaml.safe_load(EXAMPLE.read_text())
    for key, value in changes.items():
        merges = isinstance(value, dict) and key != "molecules"
        values[key] = values.get(key, {}) | value if merges else value
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def from_file(tmp_path):
    """Configuration of a brief run on the molecules of a file."""

    def made(structures=None, **options):
        structures = structures or [molecules.rattled(molecules.WATER, i) for i in range(4)]
        write(tmp_path / "molecules.xyz", [one.to_ase() for one in structures], format="extxyz")
        group = {"file": str(tmp_path / "molecules.xyz"), "train": 2, "test": 1} | options
        return load_job(configured(tmp_path, BRIEF | {"molecules": {"water": group}}))

    return made


@pytest.fixture
def labelled(monkeypatch):
    """The structures of which Kohn-Sham calculations were made."""
    made, calculate = [], reference.kohn_sham

    def counted(structure, *arguments, **settings):
        made.append(structure)
        return calculate(structure, *arguments, **settings)

    monkeypatch.setattr(reference, "kohn_sham", counted)
    return made


def run(configuration, folder):
    """What ``fedens run`` does."""
    with open_run(configuration, folder, QUIET) as job:
        job.do()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, training_seed):
    folder = tmp_path_factory.mktemp("molecules")
    path = configured(folder, SMALL | {"seed": training_seed})
    arguments = ["run", str(path), "--output", str(folder / "out")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return folder / "out", result.output, arguments


def results_of(folder):
    return json.loads((folder / "results.json").read_text())["molecules"]


@pytest.mark.slow
def test_run_leaves_everything_behind(finished):
    folder, output, _ = finished
    promised = ["config.yaml", "structures.xyz", "results.json", "report.html", "predicted.xyz"]
    for name in (*promised, "fields/held_out.pvd", "model/model.json"):
        assert (folder / name).stat().st_size > 100
    names = [f"water-{i:04d}" for i in range(11)]
    assert sorted(Dataset.open(folder / "data").index) == names
    assert [image.info["name"] for image in read(folder / "structures.xyz", ":")] == names
    assert isinstance(load_job(folder / "config.yaml"), MoleculesConfiguration)
    assert "3 held-out molecules" in output
    assert "report.html" in output.replace("\n", "")


@pytest.mark.slow
def test_errors_are_small_for_held_out_molecules(finished, bounded):
    folder, _, _ = finished
    results = results_of(folder)
    assert [one["name"] for one in results] == ["water-0008", "water-0009", "water-0010"]
    mean = {
        name: np.mean([abs(one["numbers"][name]) for one in results])
        for name in results[1]["numbers"]
        if all(name in one["numbers"] for one in results)
    }
    assert mean["nmape_superposed_atoms_percent"] > 9
    atoms = mean["nmape_superposed_atoms_percent"]
    bounded("NMAPE over superposed atoms'", mean["nmape_percent"] / atoms, 0.22)
    limits = {
        "kinetic_difference_error_percent": 28,
        "xc_difference_error_percent": 21,
        "charge_error_by_quadrature_e": 2.4e-4,
        "dipole_error_debye": 0.15,
        "energy_error_kcal_per_mol": 4.1,
    }
    for name, limit in limits.items():
        bounded(name, mean[name], limit)
    spread = mean["force_rms_reference_kcal_per_mol_angstrom"]
    bounded("forces over their spread", mean["force_mae_kcal_per_mol_angstrom"] / spread, 0.89)
    first = results[0]["numbers"]
    name = "energy_error_harris_kcal_per_mol"
    bounded(name, abs(first[name]), 0.72)
    cycles = first["cycles_from_prediction"] / first["cycles_from_minao"]
    bounded("cycles over PySCF's", cycles, 1.2)
    assert not any(name.startswith("cycles") for name in results[1]["numbers"])


@pytest.mark.slow
def test_report_shows_the_numbers(finished):
    folder, output, _ = finished
    page = (folder / "report.html").read_text()
    nmape = np.mean([one["numbers"]["nmape_percent"] for one in results_of(folder)])
    assert f"{nmape:.4g}" in page
    assert f"{nmape:.3g}" in output
    assert "Learning curve" in page
    assert "://" not in page  # pictures in base64 have no colon


@pytest.mark.slow
def test_fields_open_in_paraview_and_hold_ten_electrons(finished):
    folder, _, _ = finished
    cells, atoms = pyvista.get_reader(folder / "fields" / "held_out.pvd").read()
    integrals = cells.integrate_data()
    for name in ("density", "density_predicted"):
        # values at corners, from quadrature points of a coarse mesh
        total = integrals[f"{name} [electron/angstrom^3]"][0]
        assert total == pytest.approx(10, rel=0.05)
    assert "density_uncertainty [electron/angstrom^3]" in cells.point_data
    for name in ("density", "kinetic", "xc"):
        assert any(key.startswith(f"{name}_error") for key in cells.point_data)
    assert atoms.n_points == 3
    assert any(key.startswith("forces") for key in atoms.point_data)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::fedens.errors.ExtrapolationWarning")
def test_predictions_are_the_models_in_ases_units(finished):
    folder, _, _ = finished
    model = MolecularModel.load(folder / "model")
    images = read(folder / "predicted.xyz", ":")
    assert sorted(image.info["name"] for image in images) == [
        one["name"] for one in results_of(folder)
    ]
    for image in images:
        structure = Structure.from_ase(image)
        found = model.energy_and_forces(structure)
        energy, forces = found.energy, found.forces
        assert image.get_potential_energy() == pytest.approx(energy * HARTREE_IN_EV, abs=1e-5)
        expected = forces * HARTREE_IN_EV / BOHR_IN_ANGSTROM
        np.testing.assert_allclose(image.get_forces(), expected, atol=1e-5)
        dipole = model.predict(structure).dipole * BOHR_IN_ANGSTROM
        np.testing.assert_allclose(image.get_dipole_moment(), dipole, atol=1e-5)


@pytest.mark.slow
def test_second_run_repeats_neither_data_nor_training(finished, monkeypatch):
    folder, _, arguments = finished
    before = results_of(folder)

    def refuse(*_, **__):
        raise AssertionError("done again")

    monkeypatch.setattr(reference, "kohn_sham", refuse)
    for name in ("relaxed", "normal_modes"):
        monkeypatch.setattr(molecules_run, name, refuse)
    files = [*(folder / "data").glob("*.h5"), folder / "model" / "weights.safetensors"]
    times = [file.stat().st_mtime_ns for file in files]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "model is already trained" in result.output.replace("\n", " ")
    assert [file.stat().st_mtime_ns for file in files] == times
    assert results_of(folder) == before
    for step in ("generate", "train", "evaluate"):
        assert CliRunner().invoke(app, [step, *arguments[1:]]).exit_code == 0
    assert [file.stat().st_mtime_ns for file in files] == times


@pytest.mark.slow
def test_data_of_another_theory_are_refused(finished):
    folder, _, _ = finished
    path = folder.parent / "small.yaml"
    other = yaml.safe_load(path.read_text())
    for section, change in (("theory", {"xc": "lda_pz"}), ("space", {"finest": 0.6})):
        configuration = MoleculesConfiguration.model_validate(
            other | {section: other[section] | change}
        )
        with pytest.raises(ConfigurationError, match=rf"\({section} differs\): choose another"):
            MoleculesRun.open(configuration, folder, QUIET)
    # training may change
    training = other | {"training": other["training"] | {"steps": 3}}
    kept = (folder / "config.yaml").read_text()
    MoleculesRun.open(MoleculesConfiguration.model_validate(training), folder, QUIET)
    (folder / "config.yaml").write_text(kept)


def test_structures_of_a_file_are_drawn_in_random_order(from_file, tmp_path):
    structures = [molecules.rattled(molecules.WATER, i) for i in range(8)]
    job = MoleculesRun.open(from_file(structures, train=3, test=2), tmp_path / "out", QUIET)
    found = list(job.structures.values())
    places = [
        next(i for i, s in enumerate(structures) if np.allclose(s.positions, one.positions))
        for one in found
    ]
    assert len(set(places)) == 5
    assert places != sorted(places)
    again = MoleculesRun.open(job.configuration, tmp_path / "again", QUIET)
    for one, same in zip(found, again.structures.values(), strict=True):
        np.testing.assert_allclose(one.positions, same.positions, atol=1e-7)


def test_a_replaced_file_is_noticed(from_file, tmp_path, labelled):
    structures = [molecules.rattled(molecules.WATER, i) for i in range(4)]
    job = open_run(from_file(structures), tmp_path / "out", QUIET)
    job.generate()
    drawn = job.structures["water-0001"].positions
    place = next(i for i, s in enumerate(structures) if np.allclose(s.positions, drawn))
    structures[place] = molecules.rattled(molecules.WATER, 9)
    job = open_run(from_file(structures), tmp_path / "out", QUIET)
    job.generate()
    assert len(labelled) == 3 + 1
    stored = job.data["water-0001"].structure.positions
    np.testing.assert_allclose(stored, structures[place].positions, atol=1e-7)


def test_charge_and_spin_of_a_file_are_kept(from_file, tmp_path):
    made = [Structure(["O", "H"], [[0, 0, 0], [0, 0, 1.8 + i / 10]], charge=-1) for i in range(3)]
    job = MoleculesRun.open(from_file(made), tmp_path / "out", QUIET)
    assert [one.charge for one in job.structures.values()] == [-1, -1, -1]


@pytest.mark.parametrize("group", ["1e", "a-1", "T", "0001"])
def test_molecules_of_any_name(from_file, tmp_path, group):
    options = from_file().molecules["water"]
    configuration = from_file().model_copy(update={"molecules": {group: options}})
    job = MoleculesRun.open(configuration, tmp_path / "out", QUIET)
    assert list(job.structures) == [f"{group}-{i:04d}" for i in range(3)]


@pytest.mark.slow
def test_run_on_a_file_goes_on_where_it_was_killed(from_file, tmp_path, labelled, monkeypatch):
    configuration, folder = from_file(), tmp_path / "out"
    label = reference.kohn_sham

    def killed(*arguments, **settings):
        if len(labelled) == 2:
            raise KeyboardInterrupt
        return label(*arguments, **settings)

    monkeypatch.setattr(reference, "kohn_sham", killed)
    with pytest.raises(KeyboardInterrupt):
        run(configuration, folder)
    assert len(Dataset.open(folder / "data")) == 2
    assert not (folder / "model").exists()
    monkeypatch.setattr(reference, "kohn_sham", label)
    run(configuration, folder)
    assert len(labelled) == 3
    assert len(results_of(folder)) == 1
    assert len({one.positions.tobytes() for one in labelled}) == 3


@pytest.mark.slow
def test_calculations_that_do_not_converge_are_left_out(from_file, tmp_path, labelled, monkeypatch):
    configuration, folder = from_file(), tmp_path / "out"
    label, failing = reference.kohn_sham, [1]

    def unconverged(structure, *arguments, **settings):
        sample = label(structure, *arguments, **settings)
        if len(labelled) in failing:
            raise ConvergenceError("no self-consistent field", sample)
        return sample

    monkeypatch.setattr(reference, "kohn_sham", unconverged)
    run(configuration, folder)
    assert sorted(Dataset.open(folder / "data").index) == ["water-0001", "water-0002"]
    assert MolecularModel.load(folder / "model").provenance["n_samples"] == 1
    failing[:] = range(100)
    with pytest.raises(DatasetError, match=r"lacks water-0000, water-0001, water-0002: too few"):
        run(configuration, tmp_path / "none")


def test_too_few_structures_in_a_file(from_file, tmp_path):
    job = MoleculesRun.open(from_file(train=20, index="1:"), tmp_path / "out", QUIET)
    with pytest.raises(
        ConfigurationError,
        match=r"molecules\.water: train and test ask for 21 structures, .*has 3 at index '1:'",
    ):
        _ = job.structures


def test_molecule_that_is_in_no_collection(tmp_path):
    group = {"nectar": {"molecule": "C99", "train": 1, "test": 1}}
    configuration = load_job(configured(tmp_path, BRIEF | {"molecules": group}))
    job = MoleculesRun.open(configuration, tmp_path / "out", QUIET)
    with pytest.raises(StructureError, match=r"molecules\.nectar: .* no molecule 'C99'; use a na"):
        _ = job.structures


def test_number_of_structures_may_not_change_with_data_there(from_file, tmp_path):
    MoleculesRun.open(from_file(), tmp_path / "out", QUIET)
    with pytest.raises(ConfigurationError, match=r"\(molecules differs\)"):
        MoleculesRun.open(from_file(train=3), tmp_path / "out", QUIET)


def test_the_first_of_every_molecule_comes_first():
    names = ["water-0012", "water-0013", "ethanol-0000", "ethanol-0001", "ethanol-0002"]
    expected = ["water-0012", "ethanol-0000", "water-0013", "ethanol-0001", "ethanol-0002"]
    assert molecules_run._spread(names) == expected


def test_a_gpu_is_refused_rather_than_ignored(tmp_path):
    wanted = load_job(configured(tmp_path, {"device": "cuda"}))
    with pytest.raises(DeviceError, match="use auto or cpu"):
        MoleculesRun.open(wanted, tmp_path / "run", QUIET)
