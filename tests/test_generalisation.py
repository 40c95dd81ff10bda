"""Defects, their relaxation, observations and linear fits against exact answers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedens.errors import ConvergenceError, FedensError, ModelError, StructureError
from fedens.generalisation.defects import (
    Crystal,
    Defect,
    crystal_stress,
    defect_in_ball,
    defect_in_supercell,
    relaxed_crystal,
)
from fedens.generalisation.experiment import (
    check_size,
    compare,
    far_field_model,
    large_crystal,
    scaled_basis,
    spring_of_error,
)
from fedens.generalisation.far_field import FarFieldPerturbation
from fedens.generalisation.gupta import Gupta
from fedens.generalisation.lattice import GreenOperator, force_constants, relative_error
from fedens.generalisation.linear_model import DensityPolynomials, GuptaFeatures
from fedens.generalisation.measures import Strain, decay
from fedens.generalisation.observations import (
    UNITS,
    Design,
    ForceConstantsOf,
    Forces,
)
from fedens.generalisation.potential import AsePotential
from fedens.generalisation.relaxation import TIGHT, relax, stability
from fedens.generalisation.slopes import slope, slopes
from fedens.generalisation.terms import Terms, judge, relaxation_volume, training_domain
from fedens.testing import central_difference

GUPTA = Gupta()
SIZES = np.array([1.3, 1.7, 2.1, 2.5])
#: b of the strain's decay as b (a / r)^3: about that of a vacancy.
AMPLITUDE = 0.02
KINDS = tuple(UNITS)
TARGETS = {"energy": 1e-3, "forces": 3e-3, "virial": 1e-3, "force_constants": 1e-3}
#: Of the fits: no more than rounding needs.
RIDGE = 1e-14


@pytest.fixture(scope="module")
def crystal():
    return relaxed_crystal(GUPTA, "Al", 7.65)


@pytest.fixture(scope="module")
def constants(crystal):
    return force_constants(GUPTA, crystal)


@pytest.fixture(scope="module")
def large(crystal, constants):
    """A vacancy in a ball of four lattice constants."""
    return large_crystal(GUPTA, crystal, "vacancy", 4.0, constants)


@pytest.fixture(scope="module")
def domain(crystal):
    """A vacancy in a training domain of three shells."""
    defect = defect_in_ball(crystal, "vacancy", 1.3 * crystal.lattice_constant, GUPTA.cutoff)
    return training_domain(GUPTA, defect, amplitude=AMPLITUDE, snapshots=2, rattle=0.1)


def test_lattices():
    """Shells of fcc: 1, 12, 6, 24 sites within 1.3 lattice constants; of bcc 1, 8, 6, 12."""
    assert len(Crystal("Al", 7.65).ball(1.3 * 7.65)) == 43
    assert len(Crystal("Fe", 5.4, "bcc").ball(1.5 * 5.4)) == 27
    assert Crystal("Fe", 5.4, "bcc").atomic_volume == pytest.approx(5.4**3 / 2)


@pytest.mark.parametrize(("kind", "missing"), [("vacancy", 1), ("divacancy", 2), ("dumbbell", -1)])
def test_defects(crystal, kind, missing):
    ball = defect_in_ball(crystal, kind, 2 * crystal.lattice_constant, GUPTA.cutoff)
    cell = defect_in_supercell(crystal, kind, 3)
    assert ball.missing == cell.missing == missing
    assert len(cell.structure) == 108 - missing
    assert ball.free.sum() < len(ball.structure)
    assert cell.free.all()


def test_clamped_atoms_hide_the_surface(crystal):
    """In a perfect ball no free atom feels a force."""
    a = crystal.lattice_constant
    ball = crystal.ball(2 * a + 2 * GUPTA.cutoff)
    free = np.linalg.norm(ball.positions, axis=1) <= 2 * a
    forces = GUPTA.bind(ball).energy_and_forces(ball.positions)[1]
    assert np.abs(forces[free]).max() < 1e-12
    assert np.abs(forces[~free]).max() > 1e-3


def test_green_operator_inverts_the_hessian(crystal, constants):
    """In a perfect supercell: forces of any displacement without a mean give it back."""
    cell = crystal.cell(7)
    everything = np.ones(len(cell), dtype=bool)
    perfect = Defect(cell, cell.positions, everything, cell, crystal, 1.0)
    displacement = np.random.default_rng(0).standard_normal(cell.positions.shape)
    displacement -= displacement.mean(axis=0)
    forces = GUPTA.bind(cell).hessian(cell.positions)(displacement)
    assert np.allclose(GreenOperator(constants, perfect)(forces), displacement, atol=1e-10)


def test_force_constants_are_those_observed(crystal, constants):
    """By second derivatives, and by forces on all atoms of a crystal with one displaced."""
    cell = crystal.cell(7)
    observed = ForceConstantsOf(cell).of(GUPTA)
    assert np.abs(observed - constants.values[:, 0]).max() < 1e-4 * np.abs(observed).max()
    assert np.abs(constants.values.sum(axis=0)).max() < 1e-12


def test_relative_error_of_a_scaled_model(crystal, constants):
    scaled = replace(GUPTA, repulsion=1.03 * GUPTA.repulsion, attraction=1.03 * GUPTA.attraction)
    assert relative_error(constants, force_constants(scaled, crystal)) == pytest.approx(0.03)
    assert relative_error(constants, constants) < 1e-12


def test_relaxation(crystal, constants):
    """To 1e-9 eV/angstrom; the preconditioner changes the way, not the end."""
    defect = defect_in_ball(crystal, "vacancy", 2.5 * crystal.lattice_constant, GUPTA.cutoff)
    green = GreenOperator(constants, defect)
    seen = []
    good = relax(GUPTA, defect, green, report=lambda step, force: seen.append((step, force)))
    plain = relax(GUPTA, defect, lambda forces: forces)
    assert good.largest_force < TIGHT
    assert seen[-1] == (good.steps, good.largest_force)
    assert np.allclose(good.positions, plain.positions, atol=1e-8)
    assert (good.positions[~defect.free] == defect.structure.positions[~defect.free]).all()
    assert stability(GUPTA, defect, good.positions, green) > 0
    with pytest.raises(ConvergenceError, match="after 1 steps") as caught:
        relax(GUPTA, defect, green, max_steps=1)
    assert caught.value.result.steps == 1
    with pytest.raises(ConvergenceError, match="force of nan eV/angstrom: it is not finite"):
        relax(GUPTA, defect, green, start=np.full_like(good.positions, np.nan))


def test_preconditioner_saves_products(crystal, constants):
    """A Hessian of 863 atoms is conditioned as one of a few."""
    defect = defect_in_supercell(crystal, "vacancy", 6)
    good = relax(GUPTA, defect, GreenOperator(constants, defect), tolerance=1e-8)
    plain = relax(GUPTA, defect, lambda forces: forces, tolerance=1e-8)
    assert good.products < 0.5 * plain.products


def test_relaxed_energy_against_another_minimiser(crystal, constants):
    """SciPy's L-BFGS, with the same forces, ends in the same energy."""
    from scipy.optimize import minimize

    defect = defect_in_supercell(crystal, "dumbbell", 4)
    found = relax(GUPTA, defect, GreenOperator(constants, defect))
    bound = GUPTA.bind(defect.structure)

    def energy(flat):
        value, forces = bound.energy_and_forces(flat.reshape(-1, 3))
        return value, -forces.ravel()

    start = defect.structure.positions.ravel()
    other = minimize(energy, start, jac=True, method="L-BFGS-B", options={"maxiter": 400})
    assert found.energy == pytest.approx(other.fun, abs=1e-6)
    assert found.energy < other.fun + 1e-10


def test_strain_of_a_homogeneous_deformation(crystal):
    defect = defect_in_ball(crystal, "vacancy", 2 * crystal.lattice_constant, GUPTA.cutoff)
    gradient = np.random.default_rng(1).standard_normal((3, 3))
    displacement = defect.sites @ gradient.T
    strain = Strain(defect)
    inside = (defect.distances > 1.5 * crystal.neighbour_distance) & defect.free
    expected = np.linalg.norm(gradient)
    assert np.sqrt(strain.squared(displacement)[inside]) == pytest.approx(expected, rel=1e-12)
    total = strain.squared(displacement).sum()
    assert strain.norm(displacement) ** 2 == pytest.approx(total, rel=1e-12)


def test_decay_of_a_known_field(crystal):
    """u = x / r^3 has |Du| = sqrt(6) / r^3."""
    defect = defect_in_ball(crystal, "vacancy", 6 * crystal.lattice_constant, 1.0)
    x = defect.sites / crystal.lattice_constant
    displacement = crystal.lattice_constant * x / np.linalg.norm(x, axis=1)[:, None] ** 3
    distances, values = decay(defect, displacement, [3.0, 4.0, 5.0])
    assert ((distances > 3) & (distances < 5)).all()
    assert values == pytest.approx(6**0.5, rel=0.04)


def test_slope_of_a_power_law():
    x = np.array([1.0, 2.0, 3.0, 5.0])
    value, half_width = slope(x, 7 * x**-1.5)
    assert value == pytest.approx(-1.5)
    assert half_width < 1e-6
    # Student's t for two degrees of freedom: 4.303 standard errors
    noisy = np.array([1.0, 1.1, 0.9, 1.05])
    value, half_width = slope(x, noisy * x**-1.5)
    logs, fit = np.log(x), np.polyfit(np.log(x), np.log(noisy * x**-1.5), 1)
    assert value == pytest.approx(fit[0])
    residual = ((np.log(noisy * x**-1.5) - np.polyval(fit, logs)) ** 2).sum() / 2
    error = (residual / ((logs - logs.mean()) ** 2).sum()) ** 0.5
    assert half_width == pytest.approx(4.3027 * error, rel=1e-4)
    with pytest.raises(FedensError, match="three pairs"):
        slope(x, [1.0, 2.0, -1.0, 3.0])


def test_slopes_of_tables_are_those_of_their_models():
    """Each kind of model by itself; without three errors that are known there is no slope."""

    def rows(errors, **kind):
        return [
            {**kind, "size_lattice_constants": x, "geometry": y, "formation_energy": -(y**2)}
            for x, y in zip((1.0, 2.0, 4.0), errors, strict=True)
        ]

    far_field = [
        *rows([8.0, 4.0, 2.0], wrong="force constants"),
        *rows([9.0, np.nan, 1.0], wrong="third order"),
    ]
    fits = [
        *rows([1.0, 8.0, 64.0], basis="sufficient", observations="forces"),
        *rows([0.0, 2.0, 4.0], basis="small", observations="forces"),
    ]
    found = [(r["model"], r["quantity"], r["slope"], r["theory"]) for r in slopes(far_field, fits)]
    stiff, third = "wrong force constants beyond L", "wrong third order beyond L"
    assert found == [
        (stiff, "geometry", pytest.approx(-1), -1.5),
        (stiff, "formation_energy", pytest.approx(-2), -3.0),
        (third, "geometry", None, -4.5),
        (third, "formation_energy", None, -6.0),
        ("small basis, forces", "geometry", None, None),
        ("sufficient basis, forces", "geometry", pytest.approx(3), None),
    ]


@pytest.mark.parametrize("order", [2, 3])
def test_perturbation_leaves_the_crystal_alone(crystal, order):
    """Energy and forces of the perfect ball are the reference's; forces are the derivative."""
    defect = defect_in_ball(crystal, "vacancy", 2 * crystal.lattice_constant, GUPTA.cutoff)
    model = FarFieldPerturbation(GUPTA, defect, 1.3 * crystal.lattice_constant, order, 0.1)
    bound, plain = (p.bind(defect.structure, defect.free) for p in (model, GUPTA))
    sites = defect.structure.positions
    assert bound.energy_and_forces(sites)[0] == plain.energy_and_forces(sites)[0]
    assert np.allclose(bound.energy_and_forces(sites)[1], plain.energy_and_forces(sites)[1])
    direction = np.random.default_rng(2).standard_normal(sites.shape) * defect.free[:, None]
    stiff = bound.hessian(sites)(direction) - plain.hessian(sites)(direction)
    assert (np.abs(stiff).max() > 1e-3) == (order == 2)
    moved = sites + 0.05 * direction
    forces = bound.energy_and_forces(moved)[1]
    expected = central_difference(lambda t: bound.energy_and_forces(moved + t * direction)[0], 1e-3)
    assert -np.vdot(forces, direction) == pytest.approx(expected, rel=1e-7)
    inside = defect.distances <= 1.0 * crystal.neighbour_distance * 1.01
    near = bound.site_energies(moved) - plain.site_energies(moved)
    assert (near[inside] == 0).all()
    assert np.abs(near).max() > 1e-6


@pytest.mark.slow
def test_slopes_of_far_field_errors(large, constants, crystal):
    """Theory: -1.5 in geometry and -3 in energy; -4.5 with the right force constants.

    The full range of L, in a ball of seven lattice constants, is in examples/generalisation.yaml.
    """
    spring = spring_of_error(GUPTA, constants, crystal, 0.02)
    found = {}
    for order in (2, 3):
        models = [far_field_model(large, GUPTA, size, order, spring) for size in SIZES]
        found[order] = [compare(large, model, crystal_of=GUPTA)[0] for model in models]
    geometry = {order: slope(SIZES, [e.geometry for e in found[order]])[0] for order in found}
    energy = slope(SIZES, [abs(e.formation_energy) for e in found[2]])[0]
    assert geometry[2] == pytest.approx(-1.5, abs=0.3)
    assert energy == pytest.approx(-3.0, abs=0.4)
    assert geometry[3] == pytest.approx(-4.5, abs=1.0)


def test_size_of_the_wrong_spring(constants, crystal):
    """Everywhere, it makes the error of the force constants that was asked for."""
    spring = spring_of_error(GUPTA, constants, crystal, 0.02)
    cell = crystal.cell(7)
    everywhere = Defect(cell, cell.positions, np.ones(len(cell), dtype=bool), cell, crystal, 0.0)
    wrong = FarFieldPerturbation(GUPTA, everywhere, -1.0, 2, spring)
    assert relative_error(constants, force_constants(wrong, crystal)) == pytest.approx(0.02)
    assert abs(crystal_stress(GUPTA, crystal)) < 1e-12


def test_vacancy_strain_decays(large):
    """r^3 times the strain, in a ball of four lattice constants, up to half of it."""
    _, values = decay(large.defect, large.displacement, [1.25, 1.6, 2.0, 2.3])
    assert values == pytest.approx(values.mean(), rel=0.15)


def test_reference_in_the_span_is_found(domain, large):
    """A basis that holds the reference costs nothing, from the unrelaxed atoms."""
    design = Design(GuptaFeatures(GUPTA), domain.observations)
    model = design.fit(KINDS, TARGETS, RIDGE)
    error, _ = compare(large, model, start=large.defect.structure.positions)
    assert error.geometry < 1e-6
    assert abs(error.formation_energy) < 1e-6


def test_design_predicts_what_the_model_says(domain):
    """Rows times coefficients are what the potential gives; so are the errors by kind."""
    basis = DensityPolynomials((3.0, 8.0), 2, GUPTA.r0, GUPTA.cutoff_start, GUPTA.cutoff)
    basis = scaled_basis(basis, domain.observations)
    design = Design(basis, domain.observations)
    model = design.fit(KINDS, TARGETS, RIDGE)
    assert len(model.coefficients) == 6
    assert set(design.errors(model)) == set(KINDS)
    for kind, error in design.errors(model).items():
        direct = [o.error(model).ravel() for o in domain.observations if o.kind == kind]
        expected = np.sqrt((np.concatenate(direct) ** 2).mean()) / UNITS[kind][1]
        assert error == pytest.approx(expected, rel=1e-6)
        assert error > 0


@pytest.mark.slow
def test_fit_is_the_least_squares_solution(domain):
    """Any small change of the coefficients makes the weighted sum larger."""
    basis = DensityPolynomials((3.0, 8.0), 1, GUPTA.r0, GUPTA.cutoff_start, GUPTA.cutoff)
    design = Design(basis, domain.observations)
    model = design.fit(KINDS, TARGETS, ridge=0.0)

    def loss(potential):
        return sum(
            ((o.error(potential) / (TARGETS[o.kind] * UNITS[o.kind][1])) ** 2).sum()
            for o in domain.observations
        )

    least = loss(model)
    for k in range(3):
        for change in (-1e-3, 1e-3):
            coefficients = model.coefficients.clone()
            coefficients[k] *= 1 + change
            assert loss(replace(model, coefficients=coefficients)) > least


@pytest.mark.slow
def test_more_observations_help_a_good_basis_and_hurt_a_small_one(crystal, large):
    """Smallest domain: all observations against forces alone."""
    defect = defect_in_ball(crystal, "vacancy", 0.75 * crystal.lattice_constant, GUPTA.cutoff)
    small = training_domain(GUPTA, defect, amplitude=AMPLITUDE, snapshots=4, rattle=0.1)
    ratios = {}
    for degree, decays in ((1, (3.0, 6.5, 10.0)), (3, (3.0, 5.3, 7.7, 10.0))):
        basis = DensityPolynomials(decays, degree, GUPTA.r0, GUPTA.cutoff_start, GUPTA.cutoff)
        design = Design(scaled_basis(basis, small.observations), small.observations)
        errors = [
            compare(large, design.fit(kinds, TARGETS, RIDGE))[0].geometry
            for kinds in (("forces",), KINDS)
        ]
        ratios[degree] = errors[1] / errors[0]
    assert ratios[3] < 1 / 3
    assert ratios[1] > 1


def test_terms_of_the_reference_are_zero(domain):
    terms = judge(GUPTA, domain)
    assert max(*terms.geometry.values(), *terms.energy.values()) < 1e-9


def test_terms_name_what_is_wrong(domain, crystal):
    """A model with a stress errs by it in energy; one with stiffer waves by these in geometry."""
    stressed = replace(GUPTA, repulsion=1.01 * GUPTA.repulsion)
    terms = judge(stressed, domain)
    stress = crystal_stress(stressed, crystal)
    assert terms.errors.virial == pytest.approx(abs(stress), rel=1e-9)
    assert terms.energy["virial"] == pytest.approx(abs(stress * domain.relaxation_volume), rel=1e-9)
    stiff = replace(GUPTA, repulsion=1.05 * GUPTA.repulsion, attraction=1.05 * GUPTA.attraction)
    # everything 5 % too large: the relaxed atoms stay where they are
    terms = judge(stiff, domain)
    assert terms.errors.forces < 1e-9
    assert terms.errors.force_constants == pytest.approx(0.05, rel=1e-9)
    assert terms.largest[0] == "force_constants"
    assert "force constants of the perfect crystal" in terms.advice()


def test_advice_names_the_largest_terms(domain):
    errors = judge(GUPTA, domain).errors
    terms = Terms(
        {"forces": 2e-3, "force_constants": 1e-3}, {"energy": 1e-5, "virial": 2e-5}, errors
    )
    assert terms.largest == ("forces", "virial")
    text = terms.advice()
    assert "forces of more snapshots" in text
    assert "virials (stresses)" in text
    assert "0.54 meV" in text
    # an energy that errs through the geometry lacks what the geometry lacks
    text = replace(terms, energy={"energy": 1e-5, "geometry": 2e-5}).advice()
    assert "For the energy" not in text


def test_term_of_the_forces_is_the_error_they_cause(domain):
    """A wrong spring near the defect: geometry follows the forces' term within a factor of 2."""
    model = FarFieldPerturbation(GUPTA, domain.defect, -1.0, 2, 0.002)
    relaxed = relax(model, domain.defect, domain.green, start=domain.relaxed).positions
    error = Strain(domain.defect).norm(relaxed - domain.relaxed)
    forces = model.bind(domain.defect.structure, domain.defect.free).energy_and_forces(
        domain.relaxed
    )[1]
    term = Strain(domain.defect).norm(domain.green(forces))
    assert 0.5 < term / error < 2


def test_relaxation_volume_of_a_vacancy(large, crystal):
    """Periodic cell at zero stress: it shrinks by the volume that the clamped ball tells."""
    from scipy.optimize import brentq

    volume = relaxation_volume(GUPTA, large.defect, large.relaxed) / crystal.atomic_volume
    assert -0.5 < volume < -0.2
    repeats = 5

    def stress(scale):
        strained = replace(crystal, lattice_constant=scale * crystal.lattice_constant)
        defect = defect_in_supercell(strained, "vacancy", repeats)
        green = GreenOperator(force_constants(GUPTA, crystal), defect)
        positions = relax(GUPTA, defect, green, tolerance=1e-8).positions
        return np.trace(GUPTA.bind(defect.structure).virial(positions))

    scale = brentq(stress, 0.998, 1.0, xtol=1e-6)
    sites = 4 * repeats**3
    assert (scale**3 - 1) * sites == pytest.approx(volume, rel=0.05)


@pytest.mark.slow
def test_unstable_models_say_their_eigenvalue(crystal, constants):
    ball = large_crystal(GUPTA, crystal, "vacancy", 2.0, constants)
    soft = replace(GUPTA, attraction_decay=6.0)
    with pytest.raises(ModelError, match=r"eigenvalue -[0-9.]+ eV/angstrom\^2"):
        GreenOperator(force_constants(soft, crystal), ball.defect)
    upside_down = FarFieldPerturbation(GUPTA, ball.defect, crystal.lattice_constant, 2, -0.05)
    with pytest.raises(ModelError, match=r"the model is not stable.* -[0-9.]+ eV/angstrom\^2"):
        stability(upside_down, ball.defect, ball.relaxed, ball.green)
    error, positions = compare(ball, upside_down, crystal_of=GUPTA)
    assert np.isnan(error.geometry)
    assert error.message
    assert np.isnan(positions).all()


def test_bad_input_says_the_number(crystal):
    with pytest.raises(StructureError, match=r"radius 4 .* expected a radius of 5.25 or more"):
        check_size(4.0, 3.5)
    with pytest.raises(StructureError, match="defect 'crowdion' is not known"):
        defect_in_ball(crystal, "crowdion", 20.0, GUPTA.cutoff)
    with pytest.raises(ModelError, match="at least one observation"):
        Design(GuptaFeatures(GUPTA), [])
    broken = Forces(crystal.cell(), values=np.full((4, 3), np.nan))
    with pytest.raises(ModelError, match="not finite"):
        Design(GuptaFeatures(GUPTA), [broken])
    with pytest.raises(ModelError, match="expected one decay or more"):
        DensityPolynomials((), 1, 5.0, 9.0, 11.0)
    assert torch.get_default_dtype() == torch.float32  # nothing here changes it


def test_any_ase_calculator_can_be_judged():
    """ASE's own effective-medium potential of aluminium, and the same with a scaled energy."""
    from ase.calculators.emt import EMT
    from ase.calculators.mixing import LinearCombinationCalculator

    reference = AsePotential(EMT(), cutoff=10.0)
    metal = relaxed_crystal(reference, "Al", 7.55)
    defect = defect_in_supercell(metal, "vacancy", 3)
    emt = training_domain(
        reference,
        defect,
        amplitude=AMPLITUDE,
        snapshots=1,
        rattle=0.1,
        tolerance=1e-6,
        repeats=3,
        stress_tolerance=1e-7,
    )
    same = judge(reference, emt)
    assert max(*same.geometry.values(), *same.energy.values()) < 1e-8
    twice = AsePotential(LinearCombinationCalculator([EMT()], [1.1]), cutoff=10.0)
    terms = judge(twice, emt)
    assert terms.errors.force_constants == pytest.approx(0.1, rel=1e-3)
    assert terms.largest[0] == "force_constants"
    wrong = defect_in_supercell(Crystal("Al", 7.65), "vacancy", 3)
    with pytest.raises(StructureError, match="not relaxed: the reference has a stress of"):
        training_domain(reference, wrong, amplitude=AMPLITUDE)
