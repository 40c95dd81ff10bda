"""Labels of random model potentials: drawn the same every time, for any metal, stored."""

import numpy as np
import pytest

from fedens.data.dataset import Dataset
from fedens.errors import ConfigurationError
from fedens.reference.kohn_sham.smearing import Smearing
from fedens.reference.model_potentials.drawing import KINDS
from fedens.reference.model_potentials.labels import ALUMINIUM, ModelPotentialLabels

#: Cheaper than the defaults.
LABELS = ModelPotentialLabels(ALUMINIUM, spacing=0.4, kspacing=0.07)


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_is_made_again_from_its_history(kind):
    sample = LABELS.sample(kind, 2, seed=1)
    drawn = sample.provenance["drawn"]
    again = ModelPotentialLabels.from_description(drawn["labels"])
    back = again.sample(drawn["kind"], drawn["index"], drawn["seed"])
    assert back.energy == sample.energy
    assert np.array_equal(back.fields["density"], sample.fields["density"])
    assert LABELS.sample(kind, 3, seed=1).energy != sample.energy
    assert LABELS.sample(kind, 2, seed=2).energy != sample.energy


@pytest.mark.parametrize("kind", KINDS)
def test_labels_scale_with_the_reference_density(kind):
    """n(r) -> n(r/2)/8 takes energies to a quarter, of the smearing too."""
    sample = LABELS.sample(kind, 1)
    thinner = ModelPotentialLabels(ALUMINIUM / 8, spacing=0.4, kspacing=0.07).sample(kind, 1)
    assert np.allclose(thinner.points, 2 * sample.points)
    assert np.allclose(thinner.fields["density"], sample.fields["density"] / 8, rtol=1e-6)
    assert thinner.energies["kinetic"] == pytest.approx(sample.energies["kinetic"] / 4, rel=1e-9)
    assert thinner.energies["entropy"] == pytest.approx(sample.energies["entropy"] / 4, rel=1e-6)


def test_kinds_differ_in_their_densities():
    lowest = {}
    for kind in KINDS:
        sample = LABELS.sample(kind, 0)
        density = sample.fields["density"]
        lowest[kind] = density.min() * sample.structure.volume / sample.number_of_electrons
        filled = 0.5 if kind == "slab" else 1.0
        mean = sample.number_of_electrons / sample.structure.volume / ALUMINIUM / filled
        assert 0.75 <= mean <= 1.2
    others = min(lowest[kind] for kind in KINDS if kind not in ("slab", "cores"))
    assert lowest["slab"] < 1e-3 < lowest["cores"] < 0.1 < others


def test_labels_of_all_kinds_make_one_data_set(tmp_path):
    data = Dataset.open(tmp_path, create=True)
    for name, sample in LABELS.samples({"planar": 1, "separable": 2, "slab": 1}):
        data.add(sample, name)
    assert data.names == ["planar-0000", "separable-0000", "separable-0001", "slab-0000"]
    assert Dataset.open(tmp_path).index["slab-0000"]["formula"] == "no-atoms"


def test_a_smearing_of_its_own_is_kept():
    warm = ModelPotentialLabels(ALUMINIUM, Smearing(0.02), spacing=0.4, kspacing=0.07)
    sample = warm.sample("planar", 0)
    assert sample.provenance["sampling"]["width_hartree"] == 0.02
    assert ModelPotentialLabels.from_description(warm.describe()) == warm
    assert LABELS.chosen_smearing == Smearing(0.04, "methfessel_paxton")


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ConfigurationError, match="expected planar, separable"):
        LABELS.sample("spherical", 0)
    with pytest.raises(ConfigurationError, match="positive number"):
        ModelPotentialLabels(0.0)
