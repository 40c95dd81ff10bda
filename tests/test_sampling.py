"""Which samples of Kohn-Sham calculations may be mixed, and what a reader is told of them."""

import pytest
from samples import make_kohn_sham_sample, make_sample
from systems import atom

from fedens.data.sampling import describe_samplings, sampling_differences, sampling_of

ONE = {
    "kspacing_per_bohr": 0.1,
    "kpoints": 512,
    "smearing": "methfessel_paxton",
    "width_hartree": 0.04,
}


def test_samples_without_orbitals_have_none():
    assert sampling_of(make_sample()) is None
    assert sampling_of(make_kohn_sham_sample(ONE)) == {**ONE, "cutoff_hartree": 16.0}


def test_isolated_structures_have_no_k_spacing():
    sample = make_kohn_sham_sample(
        {**ONE, "kspacing_per_bohr": None}, structure=atom(), forces=None
    )
    isolated = sampling_of(sample)
    assert "kspacing_per_bohr" not in isolated
    assert sampling_differences(isolated, ONE) == []


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"kspacing_per_bohr": 0.1199},
        {"kspacing_per_bohr": 0.0834},
        {"kpoints": 64},
    ],
)
def test_what_may_be_mixed(change):
    assert sampling_differences(ONE, ONE | change) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kspacing_per_bohr": 0.1201}, "k-spacing 0.1000 per bohr and 0.1201 per bohr"),
        ({"kspacing_per_bohr": 0.0833}, "k-spacing 0.1000 per bohr and 0.0833 per bohr"),
        ({"kspacing_per_bohr": None}, "k-spacing 0.1000 per bohr and that of no mesh"),
        ({"smearing": "cold"}, "smearing methfessel_paxton of 0.04 hartree and cold of 0.04"),
        ({"width_hartree": 0.03}, "of 0.04 hartree and methfessel_paxton of 0.03 hartree"),
        ({"width_hartree": 0.0}, "smearing methfessel_paxton of 0.04 hartree and none"),
    ],
)
def test_what_may_not_be_mixed_is_named(change, named):
    assert [named in words for words in sampling_differences(ONE, ONE | change)] == [True]
    assert len(sampling_differences(ONE | change, ONE)) == 1


def test_the_kind_of_no_smearing_does_not_matter():
    none = ONE | {"width_hartree": 0.0}
    assert sampling_differences(none, none | {"smearing": "gaussian"}) == []


def test_a_reader_gets_ranges_with_units():
    two = [{**ONE, "cutoff_hartree": 16.0}, {**ONE, "kspacing_per_bohr": 0.11}]
    two[1]["cutoff_hartree"] = 16.0
    assert describe_samplings(two) == {
        "k-spacing": "0.1 to 0.11 per bohr",
        "smearing": "methfessel_paxton of 0.04 hartree",
        "cutoff": "16 hartree",
    }
    assert describe_samplings([]) == {}
