"""Dynamics of aluminium at constant energy: how well is the energy kept, predicted and solved?"""

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from _model import example_model
from ase import Atoms, units
from ase.build import bulk
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import linregress

from fedens import Calculator, Structure, write_pvd, write_vtu

FOLDER = Path("runs/dynamics")
LATTICE_CONSTANT = 4.032  # angstrom, where the energy is lowest: see equation_of_state.py
TIME_STEP = 2.0  # fs
#: Lines of progress per run, and densities in the series.
FRAMES = 20
#: Share of a run after which it has settled, and equal blocks of the rest.
SETTLING, BLOCKS = 0.1, 10


@dataclass
class Trajectory:
    """A run step by step: time (ps), total energy (meV/atom), temperature (K).

    ``frames``: time and atoms now and then. ``seconds``: what the run took.
    """

    times: list[float] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    temperatures: list[float] = field(default_factory=list)
    frames: list[tuple[float, Atoms]] = field(default_factory=list)
    seconds: float = 0.0

    def note(self, atoms: Atoms) -> None:
        """Add the present state of the atoms."""
        self.times.append(len(self.times) * TIME_STEP / 1000)
        self.energies.append(1000 * atoms.get_total_energy() / len(atoms))
        self.temperatures.append(atoms.get_temperature())

    def relative_energies(self) -> NDArray[np.float64]:
        """Total energy minus the first, meV/atom."""
        return np.array(self.energies) - self.energies[0]

    def slope(self) -> tuple[float, float]:
        """Least-squares slope of the total energy and its standard error, meV/atom/ps.

        Velocity Verlet lets the total energy swing with the vibrations, so neighbouring steps are
        not independent. Means of blocks as long as a vibration nearly are: the line goes through
        those, and the error comes from their scatter about it.
        """
        line = linregress(block_means(self.times), block_means(self.energies))
        return line.slope, line.stderr


def block_means(values: list[float]) -> NDArray[np.float64]:
    """Means of equal blocks of the settled part of a run; steps that fill no block are left out."""
    length = int((1 - SETTLING) * len(values)) // BLOCKS
    return np.array(values[-BLOCKS * length :]).reshape(BLOCKS, length).mean(axis=1)


def hot_crystal(repeats: int, temperature: float) -> Atoms:
    """A perfect crystal with Maxwell and Boltzmann's velocities at twice the temperature, K.

    Half of the kinetic energy soon becomes potential energy.
    """
    atoms = bulk("Al", "fcc", a=LATTICE_CONSTANT, cubic=True) * (repeats, repeats, repeats)
    spread = np.sqrt(atoms.get_masses() * units.kB * 2 * temperature)
    random = np.random.default_rng(0)
    atoms.set_momenta(spread[:, None] * random.standard_normal((len(atoms), 3)))
    Stationary(atoms)
    return atoms


def run(name: str, atoms: Atoms, steps: int) -> Trajectory:
    """Constant energy for a number of steps, with lines of progress."""
    trajectory, start = Trajectory(), time.monotonic()
    dynamics = VelocityVerlet(atoms, timestep=TIME_STEP * units.fs)

    def show() -> None:
        trajectory.frames.append((trajectory.times[-1], atoms.copy()))
        print(
            f"{name:9} step {dynamics.nsteps:4} of {steps}  {trajectory.times[-1]:6.3f} ps  "
            f"{trajectory.temperatures[-1]:5.0f} K  {trajectory.relative_energies()[-1]:+8.4f} "
            f"meV/atom  {time.monotonic() - start:6.1f} s",
            flush=True,
        )

    dynamics.attach(trajectory.note, atoms=atoms)
    dynamics.attach(show, interval=max(1, steps // FRAMES))
    dynamics.run(steps)
    trajectory.seconds = time.monotonic() - start
    return trajectory


def write_series(trajectory: Trajectory, predicted: Calculator, solved: Calculator) -> Path:
    """The predicted density and its error along a run, for ParaView."""
    entries = []
    for index, (picoseconds, atoms) in enumerate(trajectory.frames):
        density, exact = predicted.density(atoms), solved.density(atoms)
        fields = {"density": density.values, "density_error": density.values - exact.values}
        path = FOLDER / "frames" / f"{index:03d}.vtu"
        # five linear cells per element and axis: fine enough to look at, small enough for many
        files = write_vtu(path, density.space, fields, Structure.from_ase(atoms), subdivisions=5)
        entries.append((picoseconds, files))
    return write_pvd(FOLDER / "density.pvd", entries)


def print_table(trajectories: dict[str, Trajectory]) -> None:
    """Slope, swing, mean temperature and cost of each run."""
    print("\n          slope, meV/atom/ps    swing, meV/atom   temperature, K   s/step")
    for name, trajectory in trajectories.items():
        slope, error = trajectory.slope()
        settled = int(SETTLING * len(trajectory.times))
        swing = np.std(trajectory.energies[settled:])
        temperature = np.mean(trajectory.temperatures[settled:])
        cost = trajectory.seconds / (len(trajectory.times) - 1)
        print(f"{name:9} {slope:+.4f} +- {error:.4f} {swing:20.4f} {temperature:16.0f} {cost:8.2f}")


def draw(path: Path, trajectories: dict[str, Trajectory]) -> None:
    """Total energy of all runs against time."""
    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    for name, trajectory in trajectories.items():
        slope, error = trajectory.slope()
        label = f"{name}: {slope:+.4f} $\\pm$ {error:.4f} meV/atom/ps"
        axes.plot(trajectory.times, trajectory.relative_energies(), linewidth=1, label=label)
    axes.axvspan(0, SETTLING * trajectory.times[-1], color="0.92", label="not in the slopes")
    axes.set(xlabel="time (ps)", ylabel="total energy minus the first (meV/atom)")
    axes.legend(frameon=False, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main(
    steps: int = 500,
    temperature: float = 600.0,
    refinement_steps: int = 0,
    model: str | None = None,
    quick: bool = False,
) -> float:
    """Size of the predicted run's slope of the total energy, meV/atom/ps."""
    repeats, steps = (1, min(steps, 100)) if quick else (2, steps)
    predictor = example_model(model, quick)
    predicted = Calculator(predictor, route="functional", refinement_steps=refinement_steps)
    solved = Calculator(
        functional=predictor.functional, spacing=predictor.spacing, order=predictor.order
    )
    trajectories = {}
    for name, calculator in {"solved": solved, "predicted": predicted}.items():
        atoms = hot_crystal(repeats, temperature)
        atoms.calc = calculator
        trajectories[name] = run(name, atoms, steps)
    print_table(trajectories)
    pvd = write_series(trajectories["predicted"], predicted, solved)
    draw(FOLDER / "energy.png", trajectories)
    print(f"look at {FOLDER / 'energy.png'}, open {pvd} in ParaView")
    return abs(trajectories["predicted"].slope()[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500, help="of 2 fs; at least 20")
    parser.add_argument("--temperature", type=float, default=600.0, help="K")
    parser.add_argument("--refinement-steps", type=int, default=0, help="of the predicted density")
    parser.add_argument("--model", help="folder of a model; default: that of aluminium.yaml")
    parser.add_argument("--quick", action="store_true", help="4 atoms, a small model: seconds")
    options = parser.parse_args()
    if options.steps < 20:
        parser.error("--steps must be 20 or more: the slope needs ten blocks")
    main(**vars(options))
