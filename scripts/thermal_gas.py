"""Print the coefficients of ``fedens/energy/thermal_kinetic.py``, with 30 digits on the way.

Recipe. The uniform gas at temperature T, with eta = mu/(k_B T), I_j the Fermi integrals and
theta = E_F/(k_B T), has

    (2/3) theta^(3/2) = I_1/2(eta),    f/(n k_B T) = eta - (2/3) I_3/2(eta) / I_1/2(eta),

f its free energy per volume. F(theta) = f/(n k_B T) - (3/5) theta is what a temperature adds. With
F = -(3/2) ln(1 + pi^2/(6 theta)) + (1 - x) g(x) both limits, the ideal gas and Sommerfeld's, are in
the logarithm, and g is a short Chebyshev series in x = (tau - 3)/(tau + 3),
tau^2 = theta + theta^2/10: analytic in k_F where the gas is ideal, in 1/E_F where it is degenerate.

Fermi integrals are trapezoidal sums over v, x = v^2, whose error falls exponentially with the
number of points; above theta = 300 they are Sommerfeld's series. Takes seconds; mpmath comes with
PyTorch.

    python scripts/thermal_gas.py
"""

from __future__ import annotations

from mpmath import cos, exp, findroot, im, log, log1p, mp, mpc, mpf, nstr, pi, sqrt, zeta

from fedens.energy.thermal_kinetic import CURVATURE, SCALE

HALF = mpf(1) / 2
NODES, KEPT = 64, 33
SOMMERFELD_ABOVE = 300
#: Largest exponent in an integral: exp(-80) is nothing.
FAR = 80


def fermi_integral(j: mpf, eta: mpf) -> mpf:
    """I_j(eta), the integral of x^j / (1 + exp(x - eta)) from 0 to infinity."""
    step = 2 * pi * im(sqrt(mpc(eta, pi))) / FAR  # the pole nearest to the axis
    count = int(sqrt(max(eta, 0) + FAR) / step) + 1
    power = int(2 * j + 1)
    terms = [(k * step) ** power / (1 + exp((k * step) ** 2 - eta)) for k in range(1, count)]
    return 2 * step * sum(terms)


def sommerfeld(j: mpf, eta: mpf) -> mpf:
    """I_j(eta) of a degenerate gas."""
    total, slope = eta ** (j + 1) / (j + 1), j * eta ** (j - 1)
    for k in range(1, 14):
        total += 2 * (1 - mpf(2) ** (1 - 2 * k)) * zeta(2 * k) * slope
        slope *= (j - 2 * k + 1) * (j - 2 * k) / eta**2
    return total


def added_free_energy(theta: mpf) -> mpf:
    """F(theta)."""
    integral = sommerfeld if theta > SOMMERFELD_ABOVE else fermi_integral
    filling = 2 * theta**1.5 / 3
    start = theta if theta > 1 else log(2 * filling / sqrt(pi))
    eta = findroot(lambda e: log(integral(HALF, e) / filling), start)
    return eta - 2 * integral(3 * HALF, eta) / (3 * filling) - 3 * theta / 5


def series_value(x: mpf) -> mpf:
    """g(x)."""
    tau = SCALE * (1 + x) / (1 - x)
    theta = CURVATURE / 2 * (sqrt(1 + 4 * tau**2 / CURVATURE) - 1)
    return (added_free_energy(theta) + 1.5 * log1p(pi**2 / (6 * theta))) / (1 - x)


def main() -> None:
    """Interpolate at the zeros of a Chebyshev polynomial and print."""
    mp.dps = 30
    angles = [pi * (k + HALF) / NODES for k in range(NODES)]
    values = [series_value(cos(angle)) for angle in angles]
    for order in range(KEPT):
        total = sum(v * cos(order * a) for v, a in zip(values, angles, strict=True))
        print(f"    {nstr(total * (1 if order == 0 else 2) / NODES, 15)},")


if __name__ == "__main__":
    main()
