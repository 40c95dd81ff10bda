"""Who may import whom: the table of the design, kept by reading every import."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "fedens"

#: The ground: anyone may import these, and they import each other only as said.
GROUND = {
    "errors": set(),
    "units": set(),
    "files": set(),
    "progress": set(),
    "fields": {"units"},
    "structure": {"units"},
    "species": {"units"},
}
#: Direct imports allowed to each layer beside the ground; closed transitively below.
ALLOWED = {
    "fem": set(),
    "data": {"fem"},
    "energy": {"data"},
    "atoms": {"energy"},
    "features": {"energy"},
    "learning": {"fem"},
    "reference": {"atoms"},
    "sources": {"reference"},
    "models": {"learning", "features", "reference"},
    "analysis": {"models", "reference"},
    "generalisation": {"fem"},
    "configuration": {"features", "sources"},
    "output": {"data", "atoms"},
    "report": {"output", "analysis"},
    "testing": {"models"},
}
#: At the top: these may import everything, and nothing else may import them.
TOP = {"jobs", "commands", "calculator"}
#: Heavy packages, imported only inside the functions that use them.
LAZY = {"pyscf", "gmsh", "matplotlib", "pyvista", "vtk"}


def closure(allowed):
    """Everything that can be reached from a layer's direct imports."""
    closed = {layer: set(direct) for layer, direct in allowed.items()}
    changed = True
    while changed:
        changed = False
        for layer, reached in closed.items():
            more = set().union(*(closed[other] for other in reached)) - reached
            reached |= more
            changed |= bool(more)
            assert layer not in reached, f"{layer} would import itself"
    return closed


CLOSED = {name: direct | {"errors"} for name, direct in GROUND.items()}
CLOSED |= {name: reached | set(GROUND) for name, reached in closure(ALLOWED).items()}


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(tree, at_start_only=False):
    """Dotted names that a module imports, also inside functions and for type checkers only.

    ``at_start_only`` leaves those two out.
    """
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if at_start_only and is_type_checking(node):
            pending.extend(node.orelse)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write imports in full: from fedens.x import y"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not (at_start_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            pending.extend(ast.iter_child_nodes(node))


def layer_of(path):
    """First part of a module's name below the package, such as ``fem``."""
    relative = path.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def wrong_imports(layer, tree):
    """Imports of the package that a layer is not allowed."""
    wrong = []
    for name in imports(tree):
        package, _, rest = name.partition(".")
        other = rest.split(".")[0]
        if package != "fedens" or other in (layer, "__version__"):
            continue
        if layer not in TOP and other not in CLOSED[layer]:
            wrong.append(name)
    return wrong


MODULES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_table(path):
    layer = layer_of(path)
    assert layer in CLOSED or layer in TOP, f"{layer} has no place in the table of layers"
    assert wrong_imports(layer, ast.parse(path.read_text())) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_are_imported_where_they_are_used(path):
    at_the_top = {name.split(".")[0] for name in imports(ast.parse(path.read_text()), True)}
    assert not at_the_top & LAZY


@pytest.mark.parametrize(
    ("layer", "source", "caught"),
    [
        ("fem", "from fedens.data.density import Density", True),
        ("fem", "def f():\n    import fedens.energy.forces", True),
        ("fem", "class A:\n    def f(self):\n        from fedens import data", True),
        ("energy", "from fedens.atoms.baseline import free_atom", True),
        ("data", "from fedens.commands.cli import app", True),
        ("features", "from fedens.reference.orbital_free import solve_ground_state", True),
        ("fem", "if TYPE_CHECKING:\n    from fedens.data.sample import Sample", True),
        ("fem", "from fedens.errors import SpaceError\nfrom fedens.fem.axis import Axis", False),
        ("energy", "from fedens.units import HARTREE_IN_EV", False),
        ("commands", "from fedens.models.crystal import training", False),
    ],
)
def test_the_check_notices(layer, source, caught):
    assert bool(wrong_imports(layer, ast.parse(source))) == caught


def test_layers_are_closed_transitively():
    assert CLOSED["data"] == {"fem", *GROUND}
    assert "fem" in CLOSED["models"]
    assert "models" not in CLOSED["reference"]
    assert not {"energy", "structure"} & CLOSED["units"]


def test_reports_take_rows_and_plain_values():
    """What :data:`ALLOWED` lets through by way of the analysis: no model, no reference."""
    allowed = {"report", "analysis", "output", "data", "fem", *GROUND}
    for path in (ROOT / "report").glob("*.py"):
        names = [name.split(".") for name in imports(ast.parse(path.read_text()))]
        assert {name[1] for name in names if name[0] == "fedens"} <= allowed, path


def modules():
    """Name of every module -> the modules of the package that it imports, anywhere in it."""
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in MODULES}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    found = {}
    for name, path in names.items():
        imported = [i.removeprefix("fedens.") for i in imports(ast.parse(path.read_text()))]
        direct = {i if i in names else i.rpartition(".")[0] for i in imported}
        found[name] = (direct & set(names)) - {name}
    return found


def test_no_import_runs_in_a_circle():
    graphlib.TopologicalSorter(modules()).prepare()  # raises CycleError, with the circle


def test_import_of_the_package_is_light():
    """``import fedens`` alone loads neither torch nor anything else that takes seconds."""
    code = "import fedens, sys; print(sorted({'torch', 'pyscf', 'skfem'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_can_be_imported():
    import fedens

    for name in fedens.__all__:
        assert getattr(fedens, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Bananas'"):
        _ = fedens.Bananas
