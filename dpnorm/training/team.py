"""The processes that train one model together: one, or those of torch.distributed."""

from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Team:
    """This process and how many there are.

    Attributes:
        rank: of this process.
        world: the number of processes.
        device: where what they tell each other lies.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def present(cls, device: torch.device) -> Self:
        """The processes of torch.distributed where it is initialized, else this one alone."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
            return cls(rank, world, device)
        return cls(device=device)

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the processes."""
        if self.world > 1:
            tensor = tensor.clone()
            torch.distributed.all_reduce(tensor)
        return tensor

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether a process has raised it."""
        if self.world == 1:
            return list(flags)
        raised = torch.tensor([float(flag) for flag in flags], device=self.device)
        return (self.total(raised) > 0).tolist()

    def gathered(self, tensor: Tensor) -> Tensor:
        """What all processes hold, one row each: (world, ...) on the CPU."""
        if self.world == 1:
            return tensor[None].cpu()
        own = tensor.to(self.device)
        rows = [torch.empty_like(own) for _ in range(self.world)]
        torch.distributed.all_gather(rows, own)
        return torch.stack(rows).cpu()

    def same(self, tensors: list[Tensor]) -> None:
        """Gives all processes what the first one holds."""
        if self.world > 1:
            with torch.no_grad():
                for tensor in tensors:
                    torch.distributed.broadcast(tensor, 0)

    def first_text(self, text: str) -> str:
        """The first process's text, of at most 64 bytes."""
        if self.world == 1:
            return text
        raw = torch.zeros(64, dtype=torch.uint8, device=self.device)
        coded = text.encode()
        raw[: len(coded)] = torch.tensor(list(coded), dtype=torch.uint8, device=self.device)
        self.same([raw])
        return bytes(raw.tolist()).rstrip(b"\0").decode()
