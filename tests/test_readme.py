"""README.md: its Python blocks run in order, its commands and the files that it names are there."""

import re
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from fedens.commands.cli import app

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
#: What stands in code: between fences, or between single backticks.
CODE = re.findall(r"^```\n(.*?)^```", TEXT, re.M | re.S) + re.findall(r"(?<!`)`([^`\n]+)`", TEXT)


def python_blocks():
    """The code of each block, at the lines where it stands in the README."""
    for found in re.finditer(r"^```python\n(.*?)^```", TEXT, re.M | re.S):
        yield "\n" * TEXT.count("\n", 0, found.start(1)) + found[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::fedens.errors.ExtrapolationWarning")
def test_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in python_blocks():
        exec(compile(block, str(ROOT / "README.md"), "exec"), names)
    assert {path.name for path in tmp_path.iterdir()} >= {"model", "density.vtu"}
    assert names["atoms_and_bonds"]
    assert np.isfinite(names["found"].forces).all()


def test_commands_and_their_options_exist():
    commands = get_command(app).commands
    lines = [line for code in CODE for line in code.splitlines() if line.startswith("fedens ")]
    names = {line.split()[1] for line in lines} - {"--help"}
    assert names >= {"run", "predict", "import", "export", "train"}
    for name in names:
        options = {option for parameter in commands[name].params for option in parameter.opts}
        asked = {
            option
            for line in lines
            if line.split()[1] == name
            for option in re.findall(r"(?<!\S)--[\w-]+", line.split("#")[0])
        }
        assert asked - {"--help"} <= options


def test_targets_of_make_exist():
    targets = set(re.findall(r"\bmake ([\w-]+)", "\n".join(CODE)))
    assert targets >= {"demo", "test"}
    assert targets <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))


def test_files_exist():
    linked = {
        link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", TEXT) if ":" not in link
    }
    shown = re.findall(r"\b(?:examples|benchmarks|tests|meshes)/[\w./]+\w", TEXT)
    assert "benchmarks/RESULTS.md" in linked
    assert "examples/aluminium.yaml" in shown
    for name in linked | set(shown):
        assert (ROOT / name).exists(), name
