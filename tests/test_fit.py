"""The training loop on problems whose course is known: rates, batches, failure, resume."""

import math
import random

import pytest
import torch
from torch import nn

from fedens.errors import DeviceError, ModelError
from fedens.learning.checkpoints import read_checkpoint
from fedens.learning.committee import left_out
from fedens.learning.devices import resolve_device
from fedens.learning.fit import Checkpoints, FitSettings, fit, generator


class Slope:
    """Losses c_k w at step k: every gradient is known beforehand. Begins at w = ``first``."""

    def __init__(self, slopes, first=0.0, held_out=None):
        self.slopes, self.first, self.held_out, self.drawn = slopes, first, held_out, []

    def start(self, network):
        nn.init.constant_(network.weight, self.first)

    def batch(self, step, rng):
        self.drawn.append(float(torch.rand(1, generator=rng)))
        return self.slopes[step]

    def loss(self, network, batch):
        return batch * network(torch.ones(1, 1)).sum()

    def validation(self):
        return self.held_out


class Noisy(Slope):
    """Least squares of points that every step draws anew."""

    def __init__(self):
        super().__init__([], 0.5, torch.linspace(-1, 1, 5)[:, None])

    def batch(self, step, rng):
        return torch.randn(4, 1, generator=rng) + 0.1 * step

    def loss(self, network, batch):
        return ((network(batch) - 2 * batch.abs()) ** 2).mean()


def line():
    return nn.Linear(1, 1, bias=False)


def test_rates_rise_and_fall_in_closed_form():
    settings = FitSettings(100, 0.2, warm_up_steps=4, last_rate=0.01)
    rises = [settings.rate(k, 0.0) for k in range(6)]
    assert rises == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.2, 0.2])
    for progress in (0.25, 0.5, 0.9):
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        assert settings.rate(50, progress) == pytest.approx(0.2 * cosine)
    assert settings.rate(99, 1.0) == pytest.approx(0.2 * 0.01)
    assert FitSettings(100, 0.2).rate(0, 0.0) == 0.2


def test_steps_of_equal_slope_have_the_length_of_the_rate():
    """Adam divides the mean gradient by its own size."""
    network = line()
    settings = FitSettings(4, 0.1, warm_up_steps=2)
    fit(network, Slope([3.0] * 4, first=1.0), settings, "slope")
    expected = 1.0 - sum(settings.rate(k, k / 4) for k in range(4))
    assert network.weight.item() == pytest.approx(expected, rel=1e-5)


def test_large_gradients_are_cut():
    """Slopes of 10 and then 1 count alike if both are cut to 1, and not otherwise."""
    for largest, second in ((1.0, 1.0), (None, 0.741)):
        network = line()
        settings = FitSettings(2, 0.1, largest_gradient=largest)
        fit(network, Slope([10.0, 1.0]), settings, "slope")
        assert network.weight.item() == pytest.approx(-0.1 - 0.05 * second, rel=1e-3)


def test_weight_decay_shrinks_weights():
    network = line()
    fit(network, Slope([0.0] * 2, first=1.0), FitSettings(2, 0.1, weight_decay=0.5), "slope")
    assert network.weight.item() == pytest.approx((1 - 0.05) * (1 - 0.025), rel=1e-6)


def test_random_numbers_depend_on_seed_member_and_step_alone():
    drawn = []
    for seed, member in ((0, 0), (0, 0), (0, 1), (1, 0)):
        objective = Slope([1.0] * 3)
        fit(line(), objective, FitSettings(3, 0.1, seed=seed), "slope", member=member)
        drawn.append(objective.drawn)
    assert drawn[0] == drawn[1]
    assert len({number for numbers in drawn[1:] for number in numbers}) == 9
    assert drawn[2][1] == float(torch.rand(1, generator=generator(0, 1, 1)))


def test_history_holds_losses_at_the_recorded_steps():
    """At rates next to nothing, losses are slope times the first weight."""
    settings = FitSettings(5, 1e-12, record_every=2)
    history = fit(line(), Slope([1.0, 2.0, 3.0, 4.0, 5.0], 2.0, held_out=7.0), settings, "slope")
    assert history.step == [2, 4, 5]
    assert history.training_loss == pytest.approx([4.0, 8.0, 10.0])
    assert history.validation_loss == pytest.approx([14.0] * 3)
    nothing = fit(line(), Slope([1.0] * 5), settings, "slope")
    assert nothing.step
    assert nothing.validation_loss == []


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_fit(broken, tmp_path):
    places = Checkpoints(tmp_path, "x")
    objective = Slope([1.0, 1.0, broken, 1.0], first=1.0)
    settings = FitSettings(4, 0.1, checkpoint_every=1)
    with pytest.raises(ModelError, match=r"training of my slope diverged at step 2.*rate \(0\.1\)"):
        fit(line(), objective, settings, "my slope", checkpoints=places)
    known = read_checkpoint(places.folder / "my-slope", f"x {settings} 0")
    assert known is not None
    assert known.step == 2


def test_weights_that_are_not_finite_are_no_result():
    class Overflow(Slope):
        def loss(self, network, batch):
            return super().loss(network, batch) if batch else network.weight.sum().abs().sqrt()

    with pytest.raises(ModelError, match="weights are not finite"):  # d sqrt(w) / dw at w = 0
        fit(line(), Overflow([0]), FitSettings(1, 0.1), "slope")


@pytest.mark.parametrize("seed", range(4))
def test_a_fit_goes_on_with_the_same_bits(seed, tmp_path):
    """Wherever it is cut off, and as often as it is."""
    settings = FitSettings(40, 0.05, warm_up_steps=5, record_every=3, checkpoint_every=1 + 3 * seed)
    whole, parts = line(), line()
    expected = fit(whole, Noisy(), settings, "noise")
    places, moments = Checkpoints(tmp_path, "data"), random.Random(seed)

    class Cut(Noisy):
        last = 0

        def batch(self, step, rng):
            if step == self.last:
                raise KeyboardInterrupt
            return super().batch(step, rng)

    for last in sorted(moments.sample(range(1, 40), 3)):
        cut = Cut()
        cut.last = last
        with pytest.raises(KeyboardInterrupt):
            fit(line(), cut, settings, "noise", checkpoints=places)
    found = fit(parts, Noisy(), settings, "noise", checkpoints=places)
    assert torch.equal(parts.weight, whole.weight)
    assert found == expected
    again = fit(line(), Noisy(), settings, "noise", checkpoints=places)
    assert again == expected


def truncate(path):
    path.write_bytes(path.read_bytes()[:20])


@pytest.mark.parametrize("pattern", ["checkpoint.json", "checkpoint-*.safetensors"])
@pytest.mark.parametrize("damage", [truncate, lambda path: path.unlink()], ids=["cut", "gone"])
def test_a_broken_checkpoint_is_begun_again(pattern, damage, tmp_path):
    settings, places = FitSettings(10, 0.05, checkpoint_every=4), Checkpoints(tmp_path, "data")
    fit(line(), Noisy(), settings, "noise", checkpoints=places)
    damage(next((places.folder / "noise").glob(pattern)))
    begun = []
    objective = Noisy()
    objective.start = lambda network: (begun.append(1), nn.init.constant_(network.weight, 0.5))
    network, fresh = line(), line()
    fit(network, objective, settings, "noise", checkpoints=places)
    fit(fresh, Noisy(), settings, "noise")
    assert begun == [1]
    assert torch.equal(network.weight, fresh.weight)


@pytest.mark.parametrize("what", ["identity", "settings", "member"])
def test_checkpoints_of_something_else_are_not_used(what, tmp_path):
    settings = FitSettings(10, 0.05)
    fit(line(), Noisy(), settings, "noise", checkpoints=Checkpoints(tmp_path, "data"))
    arguments = {"settings": settings, "member": 0, "checkpoints": Checkpoints(tmp_path, "data")}
    other = {
        "identity": {"checkpoints": Checkpoints(tmp_path, "other data")},
        "settings": {"settings": FitSettings(10, 0.04)},
        "member": {"member": 1},
    }[what]
    network, fresh = line(), line()
    fit(network, Noisy(), label="noise", **arguments | other)
    fit(fresh, Noisy(), label="noise", **(arguments | other | {"checkpoints": None}))
    assert torch.equal(network.weight, fresh.weight)


def test_processor_time_ends_a_fit_and_lowers_the_rate():
    history = fit(line(), Noisy(), FitSettings(10**6, 0.05, max_seconds=0.2), "noise")
    assert 10 < history.step[-1] < 10**5
    assert history.training_loss[-1] < 10


def test_every_structure_is_left_out_once():
    parts = [left_out(10, member, 4) for member in range(4)]
    assert sorted(index for part in parts for index in part) == list(range(10))
    assert left_out(10, 0, 1) == []
    assert [left_out(1, member, 4) for member in range(4)] == [[]] * 4
    assert left_out(2, 3, 4) == []
    assert left_out(13, 1, 2, share=6) == [1, 7]


def test_devices():
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(DeviceError, match="auto"):
        resolve_device("tpu")
    if not torch.cuda.is_available():
        assert resolve_device("auto").type == "cpu"
        with pytest.raises(DeviceError, match="no GPU"):
            resolve_device("cuda")
