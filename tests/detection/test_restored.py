"""The model comes back as it was, whatever its forward pass does to it."""

from collections import deque

import pytest
import torch
from torch import Tensor, nn

from dpnorm.detection import Verdict, check


class Restless(nn.Module):
    """Changes everything about itself that a module can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("late", None)
        self.calls, self.cache, self.seen = 0, {}, deque(maxlen=3)
        self.names, self.rows, self.memory = ["a"], set(), torch.zeros(4)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.cache["bias"] = torch.ones(4)
        self.seen.append(1)
        self.names.append("b")
        self.rows.add(len(x))
        self.memory += 1
        self.steps += 1
        self.late = torch.ones(3)
        self.fresh = "new"
        self.linear.eval()
        with torch.no_grad():
            self.frozen.add_(1)
        return self.linear(x) + self.cache["bias"]


@pytest.mark.parametrize("size", [3, 6])
def test_attributes_parameters_buffers_and_modes_are_restored(size):
    model = Restless()
    cache, names, memory, steps = model.cache, model.names, model.memory, model.steps
    check(model, torch.randn(size, 4))
    assert model.calls == 0
    assert model.cache is cache
    assert cache == {}
    assert model.names is names
    assert names == ["a"]
    assert model.rows == set()
    assert list(model.seen) == []
    assert model.memory is memory
    assert memory.eq(0).all()
    assert model.steps is steps
    assert steps.eq(0)
    assert model.late is None
    assert not hasattr(model, "fresh")
    assert model.linear.training
    assert model.frozen.eq(1).all()


def test_a_loss_with_a_memory_of_earlier_batches_is_not_proven():
    class CrossBatch:
        def __init__(self) -> None:
            self.queue: list[Tensor] = []

        def __call__(self, output: Tensor, target: Tensor) -> Tensor:
            loss = output.square().mean()
            for earlier in self.queue:
                loss = loss + (output * earlier.mean()).mean()
            self.queue.append(output.detach())
            return loss

    report = check(
        nn.Linear(4, 3), torch.randn(4, 4), targets=torch.zeros(4), criterion=CrossBatch()
    )
    assert report.verdict != Verdict.PROVEN


def test_a_cached_constant_with_a_graph_is_no_memory():
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.table, self.cache = nn.Linear(4, 4), nn.Parameter(torch.ones(4)), {}

        def forward(self, x: Tensor) -> Tensor:
            if "bias" not in self.cache:
                self.cache["bias"] = self.table * 2
            return self.linear(x) + self.cache["bias"]

    assert check(Cached(), torch.randn(4, 4)).verdict == Verdict.PROVEN
