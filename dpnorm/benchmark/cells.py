"""Cells: the pieces of a run, each named by all that decides its result."""

import contextlib
import functools
import hashlib
import json
import math
import time
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PlainSerializer

from dpnorm.arrays import array_bytes, arrays_of
from dpnorm.benchmark.code import code_versions
from dpnorm.benchmark.memory import peak_memory
from dpnorm.benchmark.storage import Storage
from dpnorm.benchmark.suite import AuditsSection, OutlierConfig
from dpnorm.config import Config
from dpnorm.data import Dataset, add_outliers, load
from dpnorm.errors import InputError
from dpnorm.leakage import Member, audit_training, draw_membership, train_member
from dpnorm.leakage.member_file import NEEDED, WHAT, member_arrays, member_of
from dpnorm.leakage.members import member_seed
from dpnorm.privacy import PrivacyConfig
from dpnorm.training import TrainConfig
from dpnorm.training.networks import build_network

Arrays = dict[str, NDArray[Any]]
Epsilon = Annotated[
    float, PlainSerializer(lambda e: e if math.isfinite(e) else "inf", when_used="json")
]


def arm_label(
    dataset: str, model: str, variant: str, epsilon: float, seed: int, *, void: bool = False
) -> str:
    """An arm in a few words, for people; the epsilon of a void one is what was aimed at.

    >>> arm_label("digits", "lenet", "group", 8.0, 3)
    'digits lenet group epsilon 8 seed 3'
    >>> arm_label("digits", "lenet", "batch", 8.0, 0, void=True)
    'digits lenet batch epsilon void (target 8)'
    """
    budget = f"epsilon {epsilon:g}" if math.isfinite(epsilon) else "plain"
    if void:
        budget = f"epsilon void (target {epsilon:g})"
    return f"{dataset} {model} {variant} {budget}{f' seed {seed}' if seed else ''}"


class CellConfig(Config):
    """What cells of all kinds have: the arm.

    Everything that decides the result of a cell is in it, with the fingerprint of the data: equal
    cells have equal names and are computed once, by whichever suite.
    """

    dataset: str
    data_fingerprint: str
    outliers: OutlierConfig | None
    model: str
    variant: str
    epsilon: Epsilon
    training: TrainConfig
    privacy: PrivacyConfig | None
    seed: int
    processes: int = 1

    def to_dict(self) -> dict[str, Any]:
        """The cell as JSON data, dpnorm's own code included."""
        return {**code_versions(self.code_parts()), **self.model_dump(mode="json")}

    def code_parts(self) -> tuple[str, ...]:
        """Parts of dpnorm that its result depends on beside the training."""
        return ("benchmark/together.py",) if self.processes > 1 else ()

    def needs(self) -> tuple[str, ...]:
        """The names of the cells that must be finished before."""
        return ()

    @functools.cached_property
    def name(self) -> str:
        """The first 20 hexadecimal digits of the SHA-256 of the cell's content."""
        return _name_of(self.to_dict())

    @property
    def file(self) -> str:
        """Where its result lies in the storage."""
        return cell_file(self.name)

    @property
    def arm(self) -> str:
        """The arm in a few words."""
        return arm_label(
            self.dataset, self.model, self.variant, self.epsilon, self.seed, void=self.void
        )

    @property
    def void(self) -> bool:
        """Whether it is trained privately though its model is not proven, as the suite allows."""
        return self.privacy is not None and self.privacy.allow is not None

    def data(self) -> Dataset:
        """Its data set, with its outliers.

        Raises:
            InputError: it is not the one that the cell was planned for.
        """
        data = load_data(self.dataset, self.outliers)
        if data.fingerprint() != self.data_fingerprint:
            raise InputError(
                f"the data set {self.dataset!r} is not the one that this benchmark was planned "
                "for: its records have changed; run the suite again"
            )
        return data


class MemberCell(CellConfig):
    """One member of one arm's pool."""

    kind: Literal["member"] = "member"
    members: int
    member: int
    views: int = 1
    view_kind: str = "shift"
    watch_every: int = 0
    watch_norms: bool = False

    def describe(self) -> str:
        """The cell in a few words, for people."""
        return f"{self.arm} #{self.member}"

    def train(self) -> Member:
        """Trains the member; the result depends on the cell alone."""
        data = self.data()
        return train_member(
            functools.partial(build_network, self.model, self.variant, data),
            data,
            self.training,
            self.privacy,
            keep=draw_membership(len(data.train), self.members, self.seed)[self.member],
            seed=member_seed(self.seed, self.member),
            views=self.views,
            view_kind=self.view_kind,
            watch_every=self.watch_every,
            watch_norms=self.watch_norms,
        )

    def compute(self, storage: Storage) -> Arrays:
        """The trained member, as arrays."""
        if self.processes > 1:
            from dpnorm.benchmark.together import train_together

            return member_arrays(train_together(self), {"peak_bytes": None})  # of other processes
        with peak_memory() as memory:
            member = self.train()
        return member_arrays(member, {"peak_bytes": memory.peak})


class AuditCell(CellConfig):
    """One audited training of a private arm."""

    kind: Literal["audit"] = "audit"
    audits: AuditsSection

    def code_parts(self) -> tuple[str, ...]:
        return ("leakage/",)

    def describe(self) -> str:
        """The cell in a few words, for people."""
        return f"{self.arm} audit"

    def compute(self, storage: Storage) -> Arrays:
        """What `audit_training` found, as JSON bytes."""
        assert self.privacy is not None
        data, started = self.data(), time.perf_counter()
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            model = build_network(self.model, self.variant, data)
        found = audit_training(
            model,
            data,
            self.training,
            self.privacy,
            canaries=self.audits.canaries,
            records=self.audits.records,
            confidence=self.audits.confidence,
            method=self.audits.method,
            spread=self.audits.spread,
            seed=self.seed,
        )
        return facts_arrays(found.to_dict() | {"seconds": time.perf_counter() - started})


class MeasureCell(CellConfig):
    """Everything that is measured of one arm's pool."""

    kind: Literal["measure"] = "measure"
    members: tuple[str, ...]
    attacks: tuple[str, ...]
    watched: bool

    def code_parts(self) -> tuple[str, ...]:
        return ("leakage/", "benchmark/measure.py")

    def needs(self) -> tuple[str, ...]:
        return self.members

    def describe(self) -> str:
        """The cell in a few words, for people."""
        return f"{self.arm} measures"

    def compute(self, storage: Storage) -> Arrays:
        """The measures, as JSON bytes."""
        from dpnorm.benchmark.measure import measure

        members = []
        for name in self.members:
            arrays = read_arrays(storage, cell_file(name), NEEDED, WHAT)
            if arrays is None:
                raise InputError(f"the cell {name} of {self.arm} is missing: run the suite again")
            members.append((member_of(arrays, name), facts_of(arrays).get("peak_bytes")))
        return facts_arrays(measure(self, members))


Cell = MemberCell | AuditCell | MeasureCell


def cell_file(name: str) -> str:
    """Where the result of the cell of this name lies in the storage."""
    return f"cells/{name}.npz"


def _name_of(content: Any) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def is_finished(storage: Storage, cell: Cell) -> bool:
    """Whether the cell's result is there and whole."""
    needed = NEEDED if isinstance(cell, MemberCell) else ("facts",)
    return read_arrays(storage, cell.file, needed, "a cell of a benchmark") is not None


def read_arrays(storage: Storage, name: str, needed: tuple[str, ...], what: str) -> Arrays | None:
    """A finished cell's arrays; None where there is no file, or it is damaged or another's."""
    content = storage.read(name)
    if content is None:
        return None
    with contextlib.suppress(InputError):  # damaged: computed again, and replaced
        arrays = arrays_of(content, name, needed, what)
        if name == cell_file(_name_of(facts_of(arrays).get("cell"))):
            return arrays
    return None


def read_facts(storage: Storage, cell: Cell) -> dict[str, Any] | None:
    """What a finished cell says of itself; None where it is not finished."""
    arrays = read_arrays(storage, cell.file, ("facts",), "a cell of a benchmark")
    return None if arrays is None else facts_of(arrays)


def facts_of(arrays: Arrays) -> dict[str, Any]:
    """The JSON object among the arrays."""
    try:
        found = json.loads(arrays["facts"].tobytes())
    except ValueError as error:
        raise InputError(f"the facts of a cell are not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError("the facts of a cell are no JSON object")
    return found


def facts_arrays(facts: dict[str, Any]) -> Arrays:
    """A JSON object as an array of its bytes."""
    return {"facts": np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)}


def write_arrays(storage: Storage, cell: Cell, arrays: Arrays) -> None:
    """Writes a cell's result, with the cell itself beside it.

    Raises:
        StorageError: it cannot be written.
    """
    facts = facts_of(arrays) | {"cell": cell.to_dict()}
    storage.write(cell.file, array_bytes(arrays | facts_arrays(facts)))


@functools.lru_cache(maxsize=4)
def load_data(name: str, outliers: OutlierConfig | None) -> Dataset:
    """The data set of a cell, with its outliers."""
    data = load(name)
    if outliers is None:
        return data
    return add_outliers(data, outliers.kind, outliers.count, seed=outliers.seed)
