import dataclasses

import pytest
import torch

from fedens.data.density import Density
from fedens.energy.density_variables import DensityVariables
from fedens.energy.functional import EnergyFunctional
from fedens.energy.gth import GTHLocal
from fedens.errors import DatasetError, ModelError
from fedens.models.functional.equations import kinetic_base
from fedens.models.functional.fit import KineticFitSettings, fit_kinetic
from fedens.models.functional.labels import kinetic_label
from fedens.models.functional.rows import UNIT, label_rows
from fedens.models.functional.training import label_equations, train_functional
from fedens.reference.model_potentials.labels import ModelPotentialLabels

MEAN = 12 / 7.65**3
SETTINGS = KineticFitSettings(DensityVariables((0.65,), (1.5, 0.7)), degree=2)
ALUMINIUM = GTHLocal(valence=3, r_loc=0.7473, c1=4.9546, c2=-0.8993)


@pytest.fixture(scope="module")
def functional():
    return EnergyFunctional.orbital_free("wt", pseudopotential=ALUMINIUM, mean_density=MEAN)


@pytest.fixture(scope="module")
def samples():
    labels = ModelPotentialLabels(MEAN, spacing=0.8, kspacing=0.1)
    return dict(labels.samples({"planar": 16}))


@pytest.fixture(scope="module")
def equations(samples, functional):
    return label_equations(samples, functional, SETTINGS)


def test_a_functional_within_the_class_is_found_again(equations):
    # targets made by known parameters, from the labels' own rows
    random = torch.Generator().manual_seed(0)
    n = len(equations[0].right)
    truth = torch.randn(n, generator=random, dtype=torch.float64)
    made = [
        dataclasses.replace(
            one,
            right=one.normal @ truth,
            base_excess=float(truth @ one.normal @ truth),
            energy_target=float(one.energy_row @ truth),
        )
        for one in equations
    ]
    fit = fit_kinetic(made, MEAN, dataclasses.replace(SETTINGS, ridge=1e-8))
    for before, row in zip(made, fit.rows, strict=True):
        assert row["excess"] < 1e-4 * before.base_excess + 1e-9
        assert abs(row["energy_error"]) < 1e-3 * abs(before.energy_target) + 1e-6


def test_labels_left_out_are_met_better_than_by_the_base(equations):
    kept, out = equations[:12], equations[12:]
    fit = fit_kinetic(kept, MEAN, SETTINGS)
    parameters = torch.tensor(fit.term.correction.parameters, dtype=torch.float64)
    assert sum(one.excess(parameters) for one in out) < 0.5 * sum(one.base_excess for one in out)


def test_derivatives_are_those_of_the_energies(samples, functional):
    base, learned = kinetic_base(functional), SETTINGS.start(MEAN)
    label = kinetic_label(next(iter(samples.values())))
    rows = label_rows(label, base, learned)
    _, gradients = learned.basis_energies(label.density)
    c = label.density.root_coefficients
    near = dataclasses.replace(label, density=Density.from_root(label.density.space, 1.000001 * c))
    change = label_rows(near, base, learned).energy_row - rows.energy_row
    expected = 1e-6 * gradients @ c / (UNIT * label.electrons)
    torch.testing.assert_close(change, expected, rtol=1e-3, atol=1e-6 * float(expected.abs().max()))


def test_the_prior_is_chosen_by_labels_left_out(equations):
    fit = fit_kinetic(equations, MEAN, SETTINGS)
    assert fit.ridge == min(fit.validation, key=fit.validation.get)
    assert torch.linalg.eigvalsh(fit.covariance).min() > 0


def test_a_stronger_prior_makes_smaller_parameters(equations):
    sizes = [
        torch.tensor(
            fit_kinetic(
                equations, MEAN, dataclasses.replace(SETTINGS, ridge=ridge)
            ).term.correction.parameters
        ).norm()
        for ridge in (1e-6, 1e-2, 1e2)
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_known_equations_are_not_made_again(samples, functional):
    name = next(iter(samples))
    known = {}
    (first,) = label_equations({name: samples[name]}, functional, SETTINGS, known=known)
    (again,) = label_equations({name: samples[name]}, functional, SETTINGS, known=known)
    assert again is first


def test_the_model_has_the_term_beside_the_base(equations, functional):
    model = train_functional(equations, functional, SETTINGS, spacing=0.5, order=6)
    names = [term.name for term in model.functional.terms]
    assert names.count("learned_kinetic") == 1
    assert names.count("nonlocal_kinetic") == 1
    assert len(model.provenance["labels"]) == len(equations)


def test_what_was_learned_before_is_no_part_of_the_base(equations, functional):
    model = train_functional(equations, functional, SETTINGS, spacing=0.5, order=6)
    names = [term.name for term in kinetic_base(model.functional)]
    assert names == [term.name for term in kinetic_base(functional)]


def test_what_is_no_label_is_refused(samples, functional):
    sample = next(iter(samples.values()))
    unfinished = dataclasses.replace(sample, converged=False)
    with pytest.raises(DatasetError, match="not converged"):
        label_equations({"one": unfinished}, functional, SETTINGS)
    without = dataclasses.replace(sample, chemical_potential=None)
    with pytest.raises(DatasetError, match="chemical potential"):
        label_equations({"one": without}, functional, SETTINGS)
    projectors = dataclasses.replace(sample, energies=sample.energies | {"nonlocal": 0.1})
    with pytest.raises(DatasetError, match="projectors"):
        label_equations({"one": projectors}, functional, SETTINGS)
    with pytest.raises(ModelError, match="no samples"):
        fit_kinetic([], MEAN, SETTINGS)
    loose = EnergyFunctional.orbital_free("wt", pseudopotential=ALUMINIUM)
    with pytest.raises(ModelError, match="mean density"):
        label_equations({"one": sample}, loose, SETTINGS)
