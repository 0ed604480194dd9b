"""What each of the two processes of test_distributed.py does.

    python -m tests.privacy.two_ranks RANK FOLDER

They meet in FOLDER/store and leave in FOLDER what they came to: rank<RANK>.safetensors and, once
all is done, rank<RANK>.json.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from opacus.distributed import DifferentiallyPrivateDistributedDataParallel
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch import distributed, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import dpnorm
from dpnorm.errors import InputError
from dpnorm.norms import PrivateBatchNorm1d, PrivateBatchNorm2d, PublicBatchNorm2d
from tests.two_processes import WORLD, leave, meeting

LIMIT = 600  # seconds that a process may live, on a slow machine that is busy
SEED = 4
SPOILED = 23  # the record that may hold NaN, in the second shard
NOISE = 2.0
CLIP = 0.5  # below the norms of most records, above those of some
QUIET_STEPS = 300  # in which nothing but noise is released
COUNT_STD = 3.0
ADAPTIVE = {
    "target_unclipped_quantile": 0.7,
    "clipbound_learning_rate": 0.5,
    "max_clipbound": 10.0,
    "min_clipbound": 0.01,
    "unclipped_num_std": COUNT_STD,
}


def private_net():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        PrivateBatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        PrivateBatchNorm2d(4),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def group_net():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)
    )


def public_net():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), PublicBatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)
    )


NETS = {"private": private_net, "group": group_net, "public": public_net}


@dataclass(frozen=True)
class Scenario:
    """A training without noise.

    Attributes:
        net: a name in NETS.
        mode: of gradient sampling.
        clipping: "flat", "per_layer" or "adaptive".
        batch: the expected batch size of all processes together.
        reduction: of the loss.
        poisson: whether batches are drawn, or those of a DistributedSampler.
        physical: the largest batch that runs at once.
        spoiled: whether a record holds NaN.
    """

    net: str
    mode: str = "hooks"
    clipping: str = "flat"
    batch: int = 8
    reduction: str = "mean"
    poisson: bool = True
    physical: int | None = None
    spoiled: bool = False


SCENARIOS = {
    **{
        f"{net}, {mode}, flat": Scenario(net, mode)
        for net in ("private", "group")
        for mode in ("hooks", "lean", "functorch", "ghost")
    },
    **{
        f"{net}, hooks, {clipping}": Scenario(net, clipping=clipping)
        for net in ("private", "group")
        for clipping in ("per_layer", "adaptive")
    },
    **{
        f"small batches, {mode}": Scenario("private", mode, batch=2)
        for mode in ("hooks", "lean", "functorch", "ghost")
    },
    **{
        f"chunks, {mode}": Scenario("private", mode, batch=6, physical=2)
        for mode in ("hooks", "ghost")
    },
    "chunks, adaptive": Scenario("group", clipping="adaptive", batch=6, physical=2),
    "public": Scenario("public"),
    "sum": Scenario("private", reduction="sum"),
    "fixed batches": Scenario("private", poisson=False),
    "a record of NaN": Scenario("private", spoiled=True),
}


class Records(Dataset):
    """24 labelled images; keeps which were asked for, and lets them be cut into steps."""

    def __init__(self, *, spoiled: bool = False) -> None:
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(24, 2, 5, 5, generator=generator)
        self.y = torch.arange(24) % 3
        if spoiled:
            self.x[SPOILED] = torch.nan
        self.steps: list[list[int]] = []
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index):
        self.asked.append(index)
        return self.x[index], self.y[index]

    def cut(self, _: Any = None) -> None:
        self.steps.append(self.asked)
        self.asked = []


@dataclass
class Training:
    """What make_private gave, and what it was given."""

    engine: dpnorm.PrivacyEngine
    model: nn.Module
    wrapped: nn.Module
    optimizer: Any
    criterion: Any
    loader: DataLoader
    records: Records

    def step(self, x, y) -> None:
        self.optimizer.zero_grad()
        self.criterion(self.wrapped(x), y).backward()
        self.optimizer.step()

    def state(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers, and the clipping norm."""
        clip = torch.tensor(self.optimizer.max_grad_norm, dtype=torch.float64)
        return {n: t.clone() for n, t in self.model.state_dict().items()} | {"clip": clip}


def prepared(
    scenario: Scenario, *, shared: bool, noise: float = 0.0, seed: int | None = SEED, **options: Any
) -> Training:
    """A training of one process, or of one that shares it with others."""
    torch.manual_seed(0)
    model = NETS[scenario.net]()
    module = DifferentiallyPrivateDistributedDataParallel(model) if shared else model
    criterion = nn.CrossEntropyLoss(reduction=scenario.reduction)
    records = Records(spoiled=scenario.spoiled)
    clip: Any = CLIP
    if scenario.clipping == "per_layer":
        clip = [0.1 + 0.05 * i for i, _ in enumerate(model.parameters())]
    if scenario.clipping == "adaptive":
        options = ADAPTIVE | options
    if scenario.net == "public":
        options["public_inputs"] = torch.randn(6, 2, 5, 5) + 1
    loader = DataLoader(records, batch_size=scenario.batch)
    if shared and not scenario.poisson:
        sampler: Any = DistributedSampler(records, shuffle=False)
        loader = DataLoader(records, batch_size=scenario.batch // WORLD, sampler=sampler)
    engine = dpnorm.PrivacyEngine(accountant="rdp")
    made = engine.make_private(
        module=module,
        optimizer=torch.optim.SGD(module.parameters(), lr=0.5),
        criterion=criterion,
        data_loader=loader,
        noise_multiplier=noise,
        max_grad_norm=clip,
        loss_reduction=scenario.reduction,
        grad_sample_mode=scenario.mode,
        clipping=scenario.clipping,
        poisson_sampling=scenario.poisson,
        seed=seed,
        **options,
    )
    records.asked.clear()
    made[1].attach_step_hook(records.cut)
    wrapped, optimizer, *between, drawn = made
    return Training(engine, model, wrapped, optimizer, *(between or [criterion]), drawn, records)


def trained(scenario: Scenario) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The end of two passes over the data, what was drawn for each step, and in how many chunks."""
    training = prepared(scenario, shared=True)
    optimizer, chunks = training.optimizer, []
    for _ in range(2):
        if scenario.physical is None:
            for x, y in training.loader:
                training.step(x, y)
            continue
        with BatchMemoryManager(
            data_loader=training.loader,
            max_physical_batch_size=scenario.physical,
            optimizer=optimizer,
        ) as loader:
            count = 0
            for x, y in loader:
                training.step(x, y)
                count += 1
                if not optimizer._is_last_step_skipped:
                    chunks.append(count)
                    count = 0
    return training.state(), {
        "drawn": training.records.steps,
        "chunks": chunks,
        "dropped": optimizer.dropped_records,
    }


def noisy() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """All parameters and buffers after each step of a training with noise, and its account."""
    scenario = Scenario("private", clipping="adaptive")
    training = prepared(scenario, shared=True, noise=NOISE, seed=None)
    path = []
    for _ in range(3):
        for x, y in training.loader:
            training.step(x, y)
            path.append(torch.cat([t.flatten().double() for t in training.state().values()]))
    engine = training.engine
    return {"path": torch.stack(path)}, {
        "epsilon": engine.get_epsilon(1e-5),
        "statement": engine.statement(1e-5).epsilon,
        "history": engine.accountant.history,
        "ledger": engine.ledger.to_dict(),
    }


def quiet(reduction: str) -> dict[str, torch.Tensor]:
    """What steps without any record released: the noise of each release, as it was added up.

    The clipping norm is held where it is, so that the noise keeps its size.
    """
    training = prepared(
        Scenario("private", clipping="adaptive", reduction=reduction),
        shared=True,
        noise=NOISE,
        clipbound_learning_rate=0.0,
    )
    optimizer = training.optimizer
    gradients, statistics, counts = [], [], []
    publish, moved = optimizer.statistics.publish, optimizer.clipping.moved

    def publishing(noisy, **sizes):
        statistics.append(noisy.clone())
        publish(noisy, **sizes)

    def moving(clip, released):
        counts.append(released)
        return moved(clip, released)

    optimizer.statistics.publish, optimizer.clipping.moved = publishing, moving
    for _ in range(QUIET_STEPS):
        optimizer.zero_grad()
        optimizer.take_empty_batch()
        optimizer.step()
        gradients.append(torch.cat([p.grad.flatten() for p in optimizer.params]))
    return {
        "gradients": torch.stack(gradients),
        "statistics": torch.stack(statistics),
        "counts": torch.tensor(counts, dtype=torch.float64),
    }


class Scaled(nn.Module):
    """A model whose every parameter and buffer is another one on each process."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        torch.manual_seed(rank)
        self.register_buffer("scale", torch.full((4,), 1.0 + rank))
        self.register_buffer("order", torch.arange(4).roll(rank))
        self.norm, self.lin = PrivateBatchNorm1d(4, uncertainty=1.0 + rank), nn.Linear(4, 3)
        self.norm.statistics.running_mean.fill_(float(rank))
        self.norm.statistics.running_var.fill_(2.0 + rank)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter += rank

    def forward(self, x):
        return self.lin(self.norm(x.flatten(1)[:, :4][:, self.order] * self.scale))


def made_alike(rank: int) -> dict[str, torch.Tensor]:
    """The state of a model that was another one on each process, once it was made private."""
    model = Scaled(rank)
    module = DifferentiallyPrivateDistributedDataParallel(model)
    dpnorm.PrivacyEngine().make_private(
        module=module,
        optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
        data_loader=DataLoader(Records(), batch_size=8),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
    )
    return model.state_dict()


def coins(seed: int | None) -> list[list[int]]:
    """What the engine's sampler draws of 24 records in 200 batches, at rate 1/2."""
    sampler = prepared(Scenario("group", batch=12), shared=True, seed=seed).loader.batch_sampler
    return [batch for _ in range(100) for batch in sampler]


def refusal() -> str:
    """What the engine says of torch's own wrapper."""
    module = nn.parallel.DistributedDataParallel(group_net())
    try:
        dpnorm.PrivacyEngine().make_private(
            module=module,
            optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
            data_loader=DataLoader(Records(), batch_size=8),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
        )
    except InputError as error:
        return str(error)
    return ""


def scenarios(rank: int, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What this process comes to: tensors and facts of each scenario."""
    tensors, facts = {}, {}
    for name, scenario in SCENARIOS.items():
        print(name, flush=True)
        tensors[name], facts[name] = trained(scenario)
    tensors["noisy"], facts["noisy"] = noisy()
    for reduction in ("mean", "sum"):
        tensors[f"quiet, {reduction}"] = quiet(reduction)
    tensors["made alike"] = made_alike(rank)
    facts["coins"] = {"seed": coins(SEED), "entropy": coins(None)}
    facts["refusal"] = refusal()
    distributed.barrier()
    return tensors, facts


def main(rank: int, folder: Path) -> None:
    with meeting(rank, folder, LIMIT):
        tensors, facts = scenarios(rank, folder)
    leave(rank, folder, tensors, facts)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
