"""How far a committee's spread falls short of errors, on structures its members left out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fedens.data.sample import Sample
from fedens.models.crystal.data import left_out, sample_field
from fedens.models.crystal.model import Predictor


@torch.no_grad()
def left_out_calibration(predictor: Predictor, samples: Sequence[Sample]) -> float:
    """Factor from the committee's spread of the density to the error of a member.

    The root of the mean squared error, over that of the spread, both integrated over the
    structures that a member was not trained on; 1 where there are none.
    """
    committee = len(predictor.networks)
    error = spread = 0.0
    for member in range(committee):
        for index in left_out(len(samples), member, committee):
            sample = samples[index]
            space = sample.tensor_space(predictor.device)
            expected = sample_field(sample, "density", predictor.device)
            whole = predictor.predict(sample.structure, space)
            alone = whole.members()[member]
            assert whole.spread is not None
            error += float(space.integrate((alone.density.values - expected) ** 2))
            spread += float(space.integrate(whole.spread**2))
    return math.sqrt(error / spread) if spread > 0 else 1.0
