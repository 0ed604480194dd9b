"""The processes that torchrun started together: this one's place among them."""

import contextlib
import os
from collections.abc import Iterator

from dpnorm.errors import InputError


def is_team() -> bool:
    """Whether torchrun, or something like it, has started more than one process."""
    return "RANK" in os.environ and _number("WORLD_SIZE", 1) > 1


def is_first() -> bool:
    """Whether this process prints and writes."""
    return not is_team() or _number("RANK", 0) == 0


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """The processes can talk to each other inside, where there are several.

    Raises:
        InputError: they do not find each other.
    """
    if not is_team():
        yield
        return
    import torch
    from torch import distributed

    with_cuda = torch.cuda.is_available()
    if with_cuda:
        torch.cuda.set_device(_number("LOCAL_RANK", 0))
    try:
        distributed.init_process_group("nccl" if with_cuda else "gloo")
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"the processes do not find each other ({error}): start them with torchrun, or unset "
            "RANK and WORLD_SIZE"
        ) from error
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default
