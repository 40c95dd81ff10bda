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
from fedens.species import all_element_gaussians, element_gaussians

VALENCE = {"H": 1, "He": 2, "Li": 1, "C": 4, "O": 6, "Ne": 8, "Na": 1, "Al": 3, "Ar": 8}
VALENCE |= {"K": 1, "Ca": 2, "Sc": 3, "Cr": 6, "Cu": 11, "Zn": 12, "Ga": 3, "Kr": 8, "Ag": 11}
VALENCE |= {
    "Cs": 1,
    "La": 3,
    "Ce": 4,
    "Yb": 16,
    "Lu": 3,
    "Au": 11,
    "Pb": 4,
    "Rn": 8,
    "Ra": 2,
    "U": 6,
}
# those that models have been trained with; to 1e-8
LIGHT = {"H": 0.022038725993748003, "N": 0.05465835954675094, "Al": 0.04865858918301578}
SYMBOLS = list(all_element_gaussians())
ROOT = Path(__file__).parents[1]


def table():
    return json.loads(
        resources.files("fedens").joinpath("tables/element_gaussians.json").read_text()
    )


def test_valence_electrons():
    elements = table()["elements"]
    assert {s: elements[s]["valence_electrons"] for s in VALENCE} == VALENCE


def test_elements():
    """From hydrogen to uranium, in order."""
    assert chemical_symbols[1:93] == SYMBOLS


def test_light_elements_stay_as_they_are():
    assert {s: element_gaussians(s)[0][0] for s in LIGHT} == pytest.approx(LIGHT, rel=1e-8)


def test_methods():
    """Each element names its basis, pseudopotential and relativity."""
    elements = table()["elements"]
    assert {e["basis"] for e in elements.values()} == {"def2-qzvpp", "ano-rcc"}
    named = {"Kr": ("", "none"), "Rb": ("def2-ecp", "pseudopotential"), "Gd": ("", "spin-free X2C")}
    for symbol, method in named.items():
        assert (elements[symbol]["pseudopotential"], elements[symbol]["relativity"]) == method


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_densities(symbol):
    """Charge exact, density not negative, exponents apart, error as promised."""
    b, beta = np.array(element_gaussians(symbol)).T
    electrons = table()["elements"][symbol]["valence_electrons"]
    assert (b * (math.pi / beta) ** 1.5).sum() == pytest.approx(electrons, rel=1e-12)
    r = np.linspace(0, 12, 600)[:, None]
    assert (np.exp(-beta * r**2) @ b).min() >= 0
    assert (beta > 0.04).all()
    assert (beta[1:] / beta[:-1]).min() > 1.99
    assert 0 < table()["elements"][symbol]["misplaced_charge"] < 0.09


def test_provenance():
    content = table()
    assert {"recipe", "functional", "pyscf", "made_by", "unit"} <= set(content)
    assert (ROOT / content["made_by"]).exists()


@pytest.mark.slow
@pytest.mark.parametrize("symbol", ["N", "Rb"])
def test_the_script_makes_the_table(tmp_path, symbol):
    """With all electrons and with a pseudopotential; other elements in the file are kept."""
    script, output = ROOT / table()["made_by"], tmp_path / "made.json"
    output.write_text(json.dumps({"elements": {"H": {"kept": True}}}))
    command = [sys.executable, str(script), "--elements", symbol, "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    elements = json.loads(output.read_text())["elements"]
    made, stored = elements[symbol], table()["elements"][symbol]
    assert elements["H"] == {"kept": True}
    assert np.array(made["gaussians"]) == pytest.approx(np.array(stored["gaussians"]), rel=1e-3)
    assert made["misplaced_charge"] == pytest.approx(stored["misplaced_charge"], rel=1e-2)


def test_unknown_element():
    with pytest.raises(DescriptorError, match=r"'Og'.*H, He"):
        element_gaussians("Og")
