"""Energy against volume of fcc aluminium: lattice constant and bulk modulus, learned and solved."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _model import example_model
from ase import units
from ase.build import bulk
from ase.eos import EquationOfState, birchmurnaghan
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedens import Calculator

FOLDER = Path("runs/equation_of_state")
#: Cubic lattice constants, angstrom; the model was trained on cells of 3.97 to 4.13.
LATTICE_CONSTANTS = np.linspace(3.99, 4.11, 7)
#: Colour and marker of each curve.
STYLES = {"solved": ("tab:blue", "o"), "predicted": ("tab:orange", "x")}


@dataclass
class Curve:
    """Volumes (angstrom^3), energies (eV), pressures (eV/angstrom^3) per atom, and their fit."""

    volumes: NDArray[np.float64]
    energies: NDArray[np.float64]
    pressures: NDArray[np.float64]

    def __post_init__(self) -> None:
        self.fit = EquationOfState(self.volumes, self.energies, eos="birchmurnaghan")
        volume, self.lowest_energy, self.bulk_modulus = self.fit.fit()
        self.lattice_constant = (4 * volume) ** (1 / 3)

    def fitted_energy(self, volumes: NDArray[np.float64]) -> NDArray[np.float64]:
        """The fit's energy per atom, eV."""
        return birchmurnaghan(volumes, *self.fit.eos_parameters)

    def fitted_pressure(self, volumes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Minus the slope of the fit, eV/angstrom^3."""
        step = 1e-4 * volumes
        change = self.fitted_energy(volumes + step) - self.fitted_energy(volumes - step)
        return -change / (2 * step)


def energy_curve(calculator: Calculator) -> Curve:
    """The cell of four atoms at all lattice constants.

    The calculator keeps the number of mesh elements of the first cell, so the curve is smooth.
    """
    rows = []
    for lattice_constant in LATTICE_CONSTANTS:
        atoms = bulk("Al", "fcc", a=lattice_constant, cubic=True)
        atoms.calc = calculator
        pressure = -atoms.get_stress()[:3].mean()
        rows.append((atoms.get_volume() / 4, atoms.get_potential_energy() / 4, pressure))
    return Curve(*np.array(rows).T)


def print_table(curves: dict[str, Curve]) -> None:
    """What the fits say, and how far the pressures are from their slopes."""
    print("           lattice constant    bulk modulus   |stress - slope of the fit|, largest")
    for name, curve in curves.items():
        gap = np.abs(curve.pressures - curve.fitted_pressure(curve.volumes)).max()
        print(
            f"{name:10} {curve.lattice_constant:9.5f} angstrom "
            f"{curve.bulk_modulus / units.GPa:10.3f} GPa {gap / units.GPa:10.4f} GPa"
        )


def draw(path: Path, curves: dict[str, Curve]) -> None:
    """Energies with their fits, and pressures from the stress with the slopes of the fits."""
    figure = Figure(figsize=(9, 4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    zero = curves["solved"].lowest_energy
    for name, curve in curves.items():
        colour, marker = STYLES[name]
        points = {"color": colour, "marker": marker, "linestyle": "", "fillstyle": "none"}
        line = {"color": colour, "linewidth": 1}
        fine = np.linspace(curve.volumes[0], curve.volumes[-1], 100)
        left.plot(curve.volumes, 1000 * (curve.energies - zero), **points, label=name)
        left.plot(fine, 1000 * (curve.fitted_energy(fine) - zero), **line)
        right.plot(curve.volumes, curve.pressures / units.GPa, **points, label=name)
        right.plot(fine, curve.fitted_pressure(fine) / units.GPa, **line)
    left.set(title="energies and their fit", ylabel="energy (meV/atom)")
    right.set(title="stress and slope of the fit", ylabel="pressure (GPa)")
    for axes in (left, right):
        axes.set_xlabel("volume (angstrom$^3$/atom)")
        axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main(model: str | None = None, quick: bool = False) -> float:
    """Difference of the two bulk moduli, percent."""
    predictor = example_model(model, quick)
    mesh = {"spacing": predictor.spacing, "order": predictor.order}
    curves = {
        "solved": energy_curve(Calculator(functional=predictor.functional, **mesh)),
        "predicted": energy_curve(Calculator(predictor, route="functional")),
    }
    print_table(curves)
    draw(FOLDER / "curves.png", curves)
    ratio = curves["predicted"].bulk_modulus / curves["solved"].bulk_modulus
    difference = 100 * abs(ratio - 1)
    print(f"difference of the bulk moduli: {difference:.3f} %")
    print(f"look at {FOLDER / 'curves.png'}")
    return difference


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder of a model; default: that of aluminium.yaml")
    parser.add_argument("--quick", action="store_true", help="a small model: seconds")
    main(**vars(parser.parse_args()))
