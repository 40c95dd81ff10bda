"""Every energy term: derivative, energy density, uniform gas, response; closed forms."""

import math

import numpy as np
import pytest
import torch
from systems import GTHFIT

from fedens import Density, EnergyFunctional, TensorSpace
from fedens.energy.kinetic import (
    THOMAS_FERMI,
    LuoKarasievTrickey,
    ThomasFermi,
    VonWeizsaecker,
)
from fedens.energy.nonlocal_kinetic import NonlocalKinetic, lindhard, screened_response
from fedens.energy.terms import LocalTerm, local_energy_density
from fedens.energy.thermal_kinetic import ThermalThomasFermi
from fedens.energy.xc import (
    DiracExchange,
    LibxcGradient,
    LibxcLocal,
    PerdewZunger,
    exchange_correlation,
)
from fedens.errors import FunctionalError
from fedens.testing import check_energy_term, check_uniform_response

SPACE = TensorSpace([6.0, 7.0, 8.0], 2, 6)
ISOLATED = TensorSpace([6.0, 7.0, 8.0], 3, 5, False)
WANG_TETER = (5 / 6, 5 / 6)
WANG_GOVIND_CARTER = ((5 + 5**0.5) / 6, (5 - 5**0.5) / 6)
#: Density at which r_s = 1, where Perdew-Zunger changes its form.
DENSE = 3 / (4 * math.pi)

TERMS = {
    "Thomas-Fermi": ThomasFermi(),
    "von Weizsaecker": VonWeizsaecker(),
    "von Weizsaecker / 5": VonWeizsaecker(1 / 5),
    "von Weizsaecker / 9": VonWeizsaecker(1 / 9),
    "Luo-Karasiev-Trickey": LuoKarasievTrickey(),
    "temperature": ThermalThomasFermi(0.04),
    "high temperature": ThermalThomasFermi(3.0),
    "Wang-Teter": NonlocalKinetic(0.03, *WANG_TETER),
    "Wang-Govind-Carter": NonlocalKinetic(0.03, *WANG_GOVIND_CARTER),
    "Dirac": DiracExchange(),
    "Perdew-Zunger": PerdewZunger(),
    "Perdew-Wang": LibxcLocal("lda_x,lda_c_pw"),
    "Teter": exchange_correlation("lda_teter"),
    "PBE": LibxcGradient("pbe,pbe"),
}
LOCAL = {name: term for name, term in TERMS.items() if isinstance(term, LocalTerm)}


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def wavy(space, mean):
    """A density of low symmetry around a mean, between 0.5 and 1.6 times it if periodic."""
    x, y, z = (space.points / torch.tensor(space.lengths, dtype=torch.float64)).T * math.tau
    wave = 0.1 * torch.sin(x + 0.3) + 0.08 * torch.cos(y) * torch.sin(z) + 0.05 * torch.cos(2 * z)
    root = mean**0.5 * (1 + wave)
    if not space.is_periodic:
        root = root * torch.sin(x / 2) * torch.sin(y / 2) * torch.sin(z / 2)
    return Density.from_root(space, space.project(root))


def uniform(mean):
    return Density.from_root(SPACE, SPACE.project(torch.full_like(SPACE.weights, mean**0.5)))


@pytest.mark.parametrize("mean", [0.03, 0.6])
@pytest.mark.parametrize("name", TERMS)
def test_term_in_a_periodic_box(name, mean):
    check_energy_term(TERMS[name], wavy(SPACE, mean))


@pytest.mark.parametrize("name", [name for name in TERMS if "Wang-" not in name])
def test_term_in_an_isolated_box(name):
    # far below r_s = 1 everywhere; libxc cuts densities off near the walls
    check_energy_term(TERMS[name], wavy(ISOLATED, 0.03), tolerance=1e-7)


def test_the_check_notices_a_wrong_derivative():
    class Wrong(ThomasFermi):
        def energy_density_and_potential(self, n, cube_root):
            energy, potential = super().energy_density_and_potential(n, cube_root)
            return energy, potential * (1 + 1e-6)

    with pytest.raises(AssertionError, match="finite differences"):
        check_energy_term(Wrong(), wavy(SPACE, 0.03))


def test_the_check_notices_a_wrong_energy_density():
    class Wrong(VonWeizsaecker):
        def energy_density(self, density):
            return super().energy_density(density) * (1 + 1e-6)

    with pytest.raises(AssertionError, match="its density's"):
        check_energy_term(Wrong(), wavy(SPACE, 0.03))


@pytest.mark.parametrize("name", [name for name in TERMS if name != "PBE"])
@pytest.mark.parametrize("mean", [0.03, 0.6])
def test_uniform_response(name, mean):
    term = TERMS[name]
    if isinstance(term, NonlocalKinetic):
        term = NonlocalKinetic(mean, term.alpha, term.beta)
    check_uniform_response(term, SPACE, mean)


def test_the_check_notices_a_wrong_response():
    class Wrong(VonWeizsaecker):
        def uniform_response(self, q2, density):
            return super().uniform_response(q2, density) * 1.001

    with pytest.raises(AssertionError, match="second differences"):
        check_uniform_response(Wrong(), SPACE, 0.03)


@pytest.mark.parametrize("name", LOCAL)
def test_local_potential_is_the_derivative_over_many_decades(name):
    lowest = -8.0 if "Wang" in name else -25.0  # libxc loses digits at low densities
    n = torch.logspace(lowest, 2, 400, dtype=torch.float64)
    n = n[(n / DENSE - 1).abs() > 1e-2]  # Perdew-Zunger jumps there

    def energy(n):
        return LOCAL[name].energy_density_and_potential(n, n ** (1 / 3))[0]

    _, potential = LOCAL[name].energy_density_and_potential(n, n ** (1 / 3))
    h = 1e-3 * n
    slope = (8 * (energy(n + h) - energy(n - h)) - energy(n + 2 * h) + energy(n - 2 * h)) / (12 * h)
    assert torch.allclose(potential, slope, rtol=1e-8, atol=0)


@pytest.mark.parametrize("name", LOCAL)
def test_vanishing_density_gives_finite_numbers(name):
    n = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    energy = local_energy_density([LOCAL[name]], n)
    (slope,) = torch.autograd.grad(energy.sum(), n)
    assert torch.isfinite(slope).all()
    assert energy.detach().abs().max() < 1e-27


def test_terms_share_one_evaluation():
    n = torch.logspace(-6, 0, 50, dtype=torch.float64, requires_grad=True)
    both = local_energy_density([ThomasFermi(), PerdewZunger()], n)
    alone = [local_energy_density([term], n) for term in (ThomasFermi(), PerdewZunger())]
    assert torch.allclose(both, sum(alone), rtol=1e-12)
    (slope,) = torch.autograd.grad(both.sum(), n)
    (expected,) = torch.autograd.grad(sum(alone).sum(), n)
    assert torch.allclose(slope, expected, rtol=1e-12)


@pytest.mark.parametrize("mean", [0.003, 0.03, 1.0])
def test_uniform_gas(mean):
    """Energies per volume of the uniform gas, from the Fermi wave number and r_s."""
    fermi = (3 * math.pi**2 * mean) ** (1 / 3)
    density, volume = uniform(mean), SPACE.volume
    kinetic = float(ThomasFermi().energy(density)) / volume
    assert kinetic == pytest.approx(mean * 0.3 * fermi**2, rel=1e-12)
    exchange = float(DiracExchange().energy(density)) / volume
    assert exchange == pytest.approx(-mean * 3 * fermi / (4 * math.pi), rel=1e-12)
    assert float(VonWeizsaecker().energy(density)) == pytest.approx(0.0, abs=1e-12)
    for exponents in (WANG_TETER, WANG_GOVIND_CARTER):
        nonlocal_kinetic = float(NonlocalKinetic(mean, *exponents).energy(density))
        assert nonlocal_kinetic == pytest.approx(0.0, abs=1e-12 * kinetic * volume)


def test_thomas_fermi_constant():
    assert pytest.approx(2.871234000188191, rel=1e-14) == THOMAS_FERMI


def test_von_weizsaecker_of_waves():
    """u = a cos(k x): (weight/2) a^2 k^2 V/2."""
    k, a = math.tau / 6.0, 0.3
    u = a * torch.cos(k * SPACE.points[:, 0])
    density = Density.from_root(SPACE, SPACE.project(u))
    exact = 0.2 * 0.5 * a**2 * k**2 * SPACE.volume / 2
    assert float(VonWeizsaecker(0.2).energy(density)) == pytest.approx(exact, rel=1e-6)


def test_luo_karasiev_trickey_of_its_formula():
    """Where s goes from 0 to where cosh overflows, from the density and its gradient."""
    space = TensorSpace([6.0, 7.0, 8.0], 3, 8)
    x = space.points[:, 0] * (math.tau / 6.0)
    density = Density.from_root(space, space.project(torch.exp(3 * torch.cos(x) - 3)))
    n, gradient = density.values, (density.gradient**2).sum(dim=1).sqrt()
    s = gradient / (2 * (3 * math.pi**2) ** (1 / 3) * n ** (4 / 3))
    assert s.min() < 1e-3
    assert s.max() > 5
    expected = THOMAS_FERMI * n ** (5 / 3) / torch.cosh(1.3 * s)
    assert torch.allclose(LuoKarasievTrickey().energy_density(density), expected, rtol=1e-10)


def test_luo_karasiev_trickey_where_the_root_density_changes_sign():
    """No overflow, no NaN, in value, derivative and second derivative."""
    x = SPACE.points[:, 0] * (math.tau / 6.0)
    c = SPACE.project(0.5 * torch.sin(x)).requires_grad_(True)
    energy = LuoKarasievTrickey().energy(Density.from_root(SPACE, c))
    (slope,) = torch.autograd.grad(energy, c, create_graph=True)
    (second,) = torch.autograd.grad(slope @ torch.ones_like(slope), c)
    assert torch.isfinite(slope).all()
    assert torch.isfinite(second).all()
    empty = torch.zeros(SPACE.n_coefficients, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(
        LuoKarasievTrickey().energy(Density.from_root(SPACE, empty)), empty
    )
    assert torch.isfinite(slope).all()


def test_lindhard_limits():
    assert float(lindhard(tensor(0.0))) == pytest.approx(1.0, abs=1e-15)
    assert float(lindhard(tensor(1.0))) == pytest.approx(0.5, abs=1e-9)
    eta = tensor(1e-3, 1e3)
    small, large = lindhard(eta).tolist()
    assert 1 - small == pytest.approx(1e-6 / 3, rel=1e-5)
    assert large == pytest.approx(1e-6 / 3, rel=1e-5)
    assert torch.isfinite(lindhard(tensor(0.0, 1.0, 1e8))).all()


def test_lindhard_series_meet_the_closed_form():
    eta = torch.cat([torch.linspace(0.1, 0.95, 341), torch.linspace(1.05, 7.0, 476)]).double()
    # the closed form in extended precision, so that it has digits left where it cancels
    e = eta.numpy().astype(np.longdouble)
    exact = 0.5 + (1 - e**2) / (4 * e) * np.log(np.abs((1 + e) / (1 - e)))
    assert lindhard(eta).numpy() == pytest.approx(exact.astype(float), rel=3e-13)


def kernel(eta):
    eta = torch.as_tensor(eta, dtype=torch.float64)
    return 1 / lindhard(eta) - 3 * eta**2 - 1


def test_wang_teter_kernel_limits():
    """-8 eta^2/3 at 0, -2 at 1, -8/5 at infinity."""
    assert float(kernel([1e-2])) / 1e-4 == pytest.approx(-8 / 3, rel=1e-3)
    assert float(kernel([1.0])) == pytest.approx(-2.0, abs=1e-8)
    assert float(kernel([300.0])) == pytest.approx(-8 / 5, rel=1e-4)


@pytest.mark.parametrize("exponents", [WANG_TETER, WANG_GOVIND_CARTER])
@pytest.mark.parametrize("mean", [0.01, 0.03])
def test_nonlocal_kinetic_has_the_lindhard_response(exponents, mean):
    """Second derivative of T_TF + T_vW + T_NL about the uniform gas: pi^2 / (k_F F_L(eta))."""
    terms = [ThomasFermi(), VonWeizsaecker(), NonlocalKinetic(mean, *exponents)]
    fermi = (3 * math.pi**2 * mean) ** (1 / 3)
    for mode in (1, 5, 40):
        wave = SPACE.evaluate(torch.eye(SPACE.n_coefficients, dtype=torch.float64)[mode])
        q = float(SPACE.laplacian_eigenvalues[mode]) ** 0.5
        size = 0.005 * mean / float(wave.abs().max())

        def energy(amplitude, wave=wave):
            values = mean + amplitude * wave
            density = Density.from_root(SPACE, SPACE.project(torch.sqrt(values)))
            return float(sum(term.energy(density) for term in terms))

        second = (energy(size) - 2 * energy(0.0) + energy(-size)) / size**2
        exact = math.pi**2 / (fermi * float(lindhard(tensor(q / (2 * fermi)))))
        assert second == pytest.approx(exact, rel=1e-4)


def test_nonlocal_kinetic_on_two_spaces_in_turn():
    term, other = NonlocalKinetic(0.03), TensorSpace([9.0, 7.0, 8.0], 2, 6)
    for space in (SPACE, other, SPACE):
        density = wavy(space, 0.03)
        assert float(term.energy(density)) == float(NonlocalKinetic(0.03).energy(density))


def test_nonlocal_kinetic_follows_its_mean_density():
    """The energy's derivative in n0, for the stress: prefactor and k_F both change."""
    density = wavy(SPACE, 0.03)
    n0 = torch.tensor(0.031, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(NonlocalKinetic(n0, *WANG_TETER).energy(density), n0)
    h = 1e-5
    ahead, behind = (
        float(NonlocalKinetic(0.031 + s, *WANG_TETER).energy(density)) for s in (h, -h)
    )
    assert float(slope) == pytest.approx((ahead - behind) / (2 * h), rel=1e-6)
    assert abs(float(slope)) > 1e-3


def test_perdew_zunger_against_libxc():
    n = torch.logspace(-8, 1.5, 300, dtype=torch.float64)
    libxc = LibxcLocal("lda_x,lda_c_pz").energy_density_and_potential(n, n ** (1 / 3))
    ours = PerdewZunger().energy_density_and_potential(n, n ** (1 / 3))
    for one, two in zip(ours, libxc, strict=True):
        assert torch.allclose(one, two, rtol=1e-12, atol=0)


def test_teter_closed_form():
    """The Pade form of Goedecker, Teter and Hutter, Phys. Rev. B 54, 1703 (1996), appendix."""
    n = torch.logspace(-6, 1.5, 100, dtype=torch.float64)
    rs = (DENSE / n) ** (1 / 3)
    above = 0.4581652932831429 + rs * (
        2.217058676663745 + rs * (0.7405551735357053 + rs * 0.01968227878617998)
    )
    below = rs * (
        1.0 + rs * (4.504130959426697 + rs * (1.110667363742916 + rs * 0.02359291751427506))
    )
    found, _ = exchange_correlation("lda_teter").energy_density_and_potential(n, n ** (1 / 3))
    assert torch.allclose(found, -n * above / below, rtol=1e-12, atol=0)


def test_perdew_zunger_jumps_at_rs_of_one():
    """By 3.2e-5 hartree per electron in the published form: no convergence-order tests with it."""
    n = DENSE * tensor(1 - 1e-9, 1 + 1e-9)
    energy, _ = PerdewZunger().energy_density_and_potential(n, n ** (1 / 3))
    per_electron = energy / n
    assert abs(float(per_electron[1] - per_electron[0])) == pytest.approx(3.2e-5, abs=2e-6)


def test_pbe_of_the_uniform_gas_is_perdew_wang():
    density = uniform(0.03)
    pbe, lda = (float(exchange_correlation(name).energy(density)) for name in ("pbe", "lda_pw"))
    assert pbe == pytest.approx(lda, rel=1e-4)
    modulated = wavy(SPACE, 0.03)
    pbe, lda = (float(exchange_correlation(name).energy(modulated)) for name in ("pbe", "lda_pw"))
    assert pbe < lda - 1e-5, "gradients make exchange stronger"


def test_functionals_by_name():
    assert isinstance(exchange_correlation("lda_pz"), PerdewZunger)
    assert isinstance(exchange_correlation("lda_x"), DiracExchange)
    assert isinstance(exchange_correlation("lda_pw"), LibxcLocal)
    assert isinstance(exchange_correlation("lda_teter"), LibxcLocal)
    assert isinstance(exchange_correlation("lda_x,lda_c_vwn"), LibxcLocal)
    assert isinstance(exchange_correlation("pbe"), LibxcGradient)
    n = tensor(0.02)
    closed = DiracExchange().energy_density_and_potential(n, n ** (1 / 3))[0]
    libxc = LibxcLocal("lda_x,").energy_density_and_potential(n, n ** (1 / 3))[0]
    assert float(closed) == pytest.approx(float(libxc), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "said"),
    [("lda_bananas", "not known"), ("b3lyp", "hybrid"), ("scan", "MGGA"), ("", "HF")],
)
def test_functionals_that_a_density_cannot_carry(name, said):
    with pytest.raises(FunctionalError, match=said):
        exchange_correlation(name)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kinetic": "tf"}, "expected 'tfvw', 'wt', 'wgc' or 'lkt'"),
        ({"kinetic": "wt", "vw_weight": 0.2}, "use vw_weight=1"),
        ({"kinetic": "wgc", "vw_weight": 1 / 9}, "use vw_weight=1"),
        ({"kinetic": "lkt", "vw_weight": 1 / 9}, "use vw_weight=1"),
        ({"temperature": -0.01}, "temperature is -0.01: expected k_B T"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"vw_weight": 0.0}, "must be positive"),
        ({"vw_weight": float("nan")}, "must be positive"),
        ({"pseudopotential": None}, "no pseudopotential given"),
        ({"xc": "nonsense"}, "not known"),
    ],
)
def test_undefined_functionals_are_named(arguments, said):
    with pytest.raises(FunctionalError, match=said):
        EnergyFunctional.orbital_free(**({"pseudopotential": GTHFIT} | arguments))


def test_screened_response_limits():
    """No net charge; perfect screening of long waves, -q^2/(4 pi); free response of short ones."""
    mean = torch.tensor(0.03, dtype=torch.float64)
    large = TensorSpace([200.0, 6.0, 6.0], (4, 1, 1), 8)
    response = screened_response(large, mean, PerdewZunger())
    assert float(response[0]) == 0.0
    q2 = large.laplacian_eigenvalues
    assert (response[1:] < 0).all()
    order = torch.argsort(q2)
    longest, shortest = order[1], order[-1]
    perfect = -float(q2[longest]) / (4 * math.pi)
    assert float(response[longest]) == pytest.approx(perfect, rel=2e-3)
    fermi = float((3 * math.pi**2 * mean) ** (1 / 3))
    free = -fermi / math.pi**2 * lindhard(q2[shortest : shortest + 1] ** 0.5 / (2 * fermi))
    assert float(response[shortest]) == pytest.approx(float(free), rel=5e-3)
