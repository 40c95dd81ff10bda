"""Training of models of crystals: what each network learns from, and what it must not."""

import pytest
import torch

from fedens import TrainingSettings
from fedens.learning.pointwise import PointwiseNetwork
from fedens.learning.scaling import Standardise
from fedens.models.crystal.data import TrainingData
from fedens.models.crystal.losses import RootDensityLoss
from fedens.models.crystal.training import _Start, _Trainer
from fedens.progress import silent

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
    settings = TrainingSettings(
        hidden=(), committee=3, steps=400, batch_points=400, learning_rate=0.05
    )
    network = PointwiseNetwork(1, (), 1)
    loss = RootDensityLoss(1, 0.5)
    trainer = _Trainer("x", network, constants, loss, settings, member, _Start(True, "", None))
    history = trainer.run(silent)
    learned = [target for i, target in enumerate(TARGETS) if i != member]
    mean = sum(learned) / 2
    assert network.linear.bias.item() == pytest.approx(mean, abs=0.05)
    expected = (TARGETS[member] - mean) ** 2
    assert history["validation_loss"][-1] == pytest.approx(expected, rel=0.1)
    expected = ((learned[0] - learned[1]) / 2) ** 2
    assert history["training_loss"][-1] == pytest.approx(expected, rel=0.1)


def test_members_meet_every_whole_structure_but_those_they_leave_out(constants):
    """In turn, at every second step; their terms are added to the elements' loss."""
    asked = []

    class Whole(list):
        def __call__(self, index, outputs):
            asked.append(index)
            return outputs.sum() * 0

    settings = TrainingSettings(hidden=(), committee=3, steps=9, batch_points=8, structure_every=2)
    for member, expected in ((0, [1, 2, 1, 2, 1]), (1, [0, 2, 0, 2, 0])):
        asked.clear()
        network, loss = PointwiseNetwork(1, (), 1), RootDensityLoss(1, 0.5)
        start = _Start(True, "", None)
        whole = Whole(range(3))
        _Trainer("x", network, constants, loss, settings, member, start, whole).run(silent)
        assert asked == expected
