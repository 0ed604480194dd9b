"""How close a converted model is to its original."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpnorm.conversion.modes import evaluating
from dpnorm.detection.inputs import Inputs, batch_size, call, check_device, tensors_in
from dpnorm.errors import InputError


@dataclass(frozen=True)
class Fidelity:
    """The original's outputs against the converted model's, on the same records.

    Attributes:
        agreement: the share of records with the same top-1 class.
        kl: mean of KL(softmax(original) || softmax(converted)), in nats.
        largest_difference: the largest absolute difference between two logits.
        records: how many records were compared.
    """

    agreement: float
    kl: float
    largest_difference: float
    records: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.agreement:.1%} of {self.records} records keep their top-1 class; KL "
            f"{self.kl:.3g}; largest logit difference {self.largest_difference:.3g}"
        )


def fidelity(original: nn.Module, converted: nn.Module, inputs: Inputs) -> Fidelity:
    """Compares two models' logits in evaluation mode; neither model is changed.

    Args:
        original: gives logits (B, K), or (B, K, ...) of one class per position; of several outputs
            the first is compared.
        converted: gives logits of the same shape.
        inputs: records (B, ...), as the models take them.

    Raises:
        InputError: inputs of a wrong form, or outputs that are no logits of one shape.
    """
    records = batch_size(inputs, least=1)
    check_device(original, inputs)
    wanted, found = _logits(original, inputs), _logits(converted, inputs)
    if wanted.shape != found.shape or wanted.dim() < 2:
        raise InputError(
            f"the models give outputs of shapes {tuple(wanted.shape)} and {tuple(found.shape)}: "
            "fidelity compares logits (B, K)"
        )
    log_p, log_q = F.log_softmax(wanted, 1), F.log_softmax(found, 1)
    kl = (log_p.exp() * (log_p - log_q)).sum(1).mean()
    return Fidelity(
        agreement=float((wanted.argmax(1) == found.argmax(1)).double().mean()),
        kl=max(float(kl), 0.0),
        largest_difference=float((wanted - found).abs().max()),
        records=records,
    )


def _logits(model: nn.Module, inputs: Inputs) -> Tensor:
    with torch.no_grad(), evaluating(model):
        outputs = tensors_in(call(model, inputs))
    if not outputs:
        raise InputError("the model gives no tensor: fidelity compares logits (B, K)")
    return outputs[0].double()
