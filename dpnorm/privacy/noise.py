"""Gaussian noise, added to what a step releases.

Most of the time of a draw is arithmetic of one core: torch gives numbers of one generator one after
the other. Much noise is therefore drawn from several generators, which threads take in turn. Which
generator a number comes from follows from the shapes alone, so that the same seed gives the same
noise with any number of threads.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from opacus.optimizers.optimizer import _generate_noise
from torch import Tensor

from dpnorm.gradients.memory import Workspace
from dpnorm.privacy.randomness import branch, branch_key

PIECE = 2**15  # numbers drawn at once: they fit a core's cache, and torch keeps to one thread
STREAM = 16  # pieces that one generator gives where there are several


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
    memory = workspace.empty((sum(sizes),), exact[0])
    on_processor = memory.device.type == "cpu"
    runs = list(_runs(exact, PIECE if on_processor else max(PIECE, *sizes)))
    own = [sum(piece.numel() for piece in run) for run in runs]
    pieces = list(zip(runs, memory.split(own), strict=True))
    filling = _Filling(std, divisor, secure)
    if len(pieces) <= STREAM or secure or not std or not on_processor:
        filling.fill(pieces, generator)
    else:
        filling.fill_from_several(pieces, branch_key(generator))
    parts = memory.split(sizes)
    return [part.view(tensor.shape) for part, tensor in zip(parts, exact, strict=True)]


_Pieces = Sequence[tuple[list[Tensor], Tensor]]  # what is exact, and the memory of what is noisy


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

    def fill_from_several(self, pieces: _Pieces, key: bytes) -> None:
        """By as many threads as torch has."""
        shares = [pieces[i : i + STREAM] for i in range(0, len(pieces), STREAM)]
        streams = [branch(key, number) for number in range(len(shares))]
        workers = min(torch.get_num_threads(), len(shares))
        if workers == 1:
            for share, stream in zip(shares, streams, strict=True):
                self.fill(share, stream)
            return
        with ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(self.fill, shares, streams):  # raises what a thread raised
                pass


def _drawn(memory: Tensor, std: float, generator: torch.Generator | None, secure: bool) -> Tensor:
    """Noise like the memory, which is written where that helps."""
    if secure:
        return _generate_noise(std, memory, generator, secure_mode=True)
    return memory.normal_(0.0, std, generator=generator) if std else memory.zero_()


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
