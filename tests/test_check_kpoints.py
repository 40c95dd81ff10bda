"""``fedens check-kpoints``: changes in their units, a verdict, and what has no k-points."""

import re
from dataclasses import replace

import numpy as np
import pytest
import yaml
from samples import make_sample
from typer.testing import CliRunner

from fedens.commands.check_kpoints import changes, check_kpoints, verdict
from fedens.commands.cli import app
from fedens.errors import ConfigurationError
from fedens.progress import Progress
from fedens.units import HARTREE_IN_MEV, HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM

QUIET = Progress(quiet=True)
THEORY = {
    "kind": "kohn_sham",
    "xc": "lda_pz",
    "pseudopotentials": {"Al": {"kind": "gth_local", "valence": 3, "r_loc": 1.2, "c1": 2.0}},
    "kspacing": 0.83,
    "smearing": {"width": 0.05},
    "cutoff": 3.0,
    "residual_tolerance": 1e-4,
}
SMALL = {
    "structures": {"supercell": [1, 1, 1], "count": 2, "vacancy_fraction": 0.0},
    "theory": THEORY,
    "space": {"spacing": None, "order": 5},
    "training": {"train_count": 1},
}


@pytest.fixture
def config(tmp_path):
    """A configuration with changed sections."""

    def write(**sections):
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(SMALL | sections))
        return path

    return write


def test_changes_are_in_the_units_of_the_table():
    one = make_sample(fields={"density": np.full(50, 2.0)})
    push = np.zeros((2, 3))
    push[1, 2] = 0.01
    two = replace(
        one,
        energy=one.energy - 0.003,
        forces=one.forces + push,
        fields={"density": np.full(50, 1.9)},
    )
    found = changes(one, two)
    assert found["energy"] == pytest.approx(0.003 / 2 * HARTREE_IN_MEV)
    largest = 0.01 * HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM
    assert found["largest_force"] == pytest.approx(largest)
    assert found["mean_force"] == pytest.approx(largest / 6)
    assert found["density"] == pytest.approx(100 * 0.1 / 1.9)


@pytest.mark.parametrize(
    ("energy", "mean_force", "good"),
    [(0.99, 2.99, True), (1.01, 0.0, False), (0.0, 3.01, False)],
)
def test_the_verdict_keeps_both_limits(energy, mean_force, good):
    words = verdict({"energy": energy, "mean_force": mean_force})
    assert words.startswith("good enough") == good
    assert ("lower theory.kspacing" in words) != good


@pytest.mark.parametrize(
    ("sections", "index", "named"),
    [
        ({"theory": {"kind": "orbital_free"}, "space": {}}, 0, "has no k-points to check"),
        ({"theory": THEORY | {"kspacing": None}}, 0, "theory.kspacing is null"),
        ({}, 2, "has no structure 2: choose 0 to 1"),
    ],
)
def test_what_has_no_k_points_is_refused(config, sections, index, named):
    with pytest.raises(ConfigurationError, match=named):
        check_kpoints(config(**sections), index, QUIET)


def test_cells_of_the_job_on_functionals_are_checked_too(config):
    path = config(
        job="functional",
        structures=[SMALL["structures"]],
        larger=[SMALL["structures"]],
        training={"train_count": 1},
    )
    with pytest.raises(ConfigurationError, match="has no structure 4: choose 0 to 3"):
        check_kpoints(path, 4, QUIET)


def test_isolated_structures_have_no_k_points(config, tmp_path):
    (tmp_path / "atom.xyz").write_text("1\n\nAl 0 0 0\n")
    with pytest.raises(ConfigurationError, match=r"structure 0 of .* is isolated"):
        check_kpoints(config(structures={"file": "atom.xyz"}), 0, QUIET)


def test_the_command_prints_the_table_and_the_verdict(config):
    result = CliRunner().invoke(app, ["check-kpoints", str(config())], catch_exceptions=False)
    assert result.exit_code == 0
    words = " ".join(result.output.split())
    assert re.search(r"1 k-points, spacing 0\.8\d+ per bohr", words)
    assert re.search(r"8 k-points, spacing 0\.4\d+ per bohr", words)
    assert re.search(r"free energy . [\d.e+]+ . meV/atom", words)
    assert "not good enough to learn from" in words
