"""What ``fedens info`` says of Kohn-Sham data, with units."""

from samples import make_kohn_sham_sample

from fedens.commands.info import describe_path
from fedens.data.dataset import Dataset

SAMPLING = {
    "kspacing_per_bohr": 0.1027,
    "kpoints": 512,
    "smearing": "methfessel_paxton",
    "width_hartree": 0.04,
}


def test_a_data_set_and_a_sample_show_sampling_functional_and_cutoff(tmp_path):
    data = Dataset.open(tmp_path, create=True)
    data.add(make_kohn_sham_sample(SAMPLING), "a")
    data.add(make_kohn_sham_sample(SAMPLING | {"kspacing_per_bohr": 0.1}, 1), "b")
    shown = describe_path(tmp_path)
    assert shown["functional"] == {"xc": "lda_pw"}
    assert shown["k-spacing"] == "0.1 to 0.1027 per bohr"
    assert shown["smearing"] == "methfessel_paxton of 0.04 hartree"
    assert shown["cutoff"] == "16 hartree"
    one = describe_path(tmp_path / "a.h5")
    assert one["k-spacing"] == "0.1027 per bohr"
    assert one["bands"] == "4 at 3 k-points"
    assert "hartree = " in one["chemical potential"]
