"""The state of torch's own generators, by which models and augmentation draw."""

import torch
from torch import Tensor

from dpnorm.training.team import Team

_CPU, _DEVICE = "model", "model on its device"


def torch_states(team: Team) -> dict[str, Tensor]:
    """Of all processes, one row each; those of a CUDA device too where the model is on one."""
    states = {_CPU: team.gathered(torch.get_rng_state())}
    if team.device.type == "cuda":
        states[_DEVICE] = team.gathered(torch.cuda.get_rng_state(team.device))
    return states


def set_torch_states(states: dict[str, Tensor], team: Team) -> None:
    """Puts back this process's row of what `torch_states` gave."""
    torch.set_rng_state(states[_CPU][team.rank].clone())
    if _DEVICE in states:
        torch.cuda.set_rng_state(states[_DEVICE][team.rank].clone(), team.device)
