"""Where a training runs that nobody placed."""

import torch


def best_device() -> torch.device:
    """This process's CUDA device if there is one, or else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
