"""Gaussian noise, added to what a step releases.

Much noise on the processor comes from streams of a key that is drawn from the generator, which
threads take in turn (`dpnorm.privacy.gaussian_stream`). Which stream a number comes from follows
from the shapes alone, so that the same seed gives the same noise with any number of threads.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.optimizers.optimizer import _generate_noise
from torch import Tensor

from dpnorm.gradients.memory import Workspace
from dpnorm.privacy.gaussian_stream import GaussianStream, scratch_size
from dpnorm.privacy.randomness import stream_key

PIECE = 2**15  # numbers of a generator at once: they fit the cache, and torch keeps to one thread
BLOCK = 2**18  # numbers of a stream at once: with fewer, threads wait for each other's calls
STREAM = 2  # blocks that a stream gives
MANY = STREAM * BLOCK  # numbers: above, they come from streams


def noise_like(
    tensor: Tensor, std: float, generator: torch.Generator | None, *, secure: bool = False
) -> Tensor:
    """A tensor of noise, of the shape and type and on the device of another one.

    Args:
        tensor: whose values are not read.
        std: standard deviation; 0 for none.
        generator: of the numbers; torch's own where it is None.
        secure: draws as Opacus's `secure_mode`.
    """
    return _drawn(torch.empty_like(tensor), std, generator, secure)


def with_noise(
    exact: Sequence[Tensor],
    std: float,
    generator: torch.Generator | None,
    workspace: Workspace,
    *,
    divisor: float = 1.0,
    secure: bool = False,
) -> list[Tensor]:
    """Each tensor and noise on every number of it, over a divisor, in one memory.

    On the processor noise is drawn, and added, in pieces that fit the cache.

    Args:
        exact: tensors of one type on one device; they stay as they are.
        std: standard deviation; 0 for none.
        generator: of the numbers; torch's own where it is None.
        workspace: gives the memory.
        divisor: of the tensors with their noise.
        secure: draws as Opacus's `secure_mode`.
    """
    sizes = [tensor.numel() for tensor in exact]
    total = sum(sizes)
    memory = workspace.empty((total,), exact[0])
    filling = _Filling(std, divisor, secure)
    if memory.device.type != "cpu":
        filling.fill(_pieces(exact, memory, max(PIECE, *sizes)), generator)
    elif total > MANY and std and not secure and memory.dtype in (torch.float32, torch.float64):
        filling.fill_from_streams(_pieces(exact, memory, BLOCK), stream_key(generator), workspace)
    else:
        filling.fill(_pieces(exact, memory, PIECE), generator)
    parts = memory.split(sizes)
    return [part.view(tensor.shape) for part, tensor in zip(parts, exact, strict=True)]


_Pieces = Sequence[tuple[list[Tensor], Tensor]]  # what is exact, and the memory of what is noisy
_Shares = deque[tuple[_Pieces, GaussianStream]]  # what threads take, whoever is free


@dataclass(frozen=True)
class _Filling:
    """Writes what is exact and noise, which is the release, and then divides it."""

    std: float
    divisor: float
    secure: bool

    def fill(self, pieces: _Pieces, generator: torch.Generator | None) -> None:
        for run, memory in pieces:
            exact = run[0] if len(run) == 1 else torch.cat(run)
            noise = _drawn(memory, self.std, generator, self.secure)
            torch.add(noise, exact, out=memory)
            if self.divisor != 1.0:
                memory.div_(self.divisor)

    def fill_from_streams(self, pieces: _Pieces, key: bytes, workspace: Workspace) -> None:
        """By as many threads as torch has."""
        shares = deque(
            (pieces[i : i + STREAM], GaussianStream(key, number))
            for number, i in enumerate(range(0, len(pieces), STREAM))
        )
        size = scratch_size(BLOCK, pieces[0][1].itemsize)
        byte = torch.empty(0, dtype=torch.uint8, device="cpu")
        workers = min(torch.get_num_threads(), len(shares))
        own, *others = [workspace.empty((size,), byte).numpy() for _ in range(workers)]
        with ThreadPoolExecutor(workers) as pool:  # which makes threads as they are needed
            helpers = [pool.submit(self._fill_shares, shares, scratch) for scratch in others]
            self._fill_shares(shares, own)
            for helper in helpers:
                helper.result()  # raises what the thread raised

    def _fill_shares(self, shares: _Shares, scratch: NDArray[np.uint8]) -> None:
        """Takes shares as long as there are some; another thread may take the last one.

        NumPy stays within the thread that calls it; torch would take threads of its own.
        """
        while shares:
            try:
                pieces, stream = shares.popleft()
            except IndexError:
                return
            for run, memory in pieces:
                noisy = memory.numpy()
                stream.fill(noisy, self.std, scratch)
                start = 0
                for exact in run:
                    noisy[start : start + len(exact)] += exact.numpy()
                    start += len(exact)
                if self.divisor != 1.0:
                    noisy /= self.divisor


def _drawn(memory: Tensor, std: float, generator: torch.Generator | None, secure: bool) -> Tensor:
    """Noise like the memory, which is written where that helps."""
    if secure:
        return _generate_noise(std, memory, generator, secure_mode=True)
    return memory.normal_(0.0, std, generator=generator) if std else memory.zero_()


def _pieces(exact: Sequence[Tensor], memory: Tensor, at_once: int) -> _Pieces:
    """Both in pieces of at most so many numbers."""
    runs = list(_runs(exact, at_once))
    return list(zip(runs, memory.split([sum(p.numel() for p in run) for run in runs]), strict=True))


def _runs(tensors: Iterable[Tensor], at_once: int) -> Iterator[list[Tensor]]:
    """Flat pieces of tensors one after the other, together as many as have so many numbers."""
    run: list[Tensor] = []
    room = at_once
    for tensor in tensors:
        flat = tensor.reshape(-1)
        pieces = flat.split(at_once) if flat.numel() > at_once else (flat,)
        for piece in pieces[:-1]:  # which fill a run
            if run:
                yield run
                run, room = [], at_once
            yield [piece]
        size = pieces[-1].numel()
        if run and size > room:
            yield run
            run, room = [], at_once
        run.append(pieces[-1])
        room -= size
    if run:
        yield run
