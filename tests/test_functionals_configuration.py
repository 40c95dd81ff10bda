"""The configuration of the job on kinetic functionals: defaults, cells, what is refused."""

import itertools

import numpy as np
import pytest
import torch

from fedens import GTH
from fedens.configuration import FunctionalsConfiguration
from fedens.errors import ConfigurationError
from fedens.jobs.registry import load_job

PROJECTORS = "theory: {kind: kohn_sham, pseudopotentials: {Al: gth-pade-q3}}"


@pytest.fixture
def load(tmp_path):
    """Load a configuration of the job from the text of its other keys."""

    def load_text(text):
        path = tmp_path / "case.yaml"
        path.write_text(f"{text}\njob: functional\n")
        return load_job(path)

    return load_text


def test_every_key_has_a_default_and_reads_back(load, tmp_path):
    configuration = load("")
    assert configuration == FunctionalsConfiguration(name="case")
    configuration.write(tmp_path / "config.yaml")
    assert load_job(tmp_path / "config.yaml") == configuration


def test_mean_density_is_that_of_the_crystal_without_distortions(load):
    sources = "structures: [{lattice_constant: 7.5, cell: tetragonal, count: 30}]"
    assert load(sources).mean_density == pytest.approx(4 * 3 / 7.5**3)
    assert load(f"{sources}\nfunctional: {{mean_density: 0.02}}").mean_density == 0.02


def test_temperature_is_that_of_the_labels(load):
    assert load("").temperature == 0  # Methfessel-Paxton
    theory = "pseudopotentials: {Al: {kind: goodwin_needs_heine}}"
    smearing = "smearing: {kind: fermi_dirac, width: 0.02}"
    text = f"theory: {{kind: kohn_sham, {theory}, {smearing}}}"
    assert load(text).temperature == 0.02
    assert load(f"{text}\nfunctional: {{temperature: 0.01}}").temperature == 0.01


def test_sources_are_named_and_displaced_each_in_its_own_way(load):
    source = "{count: 8, supercell: [1, 1, 1], vacancy_fraction: 0}"
    configuration = load(f"structures: [{source}, {source}]\nlarger: [{source}]")
    cells, larger = configuration.cells(), configuration.larger_cells()
    assert [*cells][::8] == ["cells0-0000-Al4", "cells1-0000-Al4"]
    assert next(iter(larger)) == "larger0-0000-Al4"
    first = [every[name].positions for every in (cells, larger) for name in [*every][::8]]
    assert all(np.abs(one - two).max() > 0.01 for one, two in itertools.pairwise(first))
    longer = load(f"structures: [{source}, {source}]\nlarger: [{source}, {source}]").larger_cells()
    np.testing.assert_array_equal(longer["larger0-0007-Al4"].cell, larger["larger0-0007-Al4"].cell)


def test_only_the_local_part_of_the_theory_s_potential_is_minimised(load):
    configuration = load(f"{PROJECTORS}\ntraining: {{crystals: false}}")
    local = configuration.local_pseudopotentials["Al"]
    assert not local.projectors
    whole = GTH.load("Al", "gth-pade-q3")
    r = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)
    assert torch.equal(local.potential(r), whole.local.potential(r))


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("training:\n  train_count: 20", 2, "training.train_count: is 20, but structures hold 20"),
        ("structures: []", 1, "structures: "),
        ("structures:\n  - {count: 3}\n  - {cell: hexagonal}", 3, "structures.1.cell: should be"),
        ("structures:\n  - {cont: 3}", 2, "structures.0.cont: unknown key; did you mean 'count'?"),
        ("structures: [{file: a.xyz}]", 1, "functional.mean_density: is null, but structures come"),
        ("structures: [{element: Mg, count: 20}]", 1, "theory.pseudopotentials: has none for Mg"),
        ("larger:\n  - {element: Mg}", 1, "theory.pseudopotentials: has none for Mg"),
        ("theory: {kind: orbital_free}", 1, "theory.kind: should be 'kohn_sham'"),
        ("functional:\n  xc: lda_unheard_of", 2, "functional.xc: "),
        ("functional:\n  kinetic: tfvw", 2, "functional.kinetic: should be 'wt' or 'wgc'"),
        (PROJECTORS, 1, "training.crystals: is true, but the pseudopotential of Al has projectors"),
        (
            "training: {crystals: false, model_potentials: {separable: 0, planar: 0}}",
            1,
            "training.model_potentials: hold none",
        ),
        ("comparison:\n  methods: [wang_teter, mp]", 2, "comparison.methods.1: should be"),
        (
            "comparison:\n  learning_curve: {sizes: [4, 16]}",
            2,
            "comparison.learning_curve.sizes: go to 16, but training.train_count is 12",
        ),
        ("training: {correction: {gmp: {width: [1.0]}}}", 1, "training.correction.gmp.width: unk"),
    ],
)
def test_what_cannot_be_learned_is_named_with_its_line(load, text, line, named):
    with pytest.raises(ConfigurationError) as caught:
        load(text)
    message = str(caught.value)
    assert f"case.yaml, line {line}: " in message
    assert named in message
