import json
import math
import sys

import numpy as np
import pytest

from dpnorm.benchmark.cells import AuditCell, MeasureCell, MemberCell, facts_arrays, write_arrays
from dpnorm.benchmark.mlflow_values import LONGEST, logged
from dpnorm.benchmark.storage import open_storage
from dpnorm.benchmark.suite import AuditsSection
from dpnorm.errors import DpnormError, InputError, MissingExtraError
from dpnorm.privacy import PrivacyConfig
from dpnorm.training import TrainConfig

pytest.importorskip("mlflow")
pytest.importorskip("sqlalchemy")

from dpnorm.benchmark.on_mlflow import CELL, MlflowTracker

# of MLflow's own code
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

ARM = {
    "dataset": "digits",
    "data_fingerprint": "0" * 64,
    "outliers": None,
    "model": "lenet",
    "variant": "group",
    "training": TrainConfig(epochs=2, batch_size=64, lr=0.05),
    "seed": 0,
}
STATEMENT = {"epsilon": 3.9, "delta": 1e-5, "noise_multiplier": 1.5}
HISTORY = [
    {"epoch": 1.0, "step": 4.0, "loss": 2.0, "epsilon": 2.5},
    {"epoch": 2.0, "step": 8.0, "loss": math.nan, "epsilon": 3.9},
]
ESTIMATE = {"value": 0.6, "low": 0.5, "high": 0.7, "confidence": 0.95}
BOUND = {"epsilon": 1.2, "ceiling": "inf", "confidence": 0.95, "guesses": 10, "correct": 9}
AUDIT = {
    "claimed_epsilon": 3.9,
    "delta": 1e-5,
    "exceeded": True,
    "accuracy": None,
    "seconds": 3.0,
    "white_box": BOUND,
    "black_box": BOUND | {"epsilon": 0.0},
}
MEASURES = {
    "members": 3,
    "accuracy": ESTIMATE,
    "auc": {"lira": ESTIMATE},
    "tpr": {"lira": ESTIMATE | {"high": math.inf}},
    "outlier_auc": {},
    "memorized": None,
    "statement": STATEMENT,
    "training_s": 9.0,
    "attacks_s": 1.0,
    "peak_bytes": None,
    **STATEMENT,
}


def arm(epsilon=4.0, allow=None):
    private = math.isfinite(epsilon)
    privacy = PrivacyConfig(epsilon=epsilon, allow=allow) if private else None
    return ARM | {"epsilon": epsilon, "privacy": privacy}


def member(epsilon=4.0, allow=None, index=0):
    return MemberCell(**arm(epsilon, allow), members=3, member=index)


def audit(allow=None):
    return AuditCell(**arm(allow=allow), audits=AuditsSection())


def measure(allow=None, members=("a", "b", "c")):
    return MeasureCell(**arm(allow=allow), members=members, attacks=("lira",), watched=False)


def trained(statement=STATEMENT):
    return {
        "accuracy": 0.9,
        "seconds": 2.0,
        "peak_bytes": 10**9,
        "statement": statement,
        "history": HISTORY,
    }


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """One database for all tests: making its tables takes MLflow several seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def tracker(database, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)  # where MLflow puts artifacts
    return MlflowTracker(database, request.node.name)


@pytest.fixture
def storage(tmp_path):
    return open_storage(tmp_path / "runs")


def finish(storage, cell, facts):
    """Writes the cell as finished, with these facts."""
    arrays = facts_arrays(facts)
    if isinstance(cell, MemberCell):
        arrays |= {"keep": np.ones(4, bool), "logits": np.zeros((4, 1, 10), np.float32)}
    write_arrays(storage, cell, arrays)


def runs_of(database, suite):
    from mlflow import MlflowClient

    client = MlflowClient(database)
    experiment = client.get_experiment_by_name(f"dpnorm/{suite}")
    return client, client.search_runs([experiment.experiment_id])


def test_a_member_has_its_parameters_metrics_and_file(
    tracker, storage, database, request, tmp_path
):
    cell = member()
    finish(storage, cell, trained())
    tracker.log(cell, storage)
    client, (run,) = runs_of(database, request.node.name)
    assert run.info.status == "FINISHED"
    assert run.data.tags[CELL] == cell.name
    assert run.data.tags["dpnorm.kind"] == "member"
    assert run.data.tags["dpnorm.arm"] == "digits lenet group epsilon 4"
    params = run.data.params
    assert params["variant"] == "group"
    assert params["training.lr"] == "0.05"
    assert params["privacy.epsilon"] == params["target_epsilon"] == "4.0"
    metrics = run.data.metrics
    assert metrics["accuracy"] == 0.9
    assert metrics["peak_bytes"] == 10**9
    assert metrics["epsilon"] == 3.9
    losses = client.get_metric_history(run.info.run_id, "history.loss")
    assert [(each.step, each.value) for each in losses] == [(1, 2.0)]
    assert run.data.tags["history.loss"] == "nan"
    fetched = client.download_artifacts(run.info.run_id, f"{cell.name}.npz", str(tmp_path))
    with open(fetched, "rb") as file:
        assert file.read() == storage.read(cell.file)
    assert list((tmp_path / "mlruns").iterdir())


def test_a_cell_is_logged_once(tracker, storage, database, request):
    cells = [member(index=index) for index in range(2)]
    for cell in cells:
        finish(storage, cell, trained())
    for cell in [*cells, *cells]:
        tracker.log(cell, storage)
    MlflowTracker(database, request.node.name).log(cells[0], storage)  # of a resumed run
    _, runs = runs_of(database, request.node.name)
    assert sorted(run.data.tags[CELL] for run in runs) == sorted(cell.name for cell in cells)


def test_a_cell_whose_logging_was_cut_short_is_logged_again(
    tracker, storage, database, request, monkeypatch
):
    cell = member()
    finish(storage, cell, trained())

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(tracker._client, "log_artifact", full)
        with pytest.raises(DpnormError, match=r"(?s)No space left.*finished cells are kept"):
            tracker.log(cell, storage)
    tracker.log(cell, storage)
    _, runs = runs_of(database, request.node.name)
    assert sorted(run.info.status for run in runs) == ["FAILED", "FINISHED"]
    assert storage.read(cell.file) is not None


def test_a_measure_has_estimates_with_their_intervals_and_its_facts(
    tracker, storage, database, request, tmp_path
):
    cell = measure(members=tuple(f"{number:020}" for number in range(1000)))
    finish(storage, cell, MEASURES)
    tracker.log(cell, storage)
    client, (run,) = runs_of(database, request.node.name)
    metrics = run.data.metrics
    names = ("accuracy", "accuracy.low", "auc.lira.high", "tpr.lira")
    assert [metrics[name] for name in names] == [0.6, 0.5, 0.7, 0.6]
    assert "tpr.lira.high" not in metrics
    assert run.data.tags["tpr.lira.high"] == "inf"
    assert len(run.data.params["members"]) == LONGEST
    fetched = client.download_artifacts(run.info.run_id, "facts.json", str(tmp_path))
    with open(fetched) as file:
        facts = json.load(file)
    assert facts["auc"] == MEASURES["auc"]
    assert facts["void"] is False


def test_an_audit_has_its_bounds_and_the_claim(tracker, storage, database, request):
    cell = audit()
    finish(storage, cell, AUDIT)
    tracker.log(cell, storage)
    _, (run,) = runs_of(database, request.node.name)
    assert run.data.metrics["white_box.epsilon"] == 1.2
    assert run.data.metrics["claimed_epsilon"] == 3.9
    assert run.data.metrics["exceeded"] == 1
    assert run.data.tags["white_box.ceiling"] == "inf"


@pytest.mark.parametrize(
    ("cell", "facts"),
    [
        (member(allow="refuted"), trained()),
        (audit(allow="refuted"), AUDIT),
        (measure(allow="unproven"), MEASURES),
    ],
    ids=["member", "audit", "measure"],
)
def test_a_void_epsilon_is_a_tag_and_no_metric(
    tracker, storage, database, request, tmp_path, cell, facts
):
    finish(storage, cell, facts)
    tracker.log(cell, storage)
    client, (run,) = runs_of(database, request.node.name)
    assert run.data.tags["epsilon"] == "void"
    if cell.kind == "measure":
        fetched = client.download_artifacts(run.info.run_id, "facts.json", str(tmp_path))
        with open(fetched) as file:
            assert json.load(file)["epsilon"] == "void"
    claims = {"epsilon", "claimed_epsilon", "delta", "exceeded", "history.epsilon"}
    assert not claims & run.data.metrics.keys()
    assert 3.9 not in run.data.metrics.values()


def test_a_plain_cell_has_no_epsilon():
    told = logged(member(math.inf), trained(statement=None))
    assert told.params["target_epsilon"] == "inf"
    assert "epsilon" not in told.tags
    assert "epsilon" not in {name for name, _, _ in told.metrics}


def test_a_cell_that_is_not_finished_is_not_logged(tracker, storage, database, request):
    tracker.log(member(), storage)
    assert runs_of(database, request.node.name)[1] == []


@pytest.mark.parametrize("uri", ["", "bogus://x", "http://127.0.0.1:1", "sqlite:////proc/no/x.db"])
def test_a_uri_that_cannot_be_used_is_one_clear_error(uri):
    with pytest.raises(InputError, match="MLflow") as raised:
        MlflowTracker(uri, "tiny")
    assert repr(uri) in str(raised.value) or not uri
    assert "\n" not in str(raised.value)


def test_mlflow_missing_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dpnorm\[mlflow\]'"):
        MlflowTracker("sqlite:///x.db", "tiny")
