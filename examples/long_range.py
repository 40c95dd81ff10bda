"""Energies of point charges beyond the distances of training: local against long-range features.

Eight charges at random places in a box, and energies sum of q_i q_j / r^p over pairs for p = 1
(electrostatics), 3 and 6 (dispersion). A linear model sums features at the charges; it is trained
in a small box and tested in larger ones. Local features end where their Gaussians end; a LODE
field goes on as 1/r^p, which is right beyond all distances if p is, and wrong if it is not.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from fedens import GMP, LODE, Structure
from fedens.units import BOHR_IN_ANGSTROM

FOLDER = Path("runs/long_range")
EXPONENTS = (1, 3, 6)
CHARGES = np.array([1.0] * 4 + [-1.0] * 4)
NAMES = ["Na"] * 4 + ["Cl"] * 4
#: Edges of the boxes and the smallest distance of two charges, angstrom.
TRAINING_EDGE = 9.0
TEST_EDGES = (9.0, 11.0, 13.0, 16.0, 20.0)
QUICK_EDGES = (9.0, 16.0)
CLOSEST = 2.0

#: Local: what Gaussians of five widths see around each charge, within about 9 bohr.
LOCAL = GMP(
    [0.7, 1.0, 1.4, 2.0, 2.8], 2, {"Na": [(1.0, 2.0)], "Cl": [(1.0, 2.0)]}, channels="element"
)
#: Long-range: a field of each kind of charge, smeared, so that near pairs need local features too.
FIELDS = {p: LODE(float(p), 1.5, 2, {"Na": 1.0, "Cl": 1.0}) for p in EXPONENTS}


def charges_in_a_box(edge: float, random: np.random.Generator) -> Structure:
    """Eight charges, no two closer than allowed; edge in angstrom."""
    places = np.empty((0, 3))
    while len(places) < len(NAMES):
        more = np.vstack([places, random.uniform(0, edge, 3)])
        if len(more) == 1 or pdist(more).min() > CLOSEST:
            places = more
    return Structure(NAMES, places / BOHR_IN_ANGSTROM)


def energies(structure: Structure) -> NDArray[np.float64]:
    """Sum over pairs of q_i q_j / r^p for each exponent, (n_exponents,), bohr^-p."""
    first, second = np.triu_indices(len(CHARGES), 1)
    products, distances = CHARGES[first] * CHARGES[second], pdist(structure.positions)
    return np.array([(products / distances**p).sum() for p in EXPONENTS])


def features(structure: Structure) -> dict[str, NDArray[np.float64]]:
    """Of each model, the features at the charges, added up for each sign."""
    points = torch.tensor(structure.positions)

    def added_up(values: torch.Tensor) -> NDArray[np.float64]:
        return torch.cat([values[CHARGES > 0].sum(dim=0), values[CHARGES < 0].sum(dim=0)]).numpy()

    local = added_up(LOCAL(points, structure))
    fields = {p: added_up(lode(points, structure)) for p, lode in FIELDS.items()}
    joint = {f"local and p = {p}": np.concatenate([local, field]) for p, field in fields.items()}
    return {"local": local} | joint


def sample(
    count: int, edge: float, random: np.random.Generator
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    """Features of each model (count, n_features) and energies (count, n_exponents)."""
    structures = [charges_in_a_box(edge, random) for _ in range(count)]
    rows = [features(structure) for structure in structures]
    columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return columns, np.stack([energies(structure) for structure in structures])


class Ridge:
    """Linear regression with the penalty that predicts each left-out structure best."""

    def __init__(self, features: NDArray[np.float64], targets: NDArray[np.float64]):
        self.mean, self.centre = features.mean(axis=0), targets.mean()
        spread = features.std(axis=0)
        self.scale = np.where(spread > 0, spread, 1.0)
        u, s, v = np.linalg.svd((features - self.mean) / self.scale, full_matrices=False)
        projected = u.T @ (targets - self.centre)

        def left_out_error(penalty: float) -> float:
            shrink = s**2 / (s**2 + penalty)
            leverage = (u**2) @ shrink + 1 / len(targets)
            residual = targets - self.centre - u @ (shrink * projected)
            return float(((residual / (1 - leverage)) ** 2).mean())

        penalty = min(np.logspace(-14, 2, 33) * s[0] ** 2, key=left_out_error)
        self.weights = v.T @ (s / (s**2 + penalty) * projected)

    def __call__(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Predicted energies (n,)."""
        return (features - self.mean) / self.scale @ self.weights + self.centre


def relative_errors(n_train: int, n_test: int, edges: tuple[float, ...]) -> dict[str, NDArray]:
    """Of each model, root mean square error over spread, percent, (n_edges, n_exponents)."""
    random = np.random.default_rng(0)
    known, targets = sample(n_train, TRAINING_EDGE, random)
    models = {
        name: [Ridge(values, column) for column in targets.T] for name, values in known.items()
    }
    errors: dict[str, list[list[float]]] = {name: [] for name in models}
    for edge in edges:
        unseen, exact = sample(n_test, edge, random)
        for name, fits in models.items():
            predicted = np.stack([fit(unseen[name]) for fit in fits], axis=1)
            mean_square = ((predicted - exact) ** 2).mean(axis=0)
            errors[name].append(100 * np.sqrt(mean_square) / exact.std(axis=0))
    return {name: np.array(rows) for name, rows in errors.items()}


def print_table(errors: dict[str, NDArray], edges: tuple[float, ...]) -> None:
    """Errors of all models by box and target."""
    targets = "".join(f"{f'1/r^{p}':>10}" for p in EXPONENTS)
    for i, edge in enumerate(edges):
        kind = "as in training" if edge == TRAINING_EDGE else "larger"
        print(f"\nbox of {edge:g} angstrom ({kind}), error over spread, %\n{'':18}{targets}")
        for name, rows in errors.items():
            print(f"{name:18}" + "".join(f"{error:10.3g}" for error in rows[i]))


def draw(path: Path, errors: dict[str, NDArray], edges: tuple[float, ...]) -> None:
    """Errors against the edge of the box, a picture for each target."""
    figure = Figure(figsize=(11, 4), dpi=150, layout="constrained")
    for i, axes in enumerate(figure.subplots(1, len(EXPONENTS), sharey=True)):
        for (name, rows), marker in zip(errors.items(), "osD^", strict=True):
            axes.semilogy(edges, rows[:, i], marker=marker, label=name)
        axes.axvline(TRAINING_EDGE, color="grey", linewidth=0.8, linestyle=":")
        axes.set(title=f"target 1/r$^{EXPONENTS[i]}$", xlabel="edge of the box (angstrom)")
    axes.legend(frameon=False)
    figure.axes[0].set_ylabel("error over spread (%)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main(n_train: int = 1000, n_test: int = 200, quick: bool = False) -> float:
    """Error with p = 1 over that of local features, target 1/r, box of 16 angstrom."""
    edges = QUICK_EDGES if quick else TEST_EDGES
    if quick:
        n_train, n_test = 300, 60
    errors = relative_errors(n_train, n_test, edges)
    print_table(errors, edges)
    draw(FOLDER / "errors.png", errors, edges)
    far = edges.index(16.0)
    ratio = errors["local and p = 1"][far, 0] / errors["local"][far, 0]
    print(
        f"\ntarget 1/r, 16 angstrom: p = 1 leaves 1/{1 / ratio:.0f} of the error of local features"
    )
    print(f"look at {FOLDER / 'errors.png'}")
    return float(ratio)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--n-train", type=int, default=1000)
    parser.add_argument("--n-test", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="fewer boxes: seconds")
    main(**vars(parser.parse_args()))
