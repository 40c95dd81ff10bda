"""The HTML report and its pictures."""

import base64
import re
from io import BytesIO
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image

from fedens.errors import OutputError
from fedens.fem.tensor import TensorSpace
from fedens.report.figures import (
    as_png,
    calibration_plot,
    density_of_states_plot,
    learning_curve,
    loss_curve,
    new_figure,
    parity_plot,
    power_law_plot,
)
from fedens.report.page import ReportContent, ReportFigure, ReportTable, write_report
from fedens.report.slices import draw_slice, slice_density
from fedens.structure import Structure
from fedens.units import BOHR_IN_ANGSTROM


@pytest.fixture(scope="module")
def cell():
    """A cell of three different edges, its space, and a field that tells x from y from z."""
    structure = Structure(["Al", "Al"], [[1, 2, 3], [4, 4, 6.5]], cell=[6.0, 7.0, 8.0], pbc=True)
    space = TensorSpace.for_structure(structure)
    x, y, _ = (2 * np.pi * space.points / torch.tensor(space.lengths)).T
    return structure, space, 3 + torch.sin(x) + 0.3 * torch.cos(y)


def picture_of(piece, signed=False):
    figure, (axes,) = new_figure(5.2, 4.4)
    draw_slice(figure, axes, piece, "a slice", signed=signed)
    return as_png(figure)


def content(**changes):
    curve = loss_curve([0, 10, 20], [1.0, 0.3, 0.1], [np.nan, 0.4, 0.2])
    values = {
        "title": "Aluminium <held out>",
        "summary": "Twelve cells.",
        "headline": [("NMAPE", 0.15123, "%")],
        "run": {"seed": 7, "kinetic energy": "Wang-Teter"},
        "tables": [
            ReportTable(
                "Errors",
                ["cell", "energy"],
                [["a", 1.23456], ["b", None]],
                units=["", "meV/atom"],
                caption="Per cell.",
            )
        ],
        "figures": [ReportFigure("Training", curve, "Loss.")],
        "notes": ["Open fields/heldout.pvd in ParaView."],
    }
    return ReportContent(**(values | changes))


def test_page_is_self_contained_and_holds_the_numbers(tmp_path):
    page = write_report(tmp_path / "report.html", content()).read_text()
    assert not re.search(r"https?:|url\(|@import|<link|<script", page)
    assert re.findall(r'src="([^",]*)', page) == ["data:image/png;base64"]
    for text in ("0.1512", "1.235", "meV/atom", "Wang-Teter", "heldout.pvd", "Per cell.", "Loss."):
        assert text in page
    assert "Aluminium &lt;held out&gt;" in page
    assert "prefers-color-scheme: dark" in page


def test_pictures_are_embedded_whole(tmp_path):
    given = content()
    page = write_report(tmp_path / "report.html", given).read_text()
    data = re.search(r'base64,([^"]*)"', page).group(1)
    assert base64.b64decode(data) == given.figures[0].png
    assert page == write_report(tmp_path / "again.html", given).read_text()


def test_empty_parts_are_left_out(tmp_path):
    page = write_report(tmp_path / "report.html", ReportContent("Only a title")).read_text()
    assert "Only a title" in page
    assert "<h2>" not in page


def test_parity_plot_says_the_error():
    with (
        patch("matplotlib.axes.Axes.text") as text,
        patch("matplotlib.axes.Axes.scatter") as scatter,
        patch("matplotlib.axes.Axes.set_xlabel") as xlabel,
    ):
        parity_plot([1.0, 2.0], [1.001, 1.997], "energy", "eV", error_unit="meV", error_factor=1e3)
    lines = ["MAE 2 meV", "spread of reference 500 meV", "2 values"]
    assert text.call_args.args[2] == "\n".join(lines)
    np.testing.assert_array_equal(scatter.call_args.args, [[1.0, 2.0], [1.001, 1.997]])
    assert xlabel.call_args.args == ("reference energy (eV)",)


def test_calibration_plot_shows_positive_pairs_on_one_scale():
    uncertainty, error = [0.1, 0.0, 2.0, np.nan], [-0.2, 5.0, 1.0, 1.0]
    with (
        patch("matplotlib.axes.Axes.scatter") as scatter,
        patch("matplotlib.axes.Axes.plot") as line,
        patch("matplotlib.axes.Axes.text") as text,
        patch("matplotlib.axes.Axes.set_xlabel") as xlabel,
    ):
        calibration_plot(uncertainty, error, "energy", "eV", ["correlation 0.9"])
    np.testing.assert_allclose(scatter.call_args.args, [[0.1, 2.0], [0.2, 1.0]])
    assert line.call_args.args[0] == line.call_args.args[1]
    assert line.call_args.args[0][0] < 0.1 < 2.0 < line.call_args.args[0][1]
    assert text.call_args.args[2] == "correlation 0.9\n2 values"
    assert xlabel.call_args.args == ("estimated error of the energy (eV)",)


def test_power_law_lines_have_their_exponent():
    with (
        patch("matplotlib.axes.Axes.plot") as plot,
        patch("matplotlib.axes.Axes.legend"),
    ):
        power_law_plot({"a": ([1.0, 2.0], [4.0, 1.0])}, "L", "error", {"L^-3": -3.0})
    curve, line = (call.args for call in plot.call_args_list)
    np.testing.assert_allclose(curve, [[1, 2], [4, 1]])
    np.testing.assert_allclose(line, [[1, 2], [4, 0.5]])


def test_validation_is_drawn_where_it_was_measured():
    with (
        patch("matplotlib.axes.Axes.plot") as plot,
        patch("matplotlib.axes.Axes.legend"),
    ):
        loss_curve([0, 10, 20], [1.0, 0.3, 0.1], [np.nan, 0.4, 0.2])
    training, validation = (call.args for call in plot.call_args_list)
    np.testing.assert_array_equal(training, [[0, 10, 20], [1.0, 0.3, 0.1]])
    np.testing.assert_array_equal(validation, [[10, 20], [0.4, 0.2]])


def test_pictures_are_png_and_not_empty(cell):
    structure, space, density = cell
    error = density - density.mean()
    pictures = [
        parity_plot(np.arange(5.0), np.arange(5.0) + 0.1, "force", "eV/angstrom"),
        parity_plot([1.0], [1.0], "energy", "eV"),
        calibration_plot([0.1, 0.2, 0.4], [0.1, 0.3, 0.3], "energy", "eV"),
        calibration_plot([1e-6, 1.0], [1e-5, 0.1], "energy", "eV", ["over decades"]),
        loss_curve([1, 2, 3], [3.0, 2.0, 1.0]),
        learning_curve([2, 4, 8], {"density": [1, 0.5, 0.2], "energy": [2, 0.7, 0.3]}, "%"),
        picture_of(slice_density(space, structure, density)),
        picture_of(slice_density(space, structure, error), signed=True),
    ]
    for picture in pictures:
        image = np.asarray(Image.open(BytesIO(picture)).convert("RGB"))
        assert min(image.shape[:2]) > 300
        assert image.std() > 5


def test_slice_holds_the_field_the_units_and_the_atoms(cell):
    structure, space, density = cell
    piece = slice_density(space, structure, density)
    assert piece.values.shape == (171, 200)
    x, y = (2 * np.pi * (np.arange(n) + 0.5) / n for n in (171, 200))
    expected = 3 + np.sin(x)[:, None] + 0.3 * np.cos(y)
    np.testing.assert_allclose(piece.values * BOHR_IN_ANGSTROM**3, expected, atol=1e-3)
    np.testing.assert_allclose(piece.extent, np.array([0, 6, 0, 7]) * BOHR_IN_ANGSTROM)
    np.testing.assert_allclose(piece.atoms, [np.array([1, 2]) * BOHR_IN_ANGSTROM])


def test_atoms_beyond_the_cells_boundary_are_in_the_plane(cell):
    """One at z = 7.8 is 0.3 from the first one, at 0.1 in a cell of 8; one at 1.5 is too far."""
    structure, space, density = cell
    moved = Structure(
        ["Al"] * 3, [[1, 2, 0.1], [3, 3, 7.8], [5, 5, 1.5]], cell=structure.cell, pbc=True
    )
    atoms = slice_density(space, moved, density).atoms
    np.testing.assert_allclose(atoms, np.array([[1, 2], [3, 3]]) * BOHR_IN_ANGSTROM)


@pytest.mark.parametrize("sign", [1, -1])
def test_colours_span_a_density_and_are_centred_on_zero_for_errors(cell, sign):
    structure, space, density = cell
    pieces = [slice_density(space, structure, field) for field in (density, sign * (density - 4))]
    limits = []
    for piece, signed in zip(pieces, (False, True), strict=True):
        figure, (axes,) = new_figure(5.2, 4.4)
        with patch.object(axes, "imshow", wraps=axes.imshow) as drawn:
            draw_slice(figure, axes, piece, "a slice", signed=signed)
        limits.append((drawn.call_args.kwargs["vmin"], drawn.call_args.kwargs["vmax"]))
    assert limits[0] == (pieces[0].values.min(), pieces[0].values.max())
    low, high = limits[1]
    assert -low == high == np.abs(pieces[1].values).max()


def test_picture_of_a_slice_is_the_right_way_up(cell):
    """Bright where the field is large: at small x, across all y."""
    structure, space, _ = cell
    density = 1 + (space.points[:, 0] < 3).double() + 0 * space.points[:, 1]
    picture = picture_of(slice_density(space, structure, density))
    image = Image.open(BytesIO(picture)).convert("L")
    grey = np.asarray(image)[100:-130, 120:-250].astype(float)
    left, right = np.array_split(grey, 2, axis=1)
    assert left.mean() > 2 * right.mean()


def test_bad_input_gets_a_clear_message(tmp_path):
    with pytest.raises(OutputError, match="a row of 1 cells, 2 columns"):
        ReportTable("Errors", ["a", "b"], [[1]])
    with pytest.raises(OutputError, match="1 units, 2 columns"):
        ReportTable("Errors", ["a", "b"], [], units=["%"])
    with pytest.raises(OutputError, match="not a PNG"):
        ReportFigure("Training", b"<svg>")
    with pytest.raises(OutputError, match="3 reference and 2 predicted"):
        parity_plot([1, 2, 3], [1, 2], "energy", "eV")
    with pytest.raises(OutputError, match="all finite"):
        parity_plot([1, np.nan], [1, 2], "energy", "eV")
    with pytest.raises(OutputError, match="3 uncertainties and 2 errors"):
        calibration_plot([1, 2, 3], [1, 2], "energy", "eV")
    with pytest.raises(OutputError, match="at least one pair of positive"):
        calibration_plot([0.0, np.nan], [1, 2], "energy", "eV")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(tmp_path / "file" / "report.html", content())


def test_the_density_of_states_is_filled_up_to_the_chemical_potential():
    energies, pixels = np.linspace(-0.5, 0.5, 101), []
    for chemical_potential in (-0.4, 0.4):
        png = density_of_states_plot(energies, np.ones(101), chemical_potential)
        image = np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(int)
        pixels.append(int((image[..., 2] - image[..., 0] > 30).sum()))
    assert pixels[1] > 3 * pixels[0] > 0


@pytest.mark.parametrize("states", [np.ones(3), np.full(4, np.nan)])
def test_a_density_of_states_that_does_not_fit_is_refused(states):
    with pytest.raises(OutputError, match="density of states: 4 energies"):
        density_of_states_plot(np.arange(4.0), states, 0.0)
