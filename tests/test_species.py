"""Element data: the table keeps what its recipe promises, and the script makes it."""

import json
import math
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from ase.data import chemical_symbols

from fedens.errors import DescriptorError
from fedens.species import all_element_gaussians, element_gaussians, valence_electrons

VALENCE = {"H": 1, "He": 2, "Li": 1, "C": 4, "O": 6, "Ne": 8, "Na": 1, "Al": 3, "Ar": 8}
SYMBOLS = chemical_symbols[1:19]
ROOT = Path(__file__).parents[1]


def table():
    return json.loads(resources.files("fedens").joinpath("data/element_gaussians.json").read_text())


def test_valence_electrons():
    assert {s: valence_electrons(s) for s in VALENCE} == VALENCE


def test_all_elements_to_argon():
    assert list(all_element_gaussians()) == SYMBOLS


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_densities(symbol):
    """Charge exact, density not negative, exponents apart, error as promised."""
    b, beta = np.array(element_gaussians(symbol)).T
    assert (b * (math.pi / beta) ** 1.5).sum() == pytest.approx(
        valence_electrons(symbol), rel=1e-12
    )
    r = np.linspace(0, 12, 600)[:, None]
    assert (np.exp(-beta * r**2) @ b).min() >= 0
    assert (beta > 0.05).all()
    assert (beta[1:] / beta[:-1]).min() > 1.99
    assert 0 < table()["elements"][symbol]["misplaced_charge"] < 0.06


def test_provenance():
    content = table()
    assert {"recipe", "basis", "functional", "pyscf", "made_by", "unit"} <= set(content)
    assert (ROOT / content["made_by"]).exists()


def test_the_script_makes_the_table(tmp_path):
    script, output = ROOT / table()["made_by"], tmp_path / "made.json"
    command = [sys.executable, str(script), "--elements", "N", "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    made, stored = json.loads(output.read_text())["elements"]["N"], table()["elements"]["N"]
    assert np.array(made["gaussians"]) == pytest.approx(np.array(stored["gaussians"]), rel=1e-3)
    assert made["misplaced_charge"] == pytest.approx(stored["misplaced_charge"], rel=1e-2)


@pytest.mark.parametrize("function", [valence_electrons, element_gaussians])
def test_unknown_element(function):
    with pytest.raises(DescriptorError, match=r"'K'.*H, He"):
        function("K")
