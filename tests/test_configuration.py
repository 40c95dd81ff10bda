"""Configurations: defaults, round trips, and errors that name the key and the line."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from fedens import GTH, GTHLocal
from fedens.configuration import (
    Configuration,
    GTHLocalOptions,
    MoleculesConfiguration,
    Options,
    RecpotOptions,
    StructureFileOptions,
    ThermalCellsOptions,
    load_configuration,
)
from fedens.errors import ConfigurationError, OutputError
from fedens.jobs.registry import load_job

EXAMPLE = Path(__file__).parent.parent / "examples" / "aluminium.yaml"


@pytest.fixture
def load(tmp_path):
    """Load a configuration from its text."""

    def load_text(text):
        path = tmp_path / "case.yaml"
        path.write_text(text)
        return load_configuration(path)

    return load_text


@pytest.fixture
def refused(load):
    """The message with which a text is refused, without the file's name."""

    def message(text):
        with pytest.raises(ConfigurationError) as caught:
            load(text)
        return str(caught.value).replace(str(caught.value).split("case.yaml")[0], "")

    return message


def test_every_key_has_a_default(load):
    assert load("") == load("# nothing\n") == Configuration(name="case")
    defaults = Configuration()
    assert defaults.structures == ThermalCellsOptions()
    assert defaults.structures.supercell == (2, 2, 2)
    assert (defaults.space.spacing, defaults.space.order) == (0.34, 10)
    aluminium = defaults.functional.pseudopotentials["Al"]
    assert (aluminium.r_loc, aluminium.c1, aluminium.c2) == (0.7473, 4.9546, -0.8993)


def test_every_key_is_described():
    def undescribed(model):
        return [
            f"{model.__name__}.{name}"
            for name, field in model.model_fields.items()
            if not (field.description or name == "kind" or isinstance(field.default, sections))
        ]

    def below(model):
        return [model, *(inner for child in model.__subclasses__() for inner in below(child))]

    sections, models = Options, below(Options)
    assert len(models) > 10
    # sections describe themselves by their class
    assert all(model.__doc__ for model in models)
    assert [name for model in models for name in undescribed(model)] == []


def test_the_example_shows_all_defaults():
    assert load_configuration(EXAMPLE) == Configuration(name="aluminium")


def test_values_are_read(load):
    configuration = load("""
name: other
structures: {element: Cu, displacement: [0.1, 0.1], count: 5}
functional:
  kinetic: tfvw
  vw_weight: 0.2
  pseudopotentials:
    Cu: {kind: evanescent_core, valence: 11, r: 0.3, alpha: 3.6}
    Al: {kind: goodwin_needs_heine}
solver: {residual_tolerance: 1e-9}
training: {train_count: 4, max_seconds: 60, network: {hidden: [64]}}
output: {subdivisions: 3, fields: False}
device: cpu
""")
    assert configuration.name == "other"
    assert configuration.structures.displacement == (0.1, 0.1)
    assert configuration.functional.pseudopotentials["Cu"].valence == 11.0
    assert configuration.functional.pseudopotentials["Al"].kind == "goodwin_needs_heine"
    assert configuration.solver.residual_tolerance == 1e-9
    assert configuration.training.network.hidden == (64,)
    assert configuration.training.batch_points == 8192
    assert configuration.output.fields is False


def test_name_defaults_to_the_file(tmp_path):
    (tmp_path / "copper.v2.yaml").write_text("seed: 3\n")
    configuration = load_configuration(tmp_path / "copper.v2.yaml")
    assert (configuration.name, configuration.seed) == ("copper.v2", 3)


def test_written_configuration_is_complete_and_reads_back(tmp_path):
    before = load_configuration(EXAMPLE)
    before.write(tmp_path / "config.yaml")
    assert load_configuration(tmp_path / "config.yaml") == before
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert written["training"]["max_seconds"] is None
    assert written["functional"]["pseudopotentials"]["Al"]["kind"] == "gth_local"
    assert list(written) == list(Configuration.model_fields)


def test_paths_are_relative_to_the_file(load, tmp_path):
    configuration = load("""
structures: {file: cells/a.xyz, index: 1:10}
functional:
  pseudopotentials: {Mg: {kind: recpot, path: ../mg.recpot}, Al: {kind: recpot, path: /al.recpot}}
""")
    assert configuration.structures == StructureFileOptions(
        file=tmp_path / "cells/a.xyz", index="1:10"
    )
    pseudopotentials = configuration.functional.pseudopotentials
    assert pseudopotentials["Mg"].path.resolve() == tmp_path.parent / "mg.recpot"
    assert pseudopotentials["Al"] == RecpotOptions(kind="recpot", path=Path("/al.recpot"))
    (tmp_path / "run").mkdir()
    configuration.write(tmp_path / "run" / "config.yaml")
    assert load_configuration(tmp_path / "run" / "config.yaml") == configuration


def test_index_may_be_a_number(load):
    assert load("structures: {file: a.xyz, index: -1}").structures.index == "-1"


def test_unwritable_configuration(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        Configuration().write(tmp_path / "file" / "config.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed: 1", "case.yaml, line 1: sed: unknown key; did you mean 'seed'?"),
        (
            "seed: 1\nstructures:\n  count: 3\n  displacment: [0, 1]\ntraining: {train_count: 2}",
            "case.yaml, line 4: structures.displacment: unknown key; did you mean 'displacement'?",
        ),
        (
            "structures:\n  fil: a.xyz",
            "case.yaml, line 2: structures.fil: unknown key; did you mean 'file'?",
        ),
        (
            "structures:\n  file: a.xyz\n  count: 3",
            "case.yaml, line 3: structures.count: unknown key; known here: file, index",
        ),
        (
            "training:\n  descriptors:\n    gmp: {max_ordr: 2}",
            "case.yaml, line 3: training.descriptors.gmp.max_ordr: unknown key; "
            "did you mean 'max_order'?",
        ),
        (
            "functional:\n  pseudopotentials:\n    Li: {kind: gth_local, valence: 3,\n"
            "      r_loc: 1.0, C3: 1}\n    Al: {kind: goodwin_needs_heine}",
            "case.yaml, line 4: functional.pseudopotentials.Li.C3: unknown key; "
            "known here: kind, valence, r_loc, c1, c2, c3, c4",
        ),
        (
            "recpot: 1",
            "case.yaml, line 1: recpot: unknown key; known here: job, name, seed, device, workers, "
            "structures, theory, space, functional, solver, training, rounds, output",
        ),
    ],
)
def test_unknown_key_is_named_with_its_line(refused, text, message):
    assert refused(text) == message


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        (
            "structures:\n  count: many",
            2,
            "structures.count: should be a valid integer, not 'many'",
        ),
        ("\n\nseed: true", 3, "seed: should be a valid integer, not True"),
        ('space: {order: "6"}', 1, "space.order: should be a valid integer, not '6'"),
        ("space:\n  spacing: [1]", 2, "space.spacing: should be a valid number, not [1]"),
        ("name: 3", 1, "name: should be a valid string, not 3"),
        ("output:\n  fields: yes", 2, "output.fields: should be a valid boolean, not 'yes'"),
        ("structures: {file: 3}", 1, "structures.file: should be the path of a file, not 3"),
        ("structures: 3", 1, "structures: should be a section with keys of its own, not 3"),
        ("space:", 1, "space: should be a section with keys of its own, not None"),
        (
            "functional: {pseudopotentials: [1]}",
            1,
            "functional.pseudopotentials: should be a section",
        ),
        ("training:\n  descriptors:\n    gmp:\n      widths: [1.0,\n        x]", 5, "widths.1"),
        ("1: 2", 1, "1: Keys should be strings"),
    ],
)
def test_wrong_type_is_named_with_its_line(refused, text, line, named):
    assert f"case.yaml, line {line}: " in refused(text)
    assert named in refused(text)


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("space:\n  order: 11", 2, "space.order: should be less than or equal to 10, not 11"),
        ("space:\n  spacing: -0.1", 2, "space.spacing: should be greater than 0, not -0.1"),
        ("space:\n  spacing: .inf", 2, "space.spacing"),
        ("device: gpu", 1, "device: should be 'auto', 'cpu' or 'cuda', not 'gpu'"),
        ("functional: {kinetic: tf}", 1, "functional.kinetic: should be 'wt'"),
        ("functional: {temperature: -1}", 1, "functional.temperature: should be greater than"),
        ("structures:\n  element: Qq", 2, "structures.element: should be the chemical symbol"),
        ("structures:\n  supercell: [2, 2]", 2, "structures.supercell.2: is missing"),
        ("structures:\n  displacement: [0.4, 0.1]", 2, "the smaller number, then the larger one"),
        ("structures:\n  vacancy_fraction: 1.5", 2, "structures.vacancy_fraction"),
        ("training: {network: {hidden: []}}", 1, "training.network.hidden"),
        ("rounds:\n  count: -1", 2, "rounds.count: should be greater than or equal to 0, not -1"),
        (
            "functional:\n  pseudopotentials:\n    Al: {kind: ghost, valence: 3}",
            3,
            "functional.pseudopotentials.Al: needs a kind: one of 'gth', 'gth_local', 'evanescent",
        ),
        (
            "functional:\n  pseudopotentials:\n    Al:\n      kind: gth\n      name: gth-pade-q7",
            5,
            "functional.pseudopotentials.Al.name: PySCF's library has no pseudopotential 'gth-pade",
        ),
        (
            "functional:\n  pseudopotentials:\n    Al: {kind: gth}",
            3,
            "functional.pseudopotentials.Al.name: is missing",
        ),
        (
            "functional:\n  pseudopotentials:\n    Al: {valence: 3}",
            3,
            "functional.pseudopotentials.Al: needs a kind: one of gth, gth_local, evanescent_core",
        ),
        (
            "functional:\n  pseudopotentials:\n    Zz: {kind: goodwin_needs_heine}",
            3,
            "functional.pseudopotentials.Zz: should be the chemical symbol",
        ),
        (
            "functional:\n  pseudopotentials:\n    Al: {kind: gth_local, valence: 3}",
            3,
            "functional.pseudopotentials.Al.r_loc: is missing",
        ),
    ],
)
def test_value_out_of_range_is_named_with_its_line(refused, text, line, named):
    assert f"case.yaml, line {line}: " in refused(text)
    assert named in refused(text)


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("seed: 0\ntraining:\n  train_count: 24", 3, "training.train_count: is 24"),
        ("structures: {count: 3}", 1, "training.train_count: is 12, but structures.count is 3"),
        ("functional:\n  vw_weight: 0.2", 2, "functional.vw_weight: must be 1 for kinetic: wt"),
        ("structures: {element: Mg}", 1, "no pseudopotential for structures.element Mg"),
        ("rounds:\n  add: 30", 2, "rounds.add: is 30, but rounds.candidates is 24"),
        ("rounds: {candidates: 3}", 1, "rounds.add: is 4, but rounds.candidates is 3"),
    ],
)
def test_sections_that_disagree_are_named(refused, text, line, named):
    assert f"case.yaml, line {line}: " in refused(text)
    assert named in refused(text)


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("molecules: {w: {train: 3}}", 1, "molecules.w.molecule: give either molecule, a name, or"),
        (
            "molecules:\n  w: {molecule: H2O, file: a.xyz}",
            2,
            "molecules.w.molecule: give either molecule, a name, or file",
        ),
        (
            "molecules:\n  w:\n    molecule: H2O\n    train: 0\n    test: 0",
            4,
            "molecules.w.train: train and test are both 0",
        ),
        ("molecules: {w: {molecule: H2O, test: 0}}", 1, "molecules: no molecule has test above 0"),
        ("molecules: {w: {molecule: H2O, train: 0}}", 1, "molecules: no molecule has train above"),
        ("molecules: {}", 1, "molecules: "),
        ("molecules:\n  a/b: {molecule: H2O}", 2, "molecules.a/b: "),
        ("seed: 0", 1, "molecules: is missing"),
        (
            "molecules: {w: {molecule: H2O, train: 5}}\nlearning_curve: [2, 5]",
            2,
            "learning_curve: is (2, 5): sizes must be below 5, train",
        ),
        (
            "molecules: {w: {molecule: H2O}}\ntraining: {stepz: 3}",
            2,
            "training.stepz: unknown key; did you mean 'steps'?",
        ),
        ("molecules:\n  w: {molecul: H2O}", 2, "molecules.w.molecul: unknown key"),
        ("molecules: {w: {molecule: H2O}}\nspace: {order: 3}", 2, "space.order: "),
    ],
)
def test_molecules_that_cannot_be_learned_are_named(tmp_path, text, line, named):
    path = tmp_path / "case.yaml"
    path.write_text(f"{text}\njob: molecules\n")
    with pytest.raises(ConfigurationError) as caught:
        load_job(path)
    message = str(caught.value)
    assert f"case.yaml, line {line}: " in message
    assert named in message


def test_job_on_molecules_reads_back(tmp_path):
    path = tmp_path / "case.yaml"
    path.write_text(
        "job: molecules\n"
        "molecules: {w: {molecule: H2O}, a: {file: a.xyz, index: 0, train: 0}}\n"
        "learning_curve: [10, 20]\n"
    )
    configuration = load_job(path)
    assert isinstance(configuration, MoleculesConfiguration)
    assert configuration.molecules["a"].file == tmp_path / "a.xyz"
    assert configuration.molecules["a"].index == "0"
    assert (configuration.molecules["w"].train, configuration.molecules["w"].test) == (50, 10)
    assert configuration.learning_curve == (10, 20)
    configuration.write(tmp_path / "config.yaml")
    assert load_job(tmp_path / "config.yaml") == configuration


def test_all_errors_come_at_once(refused):
    message = refused("sed: 1\nspace:\n  order: 0\ndevice: gpu\n")
    assert [line.split(": ")[0][-6:] for line in message.splitlines()] == [
        "line 1",
        "line 3",
        "line 4",
    ]


@pytest.mark.parametrize("job", ["learnin", "2", "[a]"])
def test_unknown_job_is_refused(refused, job):
    message = refused(f"seed: 1\njob: {job}")
    assert message.startswith("case.yaml, line 2: job: should be one of learning")


def test_repeated_key_is_refused(refused):
    assert refused("seed: 1\nspace: {order: 4}\nseed: 2") == (
        "case.yaml, line 3: the key 'seed' is given twice"
    )
    assert "line 3: the key 'order'" in refused("space:\n  order: 4\n  order: 5")


@pytest.mark.parametrize(
    "text", ["a: [", "a: b: c", "? [1]\n: 2", "- 1\n- 2", "just words", "a: &x {b: *x}"]
)
def test_what_is_no_configuration_is_refused(refused, text):
    assert refused(text).startswith("case.yaml")


def test_nothing_in_a_file_is_executed(refused, tmp_path):
    target = tmp_path / "made"
    assert "constructor" in refused(f"name: !!python/object/apply:os.mkdir ['{target}']")
    assert not target.exists()


def test_missing_file():
    with pytest.raises(ConfigurationError, match=r"cannot read .*nowhere\.yaml"):
        load_configuration("nowhere.yaml")


def test_configurations_made_in_python_are_checked_and_cannot_change():
    with pytest.raises(ValidationError):
        Configuration(sed=3)
    with pytest.raises(ValidationError):
        GTHLocalOptions(kind="gth_local", valence=-1, r_loc=1.0)
    with pytest.raises(ValidationError):
        Configuration().seed = 3


KOHN_SHAM = """
structures: {element: Si, count: 24}
theory: {kind: kohn_sham, pseudopotentials: {Si: gth-pade-q4}}
functional: null
training:
  descriptors: {response_fields: false}
"""


def test_kohn_sham_theory_has_defaults_and_reads_back(load, tmp_path):
    configuration = load(KOHN_SHAM)
    theory = configuration.theory
    assert (theory.xc, theory.kspacing, theory.cutoff) == ("lda_pw", 0.105, None)
    assert (theory.smearing.kind, theory.smearing.width) == ("methfessel_paxton", 0.04)
    silicon = theory.pseudopotentials["Si"]
    assert (silicon.kind, silicon.name) == ("gth", "gth-pade-q4")
    configuration.write(tmp_path / "config.yaml")
    assert load_configuration(tmp_path / "config.yaml") == configuration


def test_kohn_sham_theory_takes_local_pseudopotentials_and_a_mesh_of_its_own(load):
    configuration = load("""
theory:
  kind: kohn_sham
  pseudopotentials: {Al: {kind: gth_local, valence: 3, r_loc: 0.7}}
  smearing: {kind: cold, width: 0}
space: {spacing: null}
""")
    assert configuration.theory.pseudopotentials["Al"].r_loc == 0.7
    assert configuration.space.spacing is None
    assert configuration.functional.kinetic == "wt"


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("theory: {xc: pbe}", 1, "theory: needs a kind: one of orbital_free, kohn_sham"),
        ("theory:\n  kind: kohn_sham\n  pseudopotentials: {}\n  smaering: {}", 4, "'smearing'"),
        ("functional:\n  kinetik: wt", 2, "did you mean 'kinetic'"),
        ("functional: null", 1, "functional: is null, but theory orbital_free needs one"),
        ("space: {spacing: null}", 1, "space.spacing: is null, but theory orbital_free"),
        (
            KOHN_SHAM.replace("Si: gth-pade-q4", "Al: gth-pade-q3"),
            3,
            "theory.pseudopotentials: has no .*element Si",
        ),
        (
            KOHN_SHAM.replace("kohn_sham", "kohn_sham, xc: ldapw"),
            3,
            "theory.xc: xc functional 'ldapw' is not known",
        ),
        (KOHN_SHAM.replace("functional: null", ""), 1, "give one, or functional: null"),
        (KOHN_SHAM.replace("false", "true"), 6, "response_fields: need a functional"),
        (KOHN_SHAM + "  baseline: linear_response", 7, "training.baseline: needs a functional"),
        (KOHN_SHAM + "  energy_weight: 1", 7, "training.energy_weight: is the weight"),
        (KOHN_SHAM + "rounds: {count: 1}", 7, "rounds.count: is 1"),
        (KOHN_SHAM + "  force_weight: 1", 7, "training.force_weight: needs a functional"),
        (
            KOHN_SHAM.replace("q4}", "q4}, cutoff: 12, density_cutoff: 9"),
            3,
            "density_cutoff: is 9, below cutoff 12",
        ),
    ],
)
def test_theories_that_do_not_fit_are_named(refused, text, line, named):
    message = refused(text)
    assert re.search(rf"line {line}: .*{named}", message), message


def test_pseudopotentials_of_the_library_are_named(load):
    text = (
        "functional: {pseudopotentials: {Al: {kind: gth, name: gth-pade-q3}, "
        "Li: {kind: gth_local, valence: 3, r_loc: 0.4, c1: -14.0, c3: -1.8, c4: 0.1}}}"
    )
    options = load(text).functional.pseudopotentials
    found = {symbol: one.pseudopotential(symbol) for symbol, one in options.items()}
    assert found["Al"] == GTH.load("Al", "gth-pade-q3")
    assert found["Li"] == GTHLocal(3, 0.4, -14.0, 0.0, -1.8, 0.1)
