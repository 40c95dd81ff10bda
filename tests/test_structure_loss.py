"""Loss terms of whole structures, and the training's domain."""

import numpy as np
import pytest
import torch
from systems import GTHFIT, fcc

from fedens import (
    GMP,
    EnergyFunctional,
    Structure,
    TensorSpace,
    TrainingSettings,
    solve_ground_state,
    train,
)
from fedens.energy.forces import hellmann_feynman_forces
from fedens.errors import FunctionalError, ModelError
from fedens.learning.domain import TrainingDomain
from fedens.models.crystal.structure_loss import StructureLoss

FUNCTIONAL = EnergyFunctional.orbital_free("wt", pseudopotential=GTHFIT)


def cell(seed: int) -> Structure:
    shifts = np.random.default_rng(seed).normal(0, 0.15, (4, 3))
    return fcc().replace(positions=fcc().positions + shifts)


@pytest.fixture(scope="module")
def states():
    return [
        solve_ground_state(s, TensorSpace.for_structure(s, 0.5, 5), FUNCTIONAL)
        for s in (cell(0), cell(1), cell(2))
    ]


@pytest.fixture(scope="module")
def samples(states):
    return [state.to_sample() for state in states]


SETTINGS = TrainingSettings(hidden=(8,), committee=1, steps=20, batch_points=2000)


@pytest.fixture(scope="module")
def predictor(samples):
    return train(samples, GMP([1.0, 2.0], 2, form="smooth"), SETTINGS, device="cpu")


def exact_outputs(state, predictor):
    """What a network would have to return for the solver's own density, by elements."""
    space = state.space
    base = predictor.baseline.density(state.structure, state.space)
    learned = (state.density.root - base.root) / predictor.target_scales[0]
    return space.element_blocks(learned[:, None])


def test_exact_outputs_cost_nothing(states, samples, predictor):
    for weights in ((1.0, 0.0), (0.0, 1.0)):
        loss = StructureLoss.of(samples, predictor, *weights)
        outputs = exact_outputs(states[1], predictor)
        exact, wrong = (float(loss(1, f * outputs).detach()) for f in (1.0, 1.3))
        assert abs(exact) < 1e-7
        assert wrong > 1e-4


def test_energy_term_grows_with_the_square_of_the_error(states, samples, predictor):
    loss = StructureLoss.of(samples, predictor, 1.0, 0.0)
    outputs = exact_outputs(states[0], predictor)
    small, large = (float(loss(0, (1 + size) * outputs)) for size in (0.05, 0.1))
    assert large / small == pytest.approx(4.0, rel=0.1)


def test_terms_in_closed_form(states, samples, predictor):
    """Of the baseline itself, which is what a network that returns nothing predicts."""
    state, sample = states[1], samples[1]
    density = predictor.baseline.density(state.structure, state.space).normalised(12.0)
    nothing = torch.zeros_like(exact_outputs(state, predictor))
    scale = float(predictor.target_scales[0])
    excess = (float(state.bound.energy(density)) - sample.total_energy) / state.structure.volume
    forces = hellmann_feynman_forces(FUNCTIONAL, state.structure, density).numpy()
    error = ((forces - sample.forces) ** 2).mean()
    for energy_weight, force_weight in ((0.3, 0.0), (0.0, 0.7), (0.3, 0.7)):
        loss = StructureLoss.of(samples, predictor, energy_weight, force_weight)
        expected = (energy_weight * excess + force_weight * error) / scale**2
        assert float(loss(1, nothing).detach()) == pytest.approx(expected, rel=1e-5)
    assert 0.3 * excess / scale**2 > 1e-4
    assert 0.7 * error / scale**2 > 1e-4


def test_force_term_has_a_gradient_that_lowers_it(states, samples, predictor):
    loss = StructureLoss.of(samples, predictor, 0.0, 1.0)
    outputs = (1.2 * exact_outputs(states[2], predictor)).requires_grad_(True)
    before = loss(2, outputs)
    (gradient,) = torch.autograd.grad(before, outputs)
    step = 0.1 * float(before.detach()) / float((gradient**2).sum())
    after = float(loss(2, outputs - step * gradient).detach())
    # a step along the gradient lowers a square by twice the step's share, to first order
    assert after == pytest.approx(0.9 * float(before.detach()), rel=0.01)


def test_no_terms_and_no_forces(samples, predictor):
    from dataclasses import replace

    assert StructureLoss.of(samples, predictor, 0.0, 0.0) is None
    with pytest.raises(ModelError, match="without forces"):
        StructureLoss.of([replace(samples[0], forces=None)], predictor, 0.0, 1.0)


@pytest.mark.filterwarnings("ignore::fedens.errors.ExtrapolationWarning")
def test_terms_change_the_training(samples, predictor):
    from dataclasses import replace

    settings = replace(SETTINGS, energy_weight=1.0, force_weight=1.0, structure_every=2)
    other = train(samples, predictor.descriptor, settings, device="cpu")
    structure = cell(5)
    assert other.energy(structure) != predictor.energy(structure)


def test_element_blocks_and_back():
    space = TensorSpace([4.0, 5.0, 6.0], (2, 3, 1), 3)
    field = torch.arange(2.0 * space.n_points).reshape(space.n_points, 2)
    assert torch.equal(space.from_element_blocks(space.element_blocks(field)), field)


def test_domain_counts_points_and_complains_of_structures():
    features = torch.tensor([[0.0, 1.0], [1.0, 2.0]])
    domain = TrainingDomain.of(features, [fcc()])
    inside, near, far = [0.5, 1.5], [1.05, 1.5], [0.5, 2.2]
    assert domain.points_outside(torch.tensor([inside, near, far, far])) == 2
    assert domain.complaints(fcc(7.65 * 1.005)) == []
    assert "atoms per bohr^3" in domain.complaints(fcc(7.65 * 1.03))[0]
    foreign = Structure(["Al", "Mg"], [[0, 0, 0], [4.0, 0, 0]], cell=[8.0, 5.8, 5.0], pbc=True)
    assert "elements Mg (trained on Al)" in domain.complaints(foreign)[0]


def test_refinement_needs_second_derivatives(states):
    pbe = EnergyFunctional.orbital_free("tfvw", xc="pbe", pseudopotential=GTHFIT)
    state = states[0]
    bound = pbe.bind(state.structure, state.space)
    refined = bound.refined(state.density, 2)
    assert float(bound.energy(refined)) < float(bound.energy(state.density))
    positions = torch.tensor(state.structure.positions, requires_grad=True)
    bound = pbe.bind(state.structure, state.space, positions)
    with pytest.raises(FunctionalError, match="no second derivative"):
        bound.refined(state.density, 1)
