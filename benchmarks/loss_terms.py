"""What each loss term buys, on the same budget of training time.

Each row trains one network on the demo's training structures for the same seconds, descriptors
not counted, and compares with the held-out structures. ``energy_weight`` and ``force_weight`` add
a whole structure to the loss at every ``structure_every``-th step.

    fedens run examples/aluminium.yaml
    python benchmarks/loss_terms.py --seconds 60
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from demo_run import DemoRun, arguments

from fedens import Predictor, Sample, TrainingSettings, train
from fedens.analysis.crystals import evaluate_sample
from fedens.analysis.evaluation import summarise


@dataclass(frozen=True)
class Case:
    """A choice of loss terms, by the settings that differ from the plain one."""

    name: str
    changes: dict[str, float]


PLAIN: dict[str, float] = {
    "gradient_weight": 0.0,
    "integral_weight": 0.0,
    "energy_weight": 0.0,
    "force_weight": 0.0,
}
CASES = [
    Case("density", {}),
    Case("density, its gradient", {"gradient_weight": 0.5}),
    Case("  + integrals of energy densities", {"gradient_weight": 0.5, "integral_weight": 10.0}),
    Case("  + total energy", {"gradient_weight": 0.5, "energy_weight": 1.0}),
    Case("  + forces, 0.03", {"gradient_weight": 0.5, "force_weight": 0.03}),
    Case("  + forces, 0.1", {"gradient_weight": 0.5, "force_weight": 0.1}),
]


#: Columns of the table, as the evaluation of a run names them.
ERRORS = (
    "nmape_percent",
    "energy_error_functional_mev_per_atom",
    "energy_error_energy_density_mev_per_atom",
    "force_mae_functional_mev_per_angstrom",
    "force_mae_hellmann_feynman_mev_per_angstrom",
)


def errors(predictor: Predictor, samples: list[Sample]) -> list[float]:
    """Mean over the samples of each of :data:`ERRORS`."""
    summary = summarise([evaluate_sample(predictor, sample)[0] for sample in samples])
    return [summary[name]["mean"] for name in ERRORS]


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="per network")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    demo = DemoRun.open(options.run)
    training = [demo.data[name] for name in demo.training]
    held_out = [demo.data[name] for name in demo.held_out]
    seconds = 5.0 if options.quick else options.seconds
    settings = TrainingSettings(committee=1, steps=10**6, max_seconds=seconds, structure_every=5)
    print(f"{len(training)} structures, {seconds:.0f} s a network, {options.threads} threads")
    print(
        f"{'loss':34s} {'steps':>6s} {'NMAPE':>7s} {'E':>7s} {'E sum':>7s} {'F':>7s} {'F HF':>7s}"
    )
    print(f"{'':34s} {'':6s} {'%':>7s} {'meV/atom':>15s} {'meV/angstrom':>15s}")
    for case in CASES:
        chosen = replace(settings, **(PLAIN | case.changes))  # type: ignore[arg-type]
        predictor = train(
            training, demo.predictor.descriptor, chosen, demo.predictor.functional, device="cpu"
        )
        numbers = " ".join(f"{value:7.3g}" for value in errors(predictor, held_out))
        print(f"{case.name:34s} {int(predictor.history['step'][-1]):6d} {numbers}", flush=True)


if __name__ == "__main__":
    main()
