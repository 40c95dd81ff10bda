"""Tables of local pseudopotentials: reading, real and reciprocal space, energies against DFTpy."""

import gzip
import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from systems import GNH, GTHFIT, fcc, rattled

from fedens import (
    EnergyFunctional,
    GTHLocal,
    Recpot,
    Structure,
    TensorSpace,
    solve_ground_state,
)
from fedens.energy.electrostatics import Electrostatics
from fedens.energy.kohn_sham import KohnSham
from fedens.energy.pseudopotential import pseudopotential_from_description
from fedens.errors import MixtureWarning, PseudopotentialError
from fedens.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV

HERE = Path(__file__).parent
DFTPY = json.loads((HERE / "dftpy_recpot.json").read_text())
#: From the BLPS library; see the README beside them.
TABLES = ["al.lda.recpot", "al.gga.recpot"]


def form_factor(q):
    """v(q) of the GTH form with the parameters of ``GTHFIT``, closed form, hartree bohr^3."""
    valence, r_loc, c1, c2 = GTHFIT.valence, GTHFIT.r_loc, GTHFIT.c1, GTHFIT.c2
    x2 = (q * r_loc) ** 2
    gaussian = np.exp(-x2 / 2)
    core = (2 * math.pi) ** 1.5 * r_loc**3 * (c1 + c2 * (3 - x2)) * gaussian
    with np.errstate(divide="ignore", invalid="ignore"):
        coulomb = -4 * math.pi * valence / q**2 * gaussian
    # at q = 0 the file holds what is left without the pole
    return np.where(q == 0, core + 2 * math.pi * valence * r_loc**2, coulomb + core)


def write_recpot(
    path, largest=25.0, n=2001, *, too_many=0, origin=0.0, noise=0.0, comment="GTH local form"
):
    """A .recpot file of the GTH form; q up to ``largest`` 1/angstrom, v in eV angstrom^3.

    ``too_many`` numbers beyond the largest q; ``origin`` is added to v(q = 0), hartree bohr^3, and
    ``noise`` of this size to everything else.
    """
    q = np.arange(n + too_many) * largest * BOHR_IN_ANGSTROM / (n - 1)
    v = form_factor(q)
    v[0] += origin
    v[1:] += noise * np.random.default_rng(0).standard_normal(len(v) - 1)
    values = v * HARTREE_IN_EV * BOHR_IN_ANGSTROM**3
    rows = [" ".join(f"{v: .15e}" for v in values[i : i + 3]) for i in range(0, len(values), 3)]
    head = ["START COMMENT", comment, "END COMMENT", "   3     5", f"   {largest}"]
    path.write_text("\n".join([*head, *rows, "   1000", ""]))
    return path


@pytest.fixture
def recpot_file(tmp_path):
    return write_recpot(tmp_path / "al.recpot")


def unpacked(name, folder):
    """A table of the library, as a file that ``Recpot`` reads."""
    path = folder / name
    path.write_bytes(gzip.decompress((HERE / "blps" / f"{name}.gz").read_bytes()))
    return path


def short_range(pseudopotential, structure, space):
    return Electrostatics(pseudopotential).bind(structure, space).short_range


def test_recpot_file_holds_the_potential(recpot_file):
    table = Recpot(recpot_file)
    assert table.valence == 3.0
    r = torch.linspace(0.05, 40.0, 500, dtype=torch.float64)
    assert torch.allclose(table.potential(r), GTHFIT.potential(r), rtol=0, atol=1e-9)
    assert table.cutoff(1.2) < 10.0, "rounding in the table must not make it long-ranged"
    copy = pseudopotential_from_description(table.describe())
    assert torch.equal(copy.potential(r), table.potential(r))


def test_recpot_file_gives_the_same_energy_and_forces(recpot_file):
    structure = Structure(
        ["Al"] * 4,
        fcc().positions + np.array([[0.1, 0, 0.2], [0, 0, 0], [0, 0.1, 0], [0, 0, 0]]),
        [7.65] * 3,
        True,
    )
    space = TensorSpace.for_structure(structure, 0.45, 6)
    states = [
        solve_ground_state(
            structure,
            space,
            EnergyFunctional.orbital_free("wt", pseudopotential=pseudopotential),
            residual_tolerance=1e-8,
        )
        for pseudopotential in (GTHFIT, Recpot(recpot_file))
    ]
    assert states[1].energy == pytest.approx(states[0].energy, abs=4e-7)
    assert states[1].forces == pytest.approx(states[0].forces, abs=1e-6)
    assert np.abs(states[0].forces).max() > 1e-3


def test_missing_recpot_file(tmp_path):
    with pytest.raises(PseudopotentialError, match=r"no pseudopotential file .*absent\.recpot"):
        Recpot(tmp_path / "absent.recpot")
    with pytest.raises(PseudopotentialError, match="no pseudopotential file"):
        Recpot(tmp_path)


def cut_off(text):
    return text[: len(text) // 2]


def without_comment(text):
    return text.replace("END COMMENT", "")


def with_a_word(text):
    return text.replace("1000\n", "eof\n1000\n")


def too_short(text):
    return "\n".join([*text.splitlines()[:6], "1000"])


def in_other_units(text):
    lines = text.splitlines()
    table = [" ".join(str(float(v) / 100) for v in line.split()) for line in lines[5:-1]]
    return "\n".join([*lines[:5], *table, lines[-1]])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_off, "ends before its closing line '1000'"),
        (without_comment, "not a .recpot file"),
        (with_a_word, "not a .recpot file"),
        (too_short, "too few"),
        (in_other_units, "expected a whole valence"),
        (lambda text: "", "not a .recpot file"),  # noqa: ARG005
        (lambda text: text + "END COMMENT", "truncated|charge|recpot"),
    ],
)
def test_damaged_recpot_file(recpot_file, damage, said):
    recpot_file.write_text(damage(recpot_file.read_text()))
    if said.startswith("truncated|"):
        assert Recpot(recpot_file).valence == 3.0  # what follows the table is not read
        return
    with pytest.raises(PseudopotentialError, match=said):
        Recpot(recpot_file)


def test_binary_file_is_no_recpot(tmp_path):
    path = tmp_path / "binary.recpot"
    path.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(PseudopotentialError, match=r"not a \.recpot file"):
        Recpot(path)


def test_changed_recpot_file_is_noticed(recpot_file):
    description = Recpot(recpot_file).describe()
    write_recpot(recpot_file, largest=24.0)
    with pytest.raises(PseudopotentialError, match="checksum has changed"):
        pseudopotential_from_description(description)


@pytest.mark.parametrize("name", TABLES)
def test_energy_of_a_library_table_is_that_of_dftpy(name, tmp_path):
    case = DFTPY["energies"][name]
    given = DFTPY["structures"][case["symbol"]]
    structure = Structure([case["symbol"]] * 4, given["positions"], given["cell"], pbc=True)
    table = Recpot(unpacked(name, tmp_path))
    functional = EnergyFunctional.orbital_free("wt", xc=case["xc"], pseudopotential=table)
    space = TensorSpace.for_structure(structure, 0.23, 8)
    state = solve_ground_state(structure, space, functional)
    assert state.energy / 4 == pytest.approx(case["energy"] / 4, abs=3e-7)


@pytest.mark.parametrize("too_many", [1, 2, 10])
def test_spacing_of_q_makes_the_charge_whole(tmp_path, too_many):
    """The library's GGA tables have one number too many for the largest q they name."""
    table = Recpot(write_recpot(tmp_path / "al.recpot", too_many=too_many))
    r = torch.linspace(0.05, 40.0, 500, dtype=torch.float64)
    assert torch.allclose(table.potential(r), GTHFIT.potential(r), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", TABLES)
def test_charge_of_a_library_table_is_whole(name, tmp_path):
    step, values = Recpot(unpacked(name, tmp_path)).samples()
    assert (values[0] - values[1]) * step**2 / (4 * math.pi) == pytest.approx(3, abs=1e-8)


def test_value_at_zero_is_the_file_s_own(recpot_file):
    """All energies of periodic cells shift by it, as in plane waves; in real space it is held."""
    added = 1e-2
    shifted = Recpot(write_recpot(recpot_file.with_name("shifted"), origin=added))
    table, space = Recpot(recpot_file), TensorSpace.for_structure(rattled(), 0.5, 6)
    more = short_range(shifted, rattled(), space) - short_range(table, rattled(), space)
    assert float(space.integrate(more)) == pytest.approx(4 * added, rel=1e-9)
    assert float(more.max() - more.min()) < 1e-12
    r = torch.arange(0, 30, 0.01, dtype=torch.float64)
    difference = shifted.short_range(r, 1.2) - table.short_range(r, 1.2)
    integral = 4 * math.pi * 0.01 * float(torch.sum(r**2 * difference))
    assert integral == pytest.approx(added, rel=1e-6)


def test_noise_in_a_table_has_an_end(tmp_path):
    noisy = Recpot(write_recpot(tmp_path / "al.recpot", noise=1e-4))
    r = torch.linspace(12.0, 30.0, 500, dtype=torch.float64)
    assert noisy.short_range(r, 1.2).abs().max() < 1e-12
    assert noisy.cutoff(1.2) < 12.1
    exact, space = GTHFIT, TensorSpace.for_structure(rattled(), 0.5, 6)
    values = short_range(noisy, rattled(), space)
    smooth = 1 + 0.1 * torch.cos(2 * math.pi * space.points[:, 0] / 7.65)
    error = space.integrate(smooth * (values - short_range(exact, rattled(), space)))
    assert abs(float(error)) < 4 * 1e-4


def test_periodic_sum_is_that_of_the_closed_form(recpot_file):
    space = TensorSpace.for_structure(rattled(), 0.5, 6)
    one, two = (short_range(p, rattled(), space) for p in (Recpot(recpot_file), GTHFIT))
    assert torch.allclose(one, two, rtol=0, atol=1e-8)


def test_isolated_sum_is_that_of_the_closed_form(recpot_file):
    structure = Structure(["Al"] * 2, [[0, 0, 0], [3.0, 3.5, 1.0]])
    space = TensorSpace.for_structure(structure, 0.7, 6)
    one, two = (short_range(p, structure, space) for p in (Recpot(recpot_file), GTHFIT))
    assert torch.allclose(one, two, rtol=0, atol=1e-8)


def test_goodwin_needs_heine_is_the_same_in_both_spaces():
    space = TensorSpace.for_structure(rattled(), 0.4, 6)
    centres = torch.tensor(rattled().positions)
    real = space.radial_sum(centres, lambda r: GNH.short_range(r, 1.2), GNH.cutoff(1.2))
    assert torch.allclose(short_range(GNH, rattled(), space), real, rtol=0, atol=1e-8)


def test_stress_is_that_of_the_closed_form(recpot_file):
    space = TensorSpace.for_structure(rattled(), 0.45, 6)
    stresses = [
        solve_ground_state(
            rattled(), space, EnergyFunctional.orbital_free("wt", pseudopotential=p)
        ).stress
        for p in (Recpot(recpot_file), GTHFIT)
    ]
    assert stresses[0] == pytest.approx(stresses[1], abs=1e-8)
    assert np.abs(stresses[1]).max() > 1e-5


def test_partial_occupancies_of_a_table(recpot_file):
    structure = Structure(
        ["Al"] * 4, fcc().positions, fcc().cell, True, occupancies=[1.0, 0.5, 0.25, 1.0]
    )
    space = TensorSpace.for_structure(structure, 0.5, 6)
    one, two = (short_range(p, structure, space) for p in (Recpot(recpot_file), GTHFIT))
    assert torch.allclose(one, two, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "comment", "family"),
    [
        ("al.lda.recpot", "", "lda"),
        ("al_pbe.recpot", "", "gga"),
        ("li.lda.recpot", "Rho from GGA", "lda"),  # so says the library's own table
        ("al.recpot", "Rho from PBE", "gga"),
        ("al.recpot", "made for LDA", "lda"),
        ("al.recpot", "LDA and GGA", None),
        ("al.recpot", "", None),
    ],
)
def test_table_knows_its_functional(tmp_path, name, comment, family):
    assert Recpot(write_recpot(tmp_path / name, comment=comment)).xc_family == family


MAKERS = {
    "orbital-free": lambda xc, table: EnergyFunctional.orbital_free(xc=xc, pseudopotential=table),
    "Kohn-Sham": KohnSham,
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize(
    ("family", "fitting", "other"), [("lda", "lda_pw", "pbe"), ("gga", "pbe", "lda_pz")]
)
def test_mixture_of_functionals_warns(tmp_path, make, family, fitting, other):
    table = Recpot(write_recpot(tmp_path / f"al.{family}.recpot"))
    said = f"recpot pseudopotential of Al was made for a {family.upper()}, but xc is '{other}'"
    with pytest.warns(MixtureWarning, match=said):
        make(other, {"Al": table, "H": GTHLocal(1, 0.2)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(fitting, table)
        make(other, Recpot(write_recpot(tmp_path / "al.recpot")))
