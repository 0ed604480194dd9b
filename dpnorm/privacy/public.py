"""Public records, of which layers take their statistics."""

import torch
from torch import Tensor, nn

from dpnorm.detection.inputs import Inputs, map_tensors
from dpnorm.errors import InputError
from dpnorm.norms import public_statistics, refresh_statistics
from dpnorm.privacy.judging import require_public


class PublicRecords:
    """The public records of a training, whose statistics follow the weights.

    Args:
        module: that is trained.
        inputs: the records; None where no layer takes statistics of such.
        shared: whether several processes train, which then all take the first one's.

    Raises:
        InputError: there are records and nothing to take them for, or the other way round, or they
            are not what the model takes.
    """

    def __init__(self, module: nn.Module, inputs: Inputs | None, *, shared: bool) -> None:
        layers = public_statistics(module)
        if layers and inputs is None:
            raise InputError(
                f"the model has {len(layers)} layers that take statistics of public records: pass "
                "public_inputs="
            )
        if not layers and inputs is not None:
            raise InputError(
                "public_inputs were given, but no layer takes statistics of public records: "
                "convert the model to 'public-batch', or leave them out"
            )
        self._module, self._inputs = module, inputs
        if inputs is not None:
            device = next(module.parameters()).device
            self._inputs = map_tensors(lambda t: t.to(device), inputs)
            if shared:
                self._inputs = map_tensors(_broadcast, self._inputs)
            require_public(module, self._inputs)

    def refresh(self) -> None:
        """Takes the statistics anew, of the weights as they are."""
        if self._inputs is not None:
            refresh_statistics(self._module, self._inputs)


def _broadcast(tensor: Tensor) -> Tensor:
    tensor = tensor.clone()
    torch.distributed.broadcast(tensor, 0)
    return tensor
