"""Samples: shapes, integrals, and the spaces that their fields live on."""

from dataclasses import replace

import numpy as np
import pytest
import systems
from samples import make_kohn_sham_sample, make_sample

from fedens.errors import DatasetError
from fedens.fem.simplex import SimplexSpace
from fedens.fem.tensor import TensorSpace


def on_space(space):
    """A sample of ones on a space."""
    points, weights = space.points.numpy(), space.weights.numpy()
    return make_sample(
        points=points,
        weights=weights,
        fields={"density": np.ones(len(weights))},
        provenance={"space": space.describe()},
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"weights": np.ones((50, 1))}, "weights"),
        ({"points": np.ones((50, 2))}, "points"),
        ({"fields": {"density": np.ones(49)}}, "density"),
        ({"fields": {"density": np.full(50, np.nan)}}, "density"),
        ({"energy": np.nan}, "energy"),
        ({"forces": np.ones((3, 3))}, "forces"),
        ({"forces": np.full((2, 3), np.inf)}, "forces"),
        ({"stress": np.ones(6)}, "stress"),
    ],
)
def test_inconsistent_sample_is_refused(change, named):
    with pytest.raises(DatasetError, match=named):
        make_sample(**change)


def test_integrals_of_a_sample():
    sample = make_sample()
    parts = [sample.weights @ sample.fields[name] for name in ("kinetic", "xc", "electrostatic")]
    assert sample.energy_from_fields() == pytest.approx(sum(parts) - 2.5, abs=1e-12)
    assert sample.number_of_electrons == pytest.approx(sample.weights @ sample.fields["density"])
    empty = make_sample(fields={"kinetic": np.ones(50)})
    with pytest.raises(DatasetError, match="xc, electrostatic"):
        empty.energy_from_fields()
    with pytest.raises(DatasetError, match="density"):
        _ = empty.number_of_electrons


def test_the_energy_holds_what_no_field_carries():
    sample = make_kohn_sham_sample({})
    parts = [sample.weights @ sample.fields[name] for name in ("kinetic", "xc", "electrostatic")]
    expected = sum(parts) - 2.5 + 0.75 - 0.125
    assert sample.energy_from_fields() == pytest.approx(expected, abs=1e-12)


SPACES = {
    "periodic": lambda: TensorSpace([8.0, 9.0, 10.0], 3, 2),
    "molecule": lambda: SimplexSpace.for_structure(systems.dimer(), 1.0, 2.0, 4.0, order=1),
}


@pytest.mark.parametrize("kind", SPACES)
def test_the_space_is_made_again_from_its_description(kind):
    space = SPACES[kind]()
    again = on_space(space).space()
    assert type(again) is type(space)
    np.testing.assert_array_equal(again.points, space.points)
    np.testing.assert_array_equal(again.weights, space.weights)


def test_what_needs_boxes_of_elements_refuses_tetrahedra():
    sample = on_space(SPACES["periodic"]())
    np.testing.assert_array_equal(sample.tensor_space().points, sample.points)
    with pytest.raises(DatasetError, match=r"Al2 lives on SimplexSpace.*needs one on a Tensor"):
        on_space(SPACES["molecule"]()).tensor_space()


def test_a_space_that_is_missing_or_does_not_fit_is_refused():
    sample = on_space(SPACES["periodic"]())
    for provenance in ({}, {"space": None}, {"space": {"order": 2}}):
        with pytest.raises(DatasetError, match="Al2 does not say which space"):
            replace(sample, provenance=provenance).space()
    other = TensorSpace([8.0, 9.0, 10.0], 2, 2)
    with pytest.raises(DatasetError, match=f"points, its space {other.n_points}: they differ"):
        replace(sample, provenance={"space": other.describe()}).space()
