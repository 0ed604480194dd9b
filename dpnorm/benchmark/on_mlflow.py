"""MLflow: one run for each finished cell, in an experiment named after the suite."""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dpnorm.benchmark.cells import Cell, MeasureCell, read_facts
from dpnorm.benchmark.mlflow_values import Logged, logged
from dpnorm.benchmark.storage import Storage
from dpnorm.errors import DpnormError, InputError, MissingExtraError, StorageError

CELL = "dpnorm.cell"  # the tag that holds a cell's name

_BATCH = 100  # parameters that MLflow takes in one call
_METRICS = 500  # metrics that are sent in one call; MLflow takes 1000 of everything together
_HASTY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class MlflowTracker:
    """See `Tracker`. A cell that has been logged is not logged again, by whichever run.

    Each run has the tags dpnorm.cell, dpnorm.kind and dpnorm.arm, the cell's configuration as
    parameters, what it found as metrics, and its file as an artifact. Of an arm that `check` did
    not prove, epsilon is no metric: the tag "epsilon" says that it is void.

    Args:
        uri: of the tracking server or database, such as sqlite:///mlflow.db.
        suite: its name; the experiment is dpnorm/SUITE.

    Raises:
        MissingExtraError: MLflow is not installed.
        InputError: nothing that can be used answers at `uri`.
    """

    def __init__(self, uri: str, suite: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise MissingExtraError("mlflow-skinny", "mlflow", "--mlflow") from error
        self._uri = uri
        if not uri:
            raise InputError("the URI of MLflow is empty: give one such as sqlite:///mlflow.db")
        with _hasty():
            try:
                self._client = MlflowClient(uri)
                self._experiment = self._find_or_make(f"dpnorm/{suite}")
            except Exception as error:  # each kind of store has its own kinds
                raise InputError(f"MLflow cannot be used at {uri!r}: {_line(error)}") from error

    def log(self, cell: Cell, storage: Storage) -> None:
        """Logs a finished cell, unless that has been done.

        Raises:
            DpnormError: MLflow fails; the cell lies in the storage all the same.
        """
        facts = read_facts(storage, cell)
        if facts is None:
            return
        try:
            if not self._has(cell):
                content = storage.read(cell.file)
                self._write(cell, logged(cell, facts), _artifacts(cell, facts, content))
        except StorageError:
            raise
        except Exception as error:  # each kind of store has its own kinds
            raise DpnormError(
                f"MLflow at {self._uri!r} failed ({_line(error)}): the finished cells are kept; "
                "run the suite again, which logs what is missing, or without --mlflow"
            ) from error

    def _find_or_make(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            return str(self._client.create_experiment(name))
        if found.lifecycle_stage != "active":
            raise InputError(f"the experiment {name!r} was deleted: restore it, or purge it")
        return str(found.experiment_id)

    def _has(self, cell: Cell) -> bool:
        """Whether a run of the cell has ended; one that was cut short does not count."""
        wanted = f"tags.`{CELL}` = '{cell.name}' and attributes.status = 'FINISHED'"
        return bool(self._client.search_runs([self._experiment], wanted, max_results=1))

    def _write(self, cell: Cell, told: Logged, artifacts: dict[str, bytes]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        tags = {CELL: cell.name, "dpnorm.kind": cell.kind, "dpnorm.arm": cell.arm}
        run = self._client.create_run(self._experiment, tags=tags, run_name=cell.describe())
        identity, now = run.info.run_id, int(time.time() * 1000)
        try:
            params = [Param(name, value) for name, value in told.params.items()]
            for part in _parts(params, _BATCH):
                self._client.log_batch(identity, params=part)
            metrics = [Metric(name, value, now, step) for name, value, step in told.metrics]
            for part in _parts(metrics, _METRICS):
                self._client.log_batch(identity, metrics=part)
            marks = [RunTag(name, value) for name, value in told.tags.items()]
            self._client.log_batch(identity, tags=marks)
            with tempfile.TemporaryDirectory(prefix="dpnorm-") as folder:
                for name, content in artifacts.items():
                    path = Path(folder) / name
                    path.write_bytes(content)
                    self._client.log_artifact(identity, str(path))
            self._client.set_terminated(identity, "FINISHED")
        except BaseException:
            with contextlib.suppress(Exception):
                self._client.set_terminated(identity, "FAILED")
            raise


def _artifacts(cell: Cell, facts: dict[str, Any], content: bytes | None) -> dict[str, bytes]:
    found = {} if content is None else {f"{cell.name}.npz": content}
    if isinstance(cell, MeasureCell):
        shown = facts | {"void": cell.void}
        if cell.void:
            shown |= dict.fromkeys(("epsilon", "statement", "statement_text"), "void")
        found["facts.json"] = json.dumps(shown, indent=2).encode()
    return found


def _parts(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


@contextlib.contextmanager
def _hasty() -> Iterator[None]:
    """A server that does not answer is given up in seconds, not in minutes."""
    before = {name: os.environ.get(name) for name in _HASTY}
    os.environ.update({name: value for name, value in _HASTY.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
