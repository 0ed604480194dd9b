"""What each of the two processes of test_two_processes.py does.

    python -m tests.training.two_ranks RANK FOLDER

They meet in FOLDER/store and leave in FOLDER what they came to: rank<RANK>.safetensors and, once
all is done, rank<RANK>.json.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

from dpnorm.errors import DpnormError, StoppedError
from dpnorm.privacy import PrivacyConfig
from dpnorm.training import train
from dpnorm.training.plain import PlainSteps
from dpnorm.training.private import PrivateSteps
from tests.training.small import PLAIN, images, network, stop_after, with_settings
from tests.two_processes import leave, meeting

LIMIT = 600  # seconds that a process may live, on a slow machine that is busy
NOISE = 2.0
CLIP = 0.5
QUIET = {"noise_multiplier": 1e-9, "sampling_rate": 1.0, "steps": 4, "clip": CLIP}
COMMON = {"momentum": 0.9, "ema": 0.8, "weight_decay": 0.01, "seed": 3}
DATA = images(22)


@dataclass(frozen=True)
class Scenario:
    """A training that two processes share, and that one could do.

    Attributes:
        norm: of the network.
        settings: of the training.
        privacy: None for plain training.
    """

    norm: str = "group"
    settings: dict[str, Any] = field(default_factory=dict)
    privacy: dict[str, Any] | None = field(default_factory=lambda: dict(QUIET))

    def run(self, seed: int | None = 5, **options: Any) -> Any:
        privacy = None
        if self.privacy is not None:
            privacy = PrivacyConfig(accountant="rdp", seed=seed, **self.privacy)
        config = with_settings(PLAIN, **(COMMON | self.settings))
        return train(network(self.norm), DATA, config, privacy, test=DATA, **options)


ADAMW = {"optimizer": "adamw", "lr": 0.01, "momentum": 0.0}
ALIKE = {  # the batches of both are those of one
    "plain": Scenario(privacy=None),
    "plain, adamw": Scenario(settings=ADAMW, privacy=None),
    "plain, parts and views": Scenario(
        settings={"physical_batch_size": 3, "views": 2}, privacy=None
    ),
    **{
        f"{norm}, {mode}": Scenario(norm, {"grad_sample_mode": mode, "batch_size": 22})
        for norm in ("group", "private")
        for mode in ("hooks", "lean", "functorch", "ghost")
    },
    "group, ew": Scenario(settings={"grad_sample_mode": "ew", "batch_size": 22}),
    "private, auto, views": Scenario(
        "private", {"grad_sample_mode": "auto", "views": 3, "physical_batch_size": 4}
    ),
    "group, adamw": Scenario(settings=ADAMW),
}
NOISY = Scenario(
    "private",
    {"views": 2, "augment": "shift"},
    {"noise_multiplier": NOISE, "clip": CLIP, "sampling_rate": 0.2, "steps": 6},
)
KILLED = {"plain": Scenario("batch", {"augment": "shift", "epochs": 2}, None), "private": NOISY}
ONLY_NOISE = {"noise_multiplier": NOISE, "clip": CLIP, "sampling_rate": 1e-9, "steps": 30}


class Idle(nn.Module):
    """Adds what a process draws to nothing but a list."""

    drawn: list[torch.Tensor] = []  # noqa: RUF012

    def forward(self, x):
        if torch.is_grad_enabled() and self.training:
            self.drawn.append(nn.functional.dropout(torch.ones(8)))
        return x


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def resumed(scenario: Scenario, path: Path, seed: int | None) -> Any:
    """A training that both left in the middle of its second step, and then went on with."""
    taken = iter(range(10**9))
    method = PlainSteps if scenario.privacy is None else PrivateSteps
    take = method.take

    def dying(self, step, chunks):
        loss = take(self, step, chunks)
        if next(taken) == 1:
            raise KeyboardInterrupt
        return loss

    method.take = dying
    try:
        scenario.run(seed, checkpoint=path, checkpoint_every=1e9)
    except KeyboardInterrupt:
        method.take = take
    try:
        stop = stop_after(1) if distributed.get_rank() == 1 else None  # one of them is asked
        scenario.run(seed, checkpoint=path, checkpoint_every=1e9, should_stop=stop)
    except StoppedError:
        return scenario.run(seed, checkpoint=path)
    return None


def refusal(path: Path) -> str:
    """What a process is told where the other's journal is damaged."""
    try:
        NOISY.run(None, checkpoint=path)
    except DpnormError as error:
        return str(error)
    return ""


def scenarios(rank: int, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What this process comes to: tensors and facts of each scenario."""
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    facts: dict[str, Any] = {}

    def keep(name: str, trained: Any) -> None:
        tensors[name] = state(trained.model)
        statement = trained.statement
        facts[name] = {
            "history": [dict(row) for row in trained.history],
            "accuracy": trained.accuracy,
            "statement": None if statement is None else statement.to_dict(),
        }

    for name, scenario in ALIKE.items():
        print(name, flush=True)
        keep(name, scenario.run())
    for name, scenario in KILLED.items():
        print("killed", name, flush=True)
        keep(f"whole, {name}", scenario.run())
        keep(f"resumed, {name}", resumed(scenario, folder / name, 5))
    print("secret", flush=True)
    keep("secret", NOISY.run(None))
    keep("resumed, secret", resumed(NOISY, folder / "secret", None))
    distributed.barrier()
    if rank == 0:
        (folder / "secret.steps").write_bytes(b"x")
    distributed.barrier()
    facts["refusal"] = refusal(folder / "secret")
    print("only noise", flush=True)
    quiet = Scenario("none", COMMON | {"momentum": 0.0, "ema": 0.0, "weight_decay": 0.0, "lr": 1.0})
    keep("only noise", Scenario("none", quiet.settings, ONLY_NOISE).run(11))
    config = with_settings(PLAIN, epochs=1, physical_batch_size=99)
    train(nn.Sequential(Idle(), network()), DATA, config)
    tensors["draws"] = {"plain": torch.stack(Idle.drawn)}
    distributed.barrier()
    return tensors, facts


def main(rank: int, folder: Path) -> None:
    with meeting(rank, folder, LIMIT):
        tensors, facts = scenarios(rank, folder)
    leave(rank, folder, tensors, facts)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
