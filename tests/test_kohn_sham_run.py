"""The main job on Kohn-Sham data, in small: generated, learned from and compared."""

import json

import numpy as np
import pytest
import yaml

from fedens import Dataset, Predictor
from fedens.errors import ConfigurationError, ModelError
from fedens.jobs.registry import load_job, open_run
from fedens.progress import Progress
from fedens.reference.kohn_sham import labeller as labeller_module
from fedens.reference.kohn_sham.labeller import KohnShamLabeller

QUIET = Progress(quiet=True)
ALUMINIUM = {"kind": "gth_local", "valence": 3, "r_loc": 0.7473, "c1": 4.9546, "c2": -0.8993}
SMALL = {
    "structures": {"supercell": [1, 1, 1], "count": 4, "displacement": [0.05, 0.2]},
    "theory": {
        "kind": "kohn_sham",
        "xc": "lda_pz",
        "pseudopotentials": {"Al": ALUMINIUM},
        "kspacing": 0.5,
        "smearing": {"kind": "fermi_dirac", "width": 0.05},
        "cutoff": 4.0,
        "residual_tolerance": 1e-4,
    },
    "space": {"spacing": 0.55, "order": 5},
    "training": {
        "train_count": 3,
        "network": {"hidden": [16], "committee": 1},
        "descriptors": {"gmp": {"widths": [1.0, 2.0], "max_order": 2}},
        "steps": 100,
        "batch_points": 2000,
        "learning_curve": [1],
    },
}


def open_small(folder, **changes):
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes))
    return open_run(load_job(path), folder / "out", QUIET)


@pytest.mark.slow
def test_generate_train_evaluate(tmp_path, training_seed, bounded):
    with open_small(tmp_path, seed=training_seed) as run:
        run.do()
    out = tmp_path / "out"
    data = Dataset.open(out / "data")
    for sample in data:
        assert sample.provenance["cutoff_hartree"] == 4.0
        assert sample.bands is not None
        assert sample.energy_from_fields() == pytest.approx(sample.energy, abs=1e-6)
    held_out = json.loads((out / "metrics.json").read_text())["held_out"]
    assert not any("energy_error" in name for name in held_out)
    bounded("nmape_percent", held_out["nmape_percent"]["mean"], 1.5)
    feynman = held_out["force_mae_hellmann_feynman_mev_per_angstrom"]["mean"]
    bounded("hellmann_feynman", feynman, 110.0)
    assert "Density of states" in (out / "report.html").read_text()
    model = Predictor.load(out / "model")
    assert model.routes == ("hellmann_feynman",)
    with pytest.raises(ModelError, match="entropy"):
        model.energy(data[0].structure, "energy_density")


def test_another_functional_does_not_make_the_data_foreign(tmp_path):
    with open_small(tmp_path) as run:
        assert run.functional.kinetic == "wt"
    with open_small(tmp_path, functional={"kinetic": "tfvw"}) as run:
        assert run.functional.kinetic == "tfvw"
    theory = SMALL["theory"] | {"kspacing": 0.4}
    with pytest.raises(ConfigurationError, match=r"theory differs"):
        open_small(tmp_path, theory=theory)


def test_a_label_that_was_cut_off_goes_on_from_its_last_density(tmp_path, monkeypatch):
    first, steps = [], []
    call = KohnShamLabeller.__call__

    def killed(self, structure, _, checkpoint):
        def stop(step, _, residual):
            first.append(residual)
            if step == 4:
                raise KeyboardInterrupt

        return call(self, structure, stop, checkpoint)

    def counted(self, structure, _, checkpoint):
        return call(self, structure, lambda *step: steps.append(step[2]), checkpoint)

    structures = SMALL["structures"] | {"count": 2}
    training = SMALL["training"] | {"train_count": 1}
    changes = {"structures": structures, "training": training}
    monkeypatch.setattr(labeller_module.KohnShamLabeller, "__call__", killed)
    with pytest.raises(KeyboardInterrupt), open_small(tmp_path, **changes) as run:
        run.generate()
    assert len(list((tmp_path / "out" / "unfinished").iterdir())) == 1
    monkeypatch.setattr(labeller_module.KohnShamLabeller, "__call__", counted)
    with open_small(tmp_path, **changes) as run:
        run.generate()
    assert len(Dataset.open(tmp_path / "out" / "data")) == 2
    assert steps[0] < 0.1 * first[0]
    assert not (tmp_path / "out" / "unfinished").exists()
    assert np.isfinite(steps).all()
