"""Poisson sampling of batches, and data loaders that announce and draw them."""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader

from dpnorm.errors import InputError


def _nothing() -> None:
    pass


def _require_latest(own: int, latest: int) -> None:
    """Raises an InputError where a pass goes on after another one has begun.

    What was summed of its batch was dropped then, and the chunks of both would be mixed up.
    """
    if own != latest:
        raise InputError(
            "a pass over the data loader goes on after another one has begun: run one pass at a "
            "time, and look at records in the data set instead"
        )


class PoissonSampler(UniformWithReplacementSampler):
    """Yields `steps` batches a pass; each record is in each of them independently.

    The probability is `rate` in double precision: a comparison of float32 numbers, as Opacus's,
    is off by up to 6e-8, which is a part in a hundred of small rates.

    Args:
        records: how many there are.
        rate: the probability.
        steps: batches a pass; a batch may be empty.
        generator: of the random numbers, on the CPU.
        rank: of this process, which draws from the records rank, rank + world, ...
        world: the number of processes.
        on_pass: called when a pass begins.

    Attributes:
        drawn: how many batches were drawn.
    """

    def __init__(
        self,
        records: int,
        rate: float,
        steps: int,
        generator: torch.Generator,
        *,
        rank: int = 0,
        world: int = 1,
        on_pass: Callable[[], None] = _nothing,
    ) -> None:
        own = len(range(rank, records, world))
        super().__init__(num_samples=own, sample_rate=rate, generator=generator, steps=steps)
        self._rank, self._world = rank, world
        self._on_pass = on_pass
        self.drawn = 0
        self._passes = 0

    def __iter__(self) -> Iterator[list[int]]:
        own = self._passes = self._passes + 1
        self._on_pass()
        for _ in range(self.steps):
            _require_latest(own, self._passes)
            drawn = torch.rand(self.num_samples, generator=self.generator, dtype=torch.float64)
            self.drawn += 1
            chosen = (drawn < self.sample_rate).nonzero().flatten()
            yield (chosen * self._world + self._rank).tolist()


def poisson_batches(
    records: int, sampling_rate: float, steps: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yields `steps` index tensors; each record is in each of them independently."""
    for batch in PoissonSampler(records, sampling_rate, steps, generator):
        yield torch.tensor(batch, dtype=torch.long)


class AnnouncedBatches(BatchSampler):
    """The batches of another batch sampler; says when a pass over them begins."""

    def __init__(self, batches: Any, on_pass: Callable[[], None]) -> None:
        self._batches, self._on_pass = batches, on_pass
        self.batch_size = getattr(batches, "batch_size", 1)
        self._passes = 0
        self.drawn = 0

    def __iter__(self) -> Iterator[list[int]]:
        own = self._passes = self._passes + 1
        self._on_pass()
        for batch in self._batches:
            _require_latest(own, self._passes)
            self.drawn += 1
            yield batch

    def __len__(self) -> int:
        return len(self._batches)


class CollateOrEmpty:
    """Collates a batch; of no records it gives the tensors of a batch, with no rows.

    Args:
        collate: of the records of a batch.
        example: a collated batch.
    """

    def __init__(self, collate: Callable[[list[Any]], Any], example: Any) -> None:
        self._collate = collate
        self._empty = _without_rows(example)

    def __call__(self, records: list[Any]) -> Any:
        return self._collate(records) if records else copy.deepcopy(self._empty)


def poisson_loader(loader: DataLoader, sampler: PoissonSampler, example: Any) -> DataLoader:
    """A data loader like another one, with Poisson batches.

    Args:
        loader: whose data set, collation and workers are taken.
        sampler: of the batches.
        example: a batch as the loader collates it.
    """
    collate = loader.collate_fn or torch.utils.data.default_collate
    return DataLoader(
        loader.dataset,
        batch_sampler=sampler,
        num_workers=loader.num_workers,
        collate_fn=CollateOrEmpty(collate, example),
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
    )


def announced_loader(
    loader: DataLoader, on_pass: Callable[[], None]
) -> tuple[DataLoader, AnnouncedBatches]:
    """The same data loader, which says when a pass over its batches begins; and its batches."""
    announced = copy.copy(loader)
    announced.__dict__["_iterator"] = None  # persistent workers would keep to the old batches
    # a data loader does not let its batch sampler be set once it is made
    batches = AnnouncedBatches(loader.batch_sampler, on_pass)
    announced.__dict__["batch_sampler"] = batches
    return announced, batches


def _without_rows(value: Any, listed: bool = False) -> Any:
    """A batch of no records; what stands in a list, and is no tensor, may be of single records."""
    if isinstance(value, Tensor):
        return value[:0].clone() if value.dim() else value.new_zeros(0)
    if isinstance(value, Mapping):
        return {key: _without_rows(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_without_rows(item, listed=True) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if value is None or (isinstance(value, (str, bytes, int, float)) and not listed):
        return value
    raise InputError(
        f"a batch holds a {type(value).__name__}{' in a list' if listed else ''}, and Poisson "
        "sampling needs batches of no record: let the data loader's collate_fn give tensors"
    )
