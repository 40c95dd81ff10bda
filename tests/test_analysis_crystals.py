"""Errors and uncertainties of held-out structures, from a small run with a committee."""

import json
from dataclasses import replace

import numpy as np
import pytest
import pyvista
import torch
from ase.units import Bohr, Hartree
from systems import GTHFIT
from test_crystals_run import SMALL, run_of

from fedens import EnergyFunctional
from fedens.analysis.crystals import evaluate_sample
from fedens.analysis.evaluation import Evaluation, summarise
from fedens.analysis.uncertainty import agreement, uncertainty_pairs
from fedens.atoms.baseline import LinearResponse
from fedens.report.sections import summary_table
from fedens.units import HARTREE_IN_MEV, HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM

#: The handful of cells that the model is trained on leaves most others outside.
pytestmark = pytest.mark.filterwarnings("ignore::fedens.errors.ExtrapolationWarning")

COMMITTEE = SMALL["training"] | {
    "network": {"hidden": [16], "committee": 2},
    "learning_curve": [],
}
#: Numbers that need a committee.
OF_COMMITTEE = {
    "density_uncertainty_percent",
    "energy_uncertainty_energy_density_mev_per_atom",
    "force_uncertainty_hellmann_feynman_mev_per_angstrom",
}
#: Numbers that need the forces after a minimisation step.
OF_STEP = {
    "energy_error_functional_one_step_mev_per_atom",
    "force_mae_functional_one_step_mev_per_angstrom",
    "force_uncertainty_functional_mev_per_angstrom",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, training_seed):
    folder = tmp_path_factory.mktemp("committee")
    return run_of(folder, training=COMMITTEE, seed=training_seed)


@pytest.fixture(scope="module")
def predictor(run):
    run.generate()
    return run.train()


@pytest.fixture(scope="module")
def evaluations(run, predictor):
    run.evaluate()
    return [evaluate_sample(predictor, run.data[name], name)[0] for name in run.split[1]]


@pytest.mark.slow
def test_uncertainties_are_what_the_model_says(run, predictor, evaluations):
    for evaluation in evaluations:
        sample, errors = run.data[evaluation.name], evaluation.numbers
        space, per_atom = sample.space(), HARTREE_IN_MEV / len(evaluation.symbols)
        with torch.no_grad():
            prediction = predictor.predict(sample.structure, space)
        share = space.integrate(prediction.density_uncertainty) / space.integrate(
            prediction.density.values
        )
        assert errors["density_uncertainty_percent"] == pytest.approx(100 * float(share))
        outside = errors["points_outside_training_percent"]
        assert outside * space.n_points / 100 == pytest.approx(prediction.points_outside)
        for route in ("functional", "hellmann_feynman"):
            expected = predictor.uncertainty(sample.structure, route, space).forces
            np.testing.assert_allclose(evaluation.force_uncertainties[route], expected, atol=1e-8)
            mean = expected.mean() * HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM
            found = errors[f"force_uncertainty_{route}_mev_per_angstrom"]
            assert found == pytest.approx(mean, rel=1e-4)
        for route in ("functional", "energy_density"):
            expected = predictor.uncertainty(sample.structure, route, space).energy * per_atom
            found = errors[f"energy_uncertainty_{route}_mev_per_atom"]
            assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_errors_after_one_step_are_those_of_a_refined_prediction(
    run, predictor, evaluations, bounded
):
    for evaluation in evaluations:
        sample, errors = run.data[evaluation.name], evaluation.numbers
        energy = predictor.energy(sample.structure, space=sample.space(), refinement_steps=1)
        expected = (energy - sample.energy) * HARTREE_IN_MEV / len(evaluation.symbols)
        found = errors["energy_error_functional_one_step_mev_per_atom"]
        assert found == pytest.approx(expected, abs=1e-4)
        without = errors["energy_error_functional_mev_per_atom"]
        bounded("energy error, after over before", abs(found / without), 0.32)
        before, after = (
            errors[f"force_mae_functional{step}_mev_per_angstrom"] for step in ("", "_one_step")
        )
        bounded("force error, after over before", after / before, 0.85)


@pytest.mark.slow
def test_functional_uncertainty_tells_the_error(evaluations, bounded):
    pairs = uncertainty_pairs(evaluations)
    energies = agreement(*pairs["energy_uncertainty_functional_mev_per_atom"])
    bounded("relative error of the energy's", abs(energies["error_over_uncertainty"] - 1), 0.27)
    forces = agreement(*pairs["force_uncertainty_functional_mev_per_angstrom"])
    bounded("1 - correlation of the forces'", 1 - forces["correlation"], 0.35)
    assert len(pairs["force_uncertainty_functional_mev_per_angstrom"][0]) == 3 * sum(
        len(e.symbols) for e in evaluations
    )


@pytest.mark.slow
@pytest.mark.usefixtures("evaluations")
def test_metrics_report_and_fields_show_the_uncertainties(run):
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert set(metrics["held_out"]) >= OF_COMMITTEE | OF_STEP
    assert set(metrics["uncertainties"]) == {
        "density_percent",
        "energy_functional_mev_per_atom",
        "energy_energy_density_mev_per_atom",
        "forces_functional_mev_per_angstrom",
        "forces_hellmann_feynman_mev_per_angstrom",
    }
    page = (run.folder / "report.html").read_text()
    assert page.count("Uncertainty: ") == 10  # five pictures, each with title and alternative text
    mean = metrics["held_out"]["density_uncertainty_percent"]["mean"]
    assert f"{mean:.4g}" in page
    path = next((run.folder / "fields").glob("*.vtu"))
    cells = pyvista.read(path).point_data["density_uncertainty [electron/angstrom^3]"]
    assert cells.min() > -1e-3 * cells.max()
    atoms = pyvista.read(path.with_name(f"{path.stem}_atoms.vtp"))
    assert "forces_functional_uncertainty [eV/angstrom]" in atoms.point_data


@pytest.mark.slow
def test_single_network_has_no_committee_uncertainty(run, predictor, evaluations):
    name = evaluations[0].name
    alone, prediction = evaluate_sample(predictor.member(0), run.data[name], name)
    assert prediction.density_uncertainty is None
    assert set(evaluations[0].numbers) - set(alone.numbers) == OF_COMMITTEE
    assert list(alone.force_uncertainties) == ["functional"]
    assert set(uncertainty_pairs([alone])) == {
        "energy_uncertainty_functional_mev_per_atom",
        "force_uncertainty_functional_mev_per_angstrom",
    }
    labels = [row[0] for row in summary_table("", [alone]).rows]
    assert "density uncertainty" not in labels
    assert "density error (NMAPE)" in labels


@pytest.mark.slow
def test_functional_without_second_derivative_has_no_forces_after_a_step(run, predictor):
    """Of libxc's functionals, only the first derivative is known."""
    sample = run.data[0]
    pbe = EnergyFunctional.orbital_free("wt", xc="pbe", pseudopotential=GTHFIT)
    nameless = replace(sample, provenance={"space": sample.provenance["space"]})
    other = replace(predictor, functional=pbe, baseline=LinearResponse(pbe))
    here, _ = evaluate_sample(predictor, sample)
    there, _ = evaluate_sample(other, nameless)
    assert set(here.numbers) - set(there.numbers) == OF_STEP
    assert there.numbers["energy_uncertainty_functional_mev_per_atom"] > 0


def test_agreement_of_known_pairs():
    errors = np.array([0.1, 1.0, 3.0, 0.5])
    found = agreement(2 * errors, errors)
    assert found["correlation"] == pytest.approx(1.0)
    assert found["error_over_uncertainty"] == pytest.approx(0.5)
    assert agreement(1 / errors, errors)["correlation"] == pytest.approx(-1.0)
    with_zero = agreement([*errors, 0.0], [*errors, 7.0])
    assert with_zero["correlation"] == pytest.approx(1.0)
    assert agreement([1.0, 2.0], [1.0, 2.0])["correlation"] is None
    assert agreement([1.0, 1.0, 1.0], errors[:3])["correlation"] is None
    assert agreement([0.0], [1.0])["error_over_uncertainty"] is None


@pytest.mark.slow
def test_errors_are_in_the_units_of_their_names(run, evaluations):
    """By ASE's units: meV per atom with its sign, and meV/angstrom."""
    for evaluation in evaluations:
        sample, errors = run.data[evaluation.name], evaluation.numbers
        for route in ("functional", "functional_one_step", "energy_density"):
            wrong = (evaluation.energies[route] - sample.energy) * Hartree * 1000
            found = errors[f"energy_error_{route}_mev_per_atom"]
            assert found * len(sample.structure) == pytest.approx(wrong, rel=1e-9)
        for route in ("functional", "functional_one_step", "hellmann_feynman"):
            wrong = np.abs(evaluation.forces[route] - sample.forces).mean() * Hartree / Bohr * 1000
            found = errors[f"force_mae_{route}_mev_per_angstrom"]
            assert found == pytest.approx(wrong, rel=1e-9)
        spread = errors["force_spread_reference_mev_per_angstrom"]
        assert spread == pytest.approx(sample.forces.std() * Hartree / Bohr * 1000, rel=1e-9)


def known(name, *, energy_error, force_error):
    """An evaluation whose estimates are the errors times 2, 3, 5 and 7, of one atom."""
    errors = {
        "nmape_percent": 0.1 * abs(energy_error),
        "density_uncertainty_percent": 0.2 * abs(energy_error),
        "energy_error_functional_mev_per_atom": energy_error,
        "energy_uncertainty_functional_mev_per_atom": 3 * abs(energy_error),
        "energy_error_energy_density_mev_per_atom": 10 * energy_error,
        "energy_uncertainty_energy_density_mev_per_atom": 50 * abs(energy_error),
    }
    reference = np.array([[0.5, -0.25, 0.0]])
    forces = {"reference": reference, "functional": reference + force_error}
    estimates = {"functional": 7 * np.abs([force_error])}
    return Evaluation(name, "", "Al", ["Al"], errors, {}, forces, estimates)


TWO = (
    known("a", energy_error=-4.0, force_error=[0.01, -0.02, 0.03]),
    known("b", energy_error=1.0, force_error=[-0.05, 0.04, 0.06]),
)


def test_summary_is_the_mean_and_the_largest_of_absolute_values():
    found = summarise(TWO)["energy_error_functional_mev_per_atom"]
    assert found == {"mean": 2.5, "max": 4.0}


def test_pairs_are_an_estimate_and_its_own_error():
    pairs = uncertainty_pairs(TWO)
    factors = {
        "density_uncertainty_percent": 2,
        "energy_uncertainty_functional_mev_per_atom": 3,
        "energy_uncertainty_energy_density_mev_per_atom": 5,
        "force_uncertainty_functional_mev_per_angstrom": 7,
    }
    assert set(pairs) == set(factors)
    for name, (uncertainty, error) in pairs.items():
        np.testing.assert_allclose(uncertainty, factors[name] * error, rtol=1e-12)
        assert (error > 0).all()
    np.testing.assert_allclose(pairs["energy_uncertainty_functional_mev_per_atom"][1], [4, 1])
    forces = np.array([0.01, 0.02, 0.03, 0.05, 0.04, 0.06]) * Hartree / Bohr * 1000
    np.testing.assert_allclose(pairs["force_uncertainty_functional_mev_per_angstrom"][1], forces)
