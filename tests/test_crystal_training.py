"""Training of models of crystals: what each network learns from, and what it must not."""

import pytest
import torch

from fedens.learning.fit import FitSettings, fit
from fedens.learning.pointwise import PointwiseNetwork
from fedens.learning.scaling import Standardise
from fedens.models.crystal.data import TrainingData
from fedens.models.crystal.losses import RootDensityLoss
from fedens.models.crystal.objective import ElementObjective, StructureObjective

#: What there is to learn in each of three structures; features say nothing.
TARGETS = (1.0, 2.0, 6.0)


@pytest.fixture
def constants():
    """Three structures of 20 elements, each with a constant of its own as target."""
    owners = torch.arange(len(TARGETS)).repeat_interleave(20)
    one = torch.ones(len(owners), 8)
    return TrainingData(
        features=torch.zeros(*one.shape, 1),
        targets=torch.tensor(TARGETS)[owners][:, None, None] * one[..., None],
        weights=one,
        lengths=torch.ones(len(owners), 3),
        owners=owners,
        order=1,
        scaling=Standardise(torch.zeros(1).double(), torch.ones(1).double()),
        target_scales=torch.ones(1).double(),
    )


@pytest.mark.parametrize("member", [0, 1, 2])
def test_members_do_not_train_on_the_structures_they_leave_out(constants, member):
    """A constant can only be the mean of those learned from; the one left out shows its error."""
    objective = ElementObjective(constants, RootDensityLoss(1, 0.5), member, 3, 400, 0, True)
    network = PointwiseNetwork(1, (), 1)
    history = fit(network, objective, FitSettings(400, 0.05), "constants", member=member)
    learned = [target for i, target in enumerate(TARGETS) if i != member]
    mean = sum(learned) / 2
    assert network.linear.bias.item() == pytest.approx(mean, abs=0.05)
    expected = (TARGETS[member] - mean) ** 2
    assert history.validation_loss[-1] == pytest.approx(expected, rel=0.1)
    expected = ((learned[0] - learned[1]) / 2) ** 2
    assert history.training_loss[-1] == pytest.approx(expected, rel=0.1)


def test_members_meet_every_whole_structure_but_those_they_leave_out(constants):
    """In turn, at every second step; their terms are added to the elements' loss."""

    class Whole(list):
        def __call__(self, index, outputs):
            return 100.0 * (index + 1) + outputs.sum() * 0

    network, rng = PointwiseNetwork(1, (), 1), torch.Generator()
    common = {"data": constants, "loss_of": RootDensityLoss(1, 0.5), "committee": 3}
    common |= {"batch_points": 8, "seed": 0, "fresh": True}
    for member, turns in ((0, [1, 2, 1, 2, 1]), (1, [0, 2, 0, 2, 0])):
        elements = ElementObjective(member=member, **common)
        objective = StructureObjective(member=member, **common, whole=Whole(range(3)), every=2)
        for step in range(9):
            batch = objective.batch(step, rng.manual_seed(step))
            expected = None if step % 2 else turns[step // 2]
            assert batch.structure == expected
            extra = objective.loss(network, batch) - elements.loss(network, batch)
            asked = 0.0 if expected is None else 100.0 * (expected + 1)
            assert extra.item() == pytest.approx(asked, abs=1e-3)
