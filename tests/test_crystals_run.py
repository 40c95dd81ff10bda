"""The main job on a small scale, through the command line as a user calls it."""

import json
import re
from functools import partial

import numpy as np
import pytest
import pyvista
import torch
import yaml
from ase.build import bulk
from ase.io import write
from typer.testing import CliRunner

from fedens import Dataset, Predictor
from fedens.commands.cli import app
from fedens.commands.export import export
from fedens.commands.info import describe_path
from fedens.commands.predict import predict_file
from fedens.errors import (
    ConfigurationError,
    DatasetError,
    DescriptorError,
    FedensError,
    ModelError,
)
from fedens.fem.axis import Axis
from fedens.jobs.registry import load_job, open_run
from fedens.jobs.rounds import RoundsRun
from fedens.progress import Progress
from fedens.reference.orbital_free import OrbitalFreeLabeller
from fedens.structure import Structure

SMALL = {
    "structures": {"supercell": [1, 1, 1], "count": 5, "displacement": [0.05, 0.2]},
    "space": {"spacing": 0.55, "order": 5},
    "training": {
        "train_count": 3,
        "network": {"hidden": [16], "committee": 1},
        "descriptors": {"gmp": {"widths": [1.0, 2.0], "max_order": 2}},
        "steps": 100,
        "batch_points": 2000,
        "learning_curve": [1, 2],
    },
}


def configured(folder, **changes):
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes))
    return path


def run_of(folder, **changes) -> RoundsRun:
    return open_run(load_job(configured(folder, **changes)), folder / "out", QUIET)


_LABEL = OrbitalFreeLabeller.__call__


def with_labeller(monkeypatch, label):
    """Runs call ``label(labeller, structure)`` instead of their labeller."""

    def called(self, structure, *_):
        return label(partial(_LABEL, self), structure)

    monkeypatch.setattr(OrbitalFreeLabeller, "__call__", called)


QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, training_seed):
    folder = tmp_path_factory.mktemp("run")
    path = configured(folder, seed=training_seed)
    arguments = ["run", str(path), "--output", str(folder / "out")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return folder / "out", result.output


def test_run_leaves_everything_behind(finished):
    folder, output = finished
    for name in ("config.yaml", "metrics.json", "report.html", "fields/held_out.pvd"):
        assert (folder / name).stat().st_size > 100
    assert len(Dataset.open(folder / "data")) == 5
    assert sorted(p.suffix for p in (folder / "fields").iterdir()) == [
        ".pvd",
        *[".vtp"] * 2,
        *[".vtu"] * 2,
    ]
    assert "meV/atom" in output
    assert "report.html" in output.replace("\n", "")


def test_metrics_carry_units_and_make_sense(finished, bounded):
    folder, _ = finished
    metrics = json.loads((folder / "metrics.json").read_text())
    units = r"_(percent|e_bohr|mev_per_atom|mev_per_angstrom)$"
    assert all(re.search(units, name) for name in metrics["held_out"])
    assert len(metrics["held_out_structures"]) == 2
    assert not set(metrics["held_out_structures"]) & set(metrics["training_structures"])
    summary = metrics["held_out"]
    assert min(numbers["mean"] for numbers in summary.values()) >= 0
    bounded("NMAPE (%)", summary["nmape_percent"]["mean"], 0.22)
    energy_error = summary["energy_error_functional_mev_per_atom"]["max"]
    bounded("largest energy error (meV/atom)", energy_error, 0.32)
    assert [row["structures"] for row in metrics["learning_curve"]] == [1, 2, 3]
    each = [m["nmape_percent"] for m in metrics["per_structure"].values()]
    assert summary["nmape_percent"]["mean"] == pytest.approx(np.mean(each))


def test_report_shows_the_numbers_of_the_metrics(finished):
    folder, _ = finished
    page = (folder / "report.html").read_text()
    nmape = json.loads((folder / "metrics.json").read_text())["held_out"]["nmape_percent"]["mean"]
    assert f"{nmape:.4g}" in page
    assert page.count("data:image/png") == 9
    assert "://" not in page  # pictures in base64 have no colon


def test_density_in_the_file_integrates_to_the_electrons(finished):
    folder, _ = finished
    for path in (folder / "fields").glob("*.vtu"):
        mesh = pyvista.read(path)
        electrons = 3 * int(re.search(r"Al(\d*)$", path.stem)[1])
        integrals = mesh.integrate_data()
        for which in ("reference", "predicted"):
            total = integrals[f"density_{which} [electron/angstrom^3]"][0]
            assert total == pytest.approx(electrons, rel=5e-3)


def test_series_opens_with_atoms(finished):
    folder, _ = finished
    reader = pyvista.get_reader(folder / "fields" / "held_out.pvd")
    assert len(reader.time_values) == 2
    cells, atoms = reader.read()
    assert "density_error [electron/angstrom^3]" in cells.point_data
    assert "forces_functional [eV/angstrom]" in atoms.point_data


@pytest.mark.slow
def test_second_run_repeats_neither_data_nor_training(finished):
    folder, _ = finished
    files = [*(folder / "data").glob("*.h5"), folder / "model" / "weights.safetensors"]
    before = [file.stat().st_mtime_ns for file in files]
    metrics = json.loads((folder / "metrics.json").read_text())["held_out"]
    config = folder.parent / "small.yaml"
    result = CliRunner().invoke(app, ["run", str(config), "-o", str(folder), "-q"])
    assert result.exit_code == 0
    assert [file.stat().st_mtime_ns for file in files] == before
    assert json.loads((folder / "metrics.json").read_text())["held_out"] == metrics


def test_killed_generation_goes_on(tmp_path, monkeypatch):
    labelled = []

    def killed_at_third(labeller, structure):
        if len(labelled) == 2:
            raise KeyboardInterrupt
        labelled.append(structure.formula)
        return labeller(structure)

    def counted(labeller, structure):
        labelled.append(structure.formula)
        return labeller(structure)

    with_labeller(monkeypatch, killed_at_third)
    with pytest.raises(KeyboardInterrupt):
        run_of(tmp_path).generate()
    assert len(run_of(tmp_path).data) == 2
    with_labeller(monkeypatch, counted)
    run_of(tmp_path).generate()
    assert len(labelled) == 5
    assert len(run_of(tmp_path).data) == 5


def test_a_replaced_structure_file_is_noticed(tmp_path, monkeypatch):
    """The same formulas at other positions are labelled again, what is gone is removed."""
    labelled = []

    def counted(labeller, structure):
        labelled.append(structure)
        return labeller(structure)

    with_labeller(monkeypatch, counted)
    cells = [bulk("Al", "fcc", a=4.05, cubic=True) for _ in range(4)]
    for seed, cell in enumerate(cells):
        cell.rattle(0.05, seed=seed)
    write(tmp_path / "cells.xyz", cells)
    run_of(tmp_path, structures={"file": "cells.xyz"}).generate()
    assert len(labelled) == 4
    cells[1].positions[2, 0] += 0.01
    write(tmp_path / "cells.xyz", cells[:3])
    run = run_of(tmp_path, structures={"file": "cells.xyz"})
    run.generate()
    assert len(labelled) == 5
    assert run.data.names == ["0000-Al4", "0001-Al4", "0002-Al4"]
    for number, cell in enumerate(cells[:3]):
        stored = run.data[number].structure.positions
        np.testing.assert_allclose(stored, Structure.from_ase(cell).positions, atol=1e-7)


def test_the_functional_is_the_configurations(tmp_path):
    run = run_of(tmp_path, functional={"kinetic": "lkt", "temperature": 0.01})
    names = [term.name for term in run.functional.terms]
    assert names[:3] == ["luo_karasiev_trickey", "von_weizsaecker", "thermal_thomas_fermi"]
    assert run.labelling["functional"]["temperature"] == 0.01


def test_labelling_is_a_pure_function(finished):
    folder, _ = finished
    run = open_run(load_job(folder / "config.yaml"), folder, QUIET)
    stored = run.data[0]
    again = run.labeller(stored.structure)
    assert again.energy == pytest.approx(stored.energy, abs=1e-9)
    np.testing.assert_allclose(again.fields["density"], stored.fields["density"], atol=1e-9)


def test_unconverged_structures_stay_out(tmp_path):
    run = run_of(tmp_path, solver={"max_evaluations": 2})
    failed = run.generate()
    assert len(failed) == 5
    assert "not converged" in next(iter(failed.values()))
    assert len(run.data) == 0
    assert run.failures == failed
    with pytest.raises(DatasetError, match="holds 0 samples"):
        run.train()


def test_folder_of_another_configuration_is_refused(finished, tmp_path):
    folder, _ = finished
    other = configured(tmp_path, seed=5)
    with pytest.raises(ConfigurationError, match=r"\(seed differs\).*--output"):
        open_run(load_job(other), folder, QUIET)


@pytest.mark.slow
def test_isolated_structures_from_a_file(tmp_path, training_seed, bounded):
    from ase import Atoms
    from ase.io import write

    bonds = (2.5, 2.6, 2.7, 2.8)
    dimers = [Atoms("Al2", [[0, 0, 0], [0.3, 0.2, bond]]) for bond in bonds]
    write(tmp_path / "dimers.xyz", dimers)
    gmp_only = {
        "response_fields": False,
        "gmp": SMALL["training"]["descriptors"]["gmp"],
    }
    training = SMALL["training"] | {"learning_curve": [], "steps": 50}
    others = {
        "structures": {"file": "dimers.xyz"},
        "functional": {"kinetic": "tfvw"},
        "space": {"spacing": 0.7, "order": 6},
        "seed": training_seed,
    }
    run = run_of(tmp_path, training=training | {"descriptors": gmp_only}, **others)
    assert run.generate() == {}
    predictor = run.train()
    run.evaluate()
    metrics = json.loads((run.folder / "metrics.json").read_text())
    bounded("NMAPE (%)", metrics["held_out"]["nmape_percent"]["max"], 5)
    assert (run.folder / "report.html").exists()
    assert predictor.spacing == pytest.approx(0.7)
    with_response = run_of(tmp_path, training=training, **others)
    with pytest.raises(DescriptorError, match="periodic TensorSpace"):
        with_response.train()


def test_predict_writes_energies_and_forces(finished, tmp_path, bounded):
    from ase.io import read, write

    folder, _ = finished
    sample = Dataset.open(folder / "data")[0]
    write(tmp_path / "in.xyz", sample.structure.to_ase())
    arguments = ["predict", str(tmp_path / "in.xyz"), "--model", str(folder / "model")]
    arguments += ["--out", str(tmp_path / "out.xyz"), "--fields", "--uncertainty"]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    atoms = read(tmp_path / "out.xyz")
    from ase.units import Bohr, Hartree

    energy_error = abs(atoms.get_potential_energy() - sample.energy * Hartree)
    bounded("energy (eV)", energy_error, 2e-3)
    expected = sample.forces * Hartree / Bohr
    bounded("forces (eV/angstrom)", np.abs(atoms.get_forces() - expected).mean(), 1e-3)
    assert atoms.get_stress().shape == (6,)
    assert atoms.info["energy_uncertainty"] > 0
    bounded("uncertainty of the energy (eV)", atoms.info["energy_uncertainty"], 2e-3)
    assert atoms.arrays["hellmann_feynman_forces"].shape == (len(atoms), 3)
    assert [p.suffix for p in sorted((tmp_path / "out").iterdir())].count(".pvd") == 1
    with pytest.raises(ModelError, match="functional, energy_density"):
        predict_file(
            tmp_path / "in.xyz", folder / "model", tmp_path / "o.xyz", QUIET, route="magic"
        )


@pytest.mark.filterwarnings("ignore::fedens.errors.ExtrapolationWarning")
def test_predictions_before_a_failure_are_kept(finished, tmp_path):
    """The second structure has an element without a pseudopotential."""
    from ase.io import read, write

    folder, _ = finished
    good = Dataset.open(folder / "data")[0].structure.to_ase()
    bad = good.copy()
    bad.symbols[1] = "Mg"
    write(tmp_path / "in.xyz", [good, bad])
    with pytest.raises(FedensError, match=r"structure 1 of .*1 predictions before it"):
        predict_file(tmp_path / "in.xyz", folder / "model", tmp_path / "out.xyz", QUIET)
    assert len(read(tmp_path / "out.xyz", ":")) == 1


def test_export_and_info(finished, tmp_path):
    folder, _ = finished
    sample = next((folder / "data").glob("*.h5"))
    assert export(sample, tmp_path / "a.vtu")[0].exists()
    assert export(sample, tmp_path / "a.cube")[0].exists()
    with pytest.raises(FedensError, match=r"\.vtu or \.cube"):
        export(sample, tmp_path / "a.txt")
    assert describe_path(folder / "data")["samples"] == 5
    assert describe_path(folder / "model")["trained on"] == "3 structures"
    assert "hartree" in describe_path(sample)["energy"]
    with pytest.raises(FedensError, match="neither"):
        describe_path(tmp_path / "a.vtu")
    assert CliRunner().invoke(app, ["info", str(sample)]).exit_code == 0


def test_help_teaches():
    text = CliRunner().invoke(app, ["--help"]).output
    assert "fedens run examples/aluminium.yaml" in re.sub(r"\s+", " ", text)
    steps = ("run", "generate", "train", "evaluate")
    commands = (*steps, "check-kpoints", "import", "predict", "export", "info")
    for command in commands:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_errors_are_messages_not_tracebacks(tmp_path, monkeypatch, capsys):
    from fedens.commands.cli import main

    path = tmp_path / "bad.yaml"
    path.write_text("training:\n  stepps: 3\n")
    monkeypatch.setattr("sys.argv", ["fedens", "run", str(path)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    message = capsys.readouterr().err
    assert "line 2" in message
    assert "did you mean 'steps'" in re.sub(r"\s+", " ", message)
    assert "Traceback" not in message


def test_missing_device_is_an_error(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(FedensError, match="no GPU"):
        run_of(tmp_path, device="cuda")


def test_predictor_of_a_run_knows_its_resolution(finished):
    folder, _ = finished
    predictor = Predictor.load(folder / "model")
    space = predictor.space_for(Dataset.open(folder / "data")[0].structure)
    assert space.order == 5
    assert all(isinstance(axis, Axis) for axis in space.axes)
