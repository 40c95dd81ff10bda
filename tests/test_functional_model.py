"""Models that minimise their own functional: self-consistent numbers, error bars, storage."""

import copy
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import units
from ase.io import read, write
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from systems import EVANESCENT, FCC, GTHFIT, dimer, fcc, rattled

from fedens import (
    GMP,
    Calculator,
    Density,
    EnergyFunctional,
    EnergyTrainingSettings,
    FunctionalModel,
    LearnedKinetic,
    PointSet,
    TensorSpace,
    solve_ground_state,
    train_energy_model,
)
from fedens.commands.export import export
from fedens.commands.info import describe_path
from fedens.commands.predict import predict_file
from fedens.data.sample_file import write_sample
from fedens.energy.density_variables import DensityVariables
from fedens.energy.learned_kinetic import Polynomial
from fedens.errors import (
    ConvergenceError,
    ExtrapolationWarning,
    FunctionalError,
    ModelError,
    PseudopotentialError,
)
from fedens.learning.domain import TrainingDomain
from fedens.progress import Progress
from fedens.testing import check_model
from fedens.units import HARTREE_IN_EV

#: The cells here are not those of any training.
pytestmark = pytest.mark.filterwarnings("ignore::fedens.errors.ExtrapolationWarning")

SPACING, ORDER = 0.64, 6
N0 = 12 / 7.65**3
BASE = EnergyFunctional.orbital_free("wt", pseudopotential=GTHFIT, mean_density=N0)
VARIABLES = DensityVariables((0.65,), (1.3, 0.75))


def learned_term(size=0.02, seed=0):
    blank = Polynomial(VARIABLES, 2)
    random = np.random.default_rng(seed)
    return LearnedKinetic(blank.with_parameters(random.normal(0, size, len(blank.parameters))), N0)


def random_covariance(n, size=0.01, seed=1):
    factor = torch.tensor(np.random.default_rng(seed).normal(0, size / n**0.5, (n, n)))
    return factor @ factor.T


@pytest.fixture(scope="module")
def model():
    term = learned_term()
    functional = EnergyFunctional([*BASE.terms, term])
    covariance = random_covariance(len(term.correction.parameters))
    return FunctionalModel(functional, SPACING, ORDER, 1e-7, covariance)


@pytest.fixture(scope="module")
def correction():
    cells = [fcc(7.5).replace(positions=fcc(7.5).positions + shift) for shift in SHIFTS]
    spaces = [TensorSpace.for_structure(s, 0.7, 5) for s in cells]
    samples = [
        solve_ground_state(s, x, BASE).to_sample() for s, x in zip(cells, spaces, strict=True)
    ]
    settings = EnergyTrainingSettings(hidden=(8,), steps=10)
    return train_energy_model(samples, GMP([1.0, 2.0], 2), [PointSet("atoms")], settings)


SHIFTS = np.random.default_rng(0).normal(0, 0.1, (2, 4, 3))


def test_keeps_the_contract(model, tmp_path):
    check_model(model, rattled(), tmp_path, tolerance=2e-5)


def test_keeps_the_contract_with_a_correction(model, correction, tmp_path):
    y = model.learned.variables(model.predict(rattled()).density)
    domain = TrainingDomain.of(y.detach(), [fcc()])
    whole = replace(model, correction=correction, domain=domain, calibration=1.5)
    check_model(whole, rattled(), tmp_path, tolerance=2e-5)
    again = FunctionalModel.load(tmp_path / "whole")
    assert json.dumps(again.describe()) == json.dumps(whole.describe())
    stored, kept = again.tensors(), whole.tensors()
    assert stored.keys() == kept.keys()
    assert all(torch.equal(stored[name], kept[name]) for name in kept)


def test_keeps_the_contract_for_isolated_atoms(tmp_path):
    tfvw = EnergyFunctional.orbital_free("tfvw", pseudopotential=GTHFIT)
    check_model(FunctionalModel(tfvw, 0.8, 4, 1e-7), dimer(), tmp_path, tolerance=1e-4)


def test_a_correction_alone_is_delta_on_wang_teter(correction, tmp_path):
    delta = FunctionalModel(BASE, SPACING, ORDER, correction=correction)
    check_model(delta, rattled(), tmp_path, tolerance=2e-5)
    numbers, plain = delta.energy_and_forces(rattled()), replace(delta, correction=None)
    added = correction.energy_and_forces(rattled())
    below = plain.energy_and_forces(rattled())
    assert numbers.energy == below.energy + added.energy
    np.testing.assert_array_equal(numbers.forces, below.forces + added.forces)
    feynman = delta.calculate(rattled(), ["hellmann_feynman_forces"])["hellmann_feynman_forces"]
    np.testing.assert_array_equal(feynman, below.forces)


def test_offers_no_stress_where_its_correction_has_none(model, correction):
    points = PointSet("quadrature", spacing=1.5, order=3)
    parts = copy.deepcopy(correction.parts)
    parts[0].points = points
    on_mesh = replace(model, correction=replace(correction, parts=parts))
    assert "stress" not in on_mesh.properties("functional")
    assert "forces" in on_mesh.properties("functional")


def strained(structure, axis, amount):
    factors = np.ones(3)
    factors[axis] += amount
    return structure.replace(
        positions=structure.positions * factors, cell=structure.cell * factors[:, None]
    )


@pytest.mark.parametrize("corrected", [False, True])
def test_stress_is_the_derivative_of_the_energy(model, correction, corrected):
    model = replace(model, correction=correction if corrected else None)
    structure, step = rattled(), 3e-4
    stress = model.calculate(structure, ["stress"])["stress"]
    for axis in range(3):
        high, low = (model.energy(strained(structure, axis, s)) for s in (step, -step))
        slope = (high - low) / (2 * step * structure.volume)
        assert slope == pytest.approx(stress[axis], rel=1e-4, abs=1e-8)


def turned(model, parameters):
    """The model with other parameters of its learned term."""
    correction = model.learned.correction.with_parameters(parameters)
    terms = [*BASE.terms, LearnedKinetic(correction, N0)]
    return replace(model, functional=EnergyFunctional(terms))


def test_error_of_the_energy_is_its_change_along_the_uncertain_direction(model):
    mean = np.array(model.learned.correction.parameters)
    direction = np.random.default_rng(4).normal(0, 0.01, len(mean))
    covariance = torch.tensor(np.outer(direction, direction))
    one = replace(model, covariance=covariance, calibration=2.0)
    high, low = (turned(model, mean + s * direction).energy(rattled()) for s in (0.05, -0.05))
    error = one.uncertainty(rattled()).energy
    assert error == pytest.approx(2 * abs(high - low) / 0.1, rel=1e-4)


def test_errors_of_forces_and_density_are_those_of_functionals_minimised_to_the_end(model):
    prediction = replace(model, calibration=1.5).predict(rattled())
    drawn = [turned(model, t.correction.parameters) for t in prediction.posterior.drawn_terms()]
    states = [m.predict(rattled(), guess=prediction.density).state for m in drawn]
    forces = np.array([s.forces for s in states]) - prediction.hellmann_feynman_forces
    expected = 1.5 * np.sqrt((forces**2).mean(axis=0))
    assert np.abs(prediction.forces_uncertainty - expected).max() < 0.03 * expected.max()
    away = torch.stack([s.density.values - prediction.density.values for s in states])
    expected = 1.5 * (away**2).mean(dim=0).sqrt()
    error = (prediction.density_uncertainty - expected).abs().mean() / expected.mean()
    assert error < 0.05


def test_errors_grow_in_proportion_where_functionals_drawn_would_run_away(model):
    small, large = (replace(model, covariance=s**2 * model.covariance) for s in (1, 300))
    ones, many = small.predict(rattled()), large.predict(rattled())
    assert many.energy_uncertainty == pytest.approx(300 * ones.energy_uncertainty, rel=1e-6)
    forces = ones.forces_uncertainty
    assert np.abs(many.forces_uncertainty / 300 - forces).max() < 0.06 * forces.max()
    density = ones.density_uncertainty
    error = (many.density_uncertainty / 300 - density).abs().mean() / density.mean()
    assert error < 0.06


def test_drawn_parameters_have_the_covariance(model):
    posterior = model.predict(rattled()).posterior
    drawn = np.array([t.correction.parameters for t in posterior.drawn_terms()])
    away = torch.tensor(drawn - model.learned.correction.parameters)
    # squared lengths in units of the covariance are those of as many normal numbers
    inverse = torch.linalg.pinv(model.covariance, hermitian=True)
    lengths = torch.einsum("ij,jk,ik->i", away, inverse, away)
    n = torch.linalg.matrix_rank(model.covariance)
    assert float(lengths.mean() / n) == pytest.approx(1, abs=4 * float(2 / n / len(drawn)) ** 0.5)


def test_without_a_covariance_there_are_no_error_bars(model):
    sure = replace(model, covariance=None)
    assert "energy_uncertainty" not in sure.properties("functional")
    with pytest.raises(ModelError, match="no covariance"):
        sure.uncertainty(rattled())


def test_a_covariance_of_other_parameters_is_refused(model):
    with pytest.raises(ModelError, match=r"covariance is \(3, 3\)"):
        replace(model, covariance=torch.eye(3))
    with pytest.raises(ModelError, match="0 learned parameters"):
        FunctionalModel(BASE, SPACING, ORDER, covariance=torch.zeros((0, 0)))


def test_three_starting_densities_end_in_one_minimum(model):
    space = model.space_for(rattled())
    uniform = Density.from_values(space, torch.full((space.n_points,), 12 / space.volume))
    starts = [uniform, "linear_response", "superposed_atoms"]
    found = [model.predict(rattled(), guess=guess) for guess in starts]
    assert np.ptp([p.energy for p in found]) < 1e-9
    for one in found[1:]:
        np.testing.assert_allclose(one.forces, found[0].forces, atol=2e-6)
        change = space.integrate((one.density.values - found[0].density.values).abs())
        assert float(change) < 12 * 1e-5


def test_densities_unlike_the_training_are_named(model):
    y = model.learned.variables(model.predict(rattled()).density)
    known = replace(model, domain=TrainingDomain.of(y.detach(), [rattled()]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        known.energy(rattled())
    with pytest.warns(ExtrapolationWarning, match=r"densities of their own; uncertainty .* meV"):
        known.energy(rattled().replace(positions=rattled().positions[[0] * 4] + 0.45 * FCC * 7.5))


def test_what_it_is_not_made_for_is_refused(model, correction):
    with pytest.raises(FunctionalError, match="not defined in vacuum"):
        model.energy(dimer())
    named = model.for_material({"Al": GTHFIT}, "lda_pz", N0)
    with pytest.raises(PseudopotentialError, match="no pseudopotential for Mg"):
        named.energy(fcc().replace(numbers=["Mg"] * 4))
    with pytest.raises(ConvergenceError, match="not converged"):
        replace(model, residual_tolerance=1e-30).energy(rattled())
    broken = replace(correction, parts=copy.deepcopy(correction.parts))
    torch.nn.init.constant_(broken.parts[0].mean, torch.nan)
    wrong = replace(model, correction=broken)
    for ask in (wrong.energy, wrong.energy_and_forces):
        with pytest.raises(ModelError, match="not finite"):
            ask(rattled())


def test_another_material_is_the_functional_in_other_units(model):
    """With all lengths scaled the kinetic energy scales by the inverse square."""
    factor = 1.1
    scaled = model.for_material(EVANESCENT, "lda_x", N0 / factor**3)
    assert scaled.learned.mean_density == N0 / factor**3
    assert scaled.functional.xc == "lda_x"
    assert scaled.functional.pseudopotentials["Al"] is EVANESCENT
    space = model.space_for(rattled())
    stretched = space.scaled(torch.full((3,), factor, dtype=torch.float64))
    density = Density.from_values(space, 0.02 + 0.01 * torch.sin(space.points[:, 0] / 7.65) ** 2)
    wider = Density.from_values(stretched, density.values / factor**3)
    names = {"nonlocal_kinetic", "learned_kinetic"}
    here = [t for t in model.functional.terms if t.name in names]
    there = [t for t in scaled.functional.terms if t.name in names]
    for one, other in zip(here, there, strict=True):
        expected = float(one.energy(density)) / factor**2
        assert float(other.energy(wider)) == pytest.approx(expected, rel=1e-9)
    assert replace(model, correction=object()).for_material(GTHFIT, "lda_pz", N0).correction is None


def test_moving_atoms_conserve_the_energy_and_relaxing_ones_come_to_rest(model, correction):
    atoms = rattled().to_ase()
    atoms.calc = Calculator(replace(model, correction=correction), spacing=0.75, order=5)
    totals, kinetic = [], []
    with VelocityVerlet(atoms, timestep=2 * units.fs) as dynamics:
        for _ in dynamics.irun(15):
            totals.append(atoms.get_total_energy())
            kinetic.append(atoms.get_kinetic_energy())
    # forces that are off by 2 % change the sum by 2 % of what is exchanged
    assert np.ptp(totals) < 0.01 * np.ptp(kinetic)
    with BFGS(atoms, logfile=None) as search:
        search.run(fmax=0.1, steps=20)
        assert search.converged()


def test_commands_take_it(model, tmp_path):
    model = replace(model, spacing=0.75, order=5)
    known = replace(model, provenance={"labels": [{}] * 3, "projectors": ["Al"]})
    known.save(tmp_path / "model")
    shown = describe_path(tmp_path / "model")
    assert shown["learned parameters"] == len(model.learned.correction.parameters)
    assert shown["trained on"] == "3 labels"
    assert "pseudopotentials of Al" in shown["conditional"]
    write(tmp_path / "cells.xyz", [rattled().to_ase(), fcc().to_ase()])
    target = tmp_path / "out.xyz"
    source = tmp_path / "cells.xyz"
    predict_file(source, tmp_path / "model", target, Progress(), fields=True, uncertainty=True)
    first = read(target, 0)
    numbers, bars = model.energy_and_forces(rattled()), model.uncertainty(rattled())
    assert first.get_potential_energy() == pytest.approx(numbers.energy * HARTREE_IN_EV, abs=1e-8)
    assert first.info["energy_uncertainty"] == pytest.approx(bars.energy * HARTREE_IN_EV, rel=1e-5)
    assert first.get_stress().shape == (6,)
    fields = (tmp_path / "out" / "0000-Al4.vtu").read_bytes()
    for name in ("density", "kinetic", "xc", "electrostatic", "density_uncertainty"):
        assert f'Name="{name} ['.encode() in fields


def test_its_density_is_exported_beside_a_sample(model, tmp_path):
    sample = model.predict(rattled()).state.to_sample()
    write_sample(sample, tmp_path / "one.h5")
    export(tmp_path / "one.h5", tmp_path / "one.vtu", predictor=model)
    assert b'Name="density_predicted [' in (tmp_path / "one.vtu").read_bytes()
