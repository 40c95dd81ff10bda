"""What a temperature adds to the free energy of the uniform gas, as a local functional.

Feynman, Metropolis and Teller, Phys. Rev. 75, 1561 (1949); Perrot, Phys. Rev. A 20, 586 (1979).
"""

from __future__ import annotations

import math

import torch
from numpy.polynomial.chebyshev import cheb2poly
from numpy.polynomial.polynomial import polyder
from torch import Tensor

from fedens.energy.terms import LocalTerm
from fedens.errors import FunctionalError

#: The series' variable is x = (tau - SCALE)/(tau + SCALE), tau^2 = theta + theta^2/CURVATURE.
SCALE, CURVATURE = 3.0, 10.0
#: Makes the logarithm that of the ideal gas and of Sommerfeld.
_LIMITS = math.pi**2 / 6
#: Chebyshev coefficients, made by ``scripts/thermal_gas.py``, which says how.
_CHEBYSHEV = (
    -0.112018257812643,
    0.158565728435262,
    -0.0417224239053065,
    -0.0208627165642554,
    0.0227767253382426,
    -0.00558983047245967,
    -0.00339541699472909,
    0.00289525571833742,
    -0.000385764422391059,
    -0.000493859313913839,
    0.000254595587804101,
    8.46580500530056e-6,
    -4.46505260409842e-5,
    1.14715382030172e-5,
    1.47337414846839e-6,
    -1.02768450035338e-6,
    6.52470662544862e-7,
    -5.59538232715242e-7,
    9.10321991787963e-9,
    2.06149899988196e-7,
    -6.02740430668433e-8,
    -3.23736962663196e-8,
    1.49663932003081e-8,
    2.94723157636905e-9,
    -7.89397666018875e-10,
    -7.24521471221952e-10,
    -4.05088846891145e-10,
    3.55416736278932e-10,
    1.05912467685558e-10,
    -1.00432647241643e-10,
    -7.63306805146943e-12,
    1.54412124345074e-11,
    -9.20950815517244e-13,
)
#: The same by powers of x (they lose two digits, not more), and the derivative's.
_POWERS: tuple[float, ...] = tuple(cheb2poly(_CHEBYSHEV))
_SLOPE_POWERS: tuple[float, ...] = tuple(polyder(_POWERS))


class ThermalThomasFermi(LocalTerm):
    """n k_B T F(E_F/(k_B T)): free energy of the uniform gas less its energy at zero temperature.

    Stands beside any functional that is Thomas-Fermi's for the uniform gas. The degenerate gas has
    F = -(pi^2/4) k_B T/E_F (Sommerfeld), the thin one F = ln(n lambda^3/2) - 1 - (3/5) E_F/(k_B T)
    with the thermal wavelength lambda; in between F is right to 1e-10 of itself.

    Args:
        temperature: k_B T, hartree.

    Raises:
        FunctionalError: a temperature that is not positive.
    """

    kind = name = "thermal_thomas_fermi"
    group = "kinetic"
    parameters = ("temperature",)

    def __init__(self, temperature: float):
        if not 0 < temperature < math.inf:
            raise FunctionalError(
                f"temperature is {temperature}: expected k_B T in hartree, above 0; at zero leave "
                "the term out"
            )
        self.temperature = temperature

    def energy_density_and_potential(self, n: Tensor, cube_root: Tensor) -> tuple[Tensor, Tensor]:
        wave_number = (3 * math.pi**2) ** (1 / 3) / math.sqrt(2 * self.temperature) * cube_root
        value, slope = _added_free_energy(wave_number)
        return self.temperature * n * value, self.temperature * (value + slope / 3)


def _added_free_energy(wave_number: Tensor) -> tuple[Tensor, Tensor]:
    """F and k_F dF/dk_F of k_F / sqrt(2 k_B T), whose square is theta = E_F/(k_B T).

    F = -(3/2) ln(1 + pi^2/(6 theta)) + (1 - x) g(x), g a polynomial.
    """
    theta = wave_number**2
    bend = 1 + theta / CURVATURE
    y = SCALE / (wave_number * torch.sqrt(bend) + SCALE)  # (1 - x)/2
    g, slope = (_polynomial(powers, 1 - 2 * y) for powers in (_POWERS, _SLOPE_POWERS))
    value = 2 * y * g - 1.5 * torch.log1p(_LIMITS / theta)
    y_slope = y * (y - 1) * (2 - 1 / bend)
    return value, 2 * (g - 2 * y * slope) * y_slope + 3 * _LIMITS / (theta + _LIMITS)


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    """Sum of c_k x^k by Horner's rule."""
    total = torch.zeros_like(x)
    for c in reversed(coefficients):
        total = torch.addcmul(x.new_tensor(c), x, total)
    return total
