"""Training a converted network to give the logits of the original, on public records."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpnorm.conversion.surgery import copied
from dpnorm.detection.inputs import Inputs, batch_size, call, check_device, map_tensors
from dpnorm.errors import ConversionError, InputError

Progress = Callable[[int, int], None]

_SHIFT = 3  # pixels at most, and not more than an eighth of a side
_WIDE = 32  # bits: narrower parameters are trained in float32 and rounded at the end


def distill(
    original: nn.Module,
    converted: nn.Module,
    inputs: Inputs,
    *,
    steps: int = 600,
    batch: int = 32,
    lr: float = 3e-4,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Trains `converted`, in place, to give the logits of `original` on `inputs`.

    Adam on the mean squared error of the logits, with a learning rate that falls to zero along a
    cosine. Each step draws `batch` pairs of records, shifts maps (N, C, H, W) by up to 3 pixels
    (and an eighth of a side), the border continued, and mixes the pairs,

        x = t x_1 + (1 - t) x_2,    t uniform on [0, 1] for half of the pairs, 1 for the rest;

    tensors that are not floating point, such as tokens, are taken as they are. Both models run in
    evaluation mode. Where `converted` has parameters narrower than 32 bits, both run in float32.

    Args:
        original: what is imitated; a copy is run, so that it stays as it is.
        converted: trained in its parameters that require a gradient. Flags, modes, gradients and
            buffers stay as they are; after an error or an interrupt, the parameters do too.
        inputs: at least two public records, as the models take them.
        steps: of Adam.
        batch: records a step.
        lr: learning rate of the first step.
        seed: of the draws; the random state stays as it is.
        progress: called with (done, total) after each step.

    Raises:
        InputError: fewer than two records, or on another device; no parameter to train; settings
            that are not positive.
        ConversionError: an output that is not one floating tensor, outputs of two shapes, or a
            loss that is not finite.

    No guarantee covers `inputs`: they must be public. What the original knows of its training data
    passes on to `converted`.

    Source: Hinton, Vinyals and Dean, arXiv 1503.02531; mixing: arXiv 1710.09412.
    """
    _check_settings(steps, batch, lr)
    records = batch_size(inputs)
    check_device(original, inputs)
    if not _trainable(converted):
        raise InputError(
            "the converted model has no parameter that requires a gradient: set requires_grad on "
            "what distillation may change"
        )
    teacher, student = copied(original).eval(), copy.deepcopy(converted).eval()
    if any(torch.finfo(p.dtype).bits < _WIDE for p in _trainable(student)):
        teacher, student = teacher.float(), student.float()
        inputs = map_tensors(lambda t: t.float() if t.is_floating_point() else t, inputs)
    parameters = _trainable(student)
    optimizer = torch.optim.Adam(parameters, lr=lr)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(seed)  # for a model that draws even in evaluation
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
            drawn = _augmented(inputs, records, batch, generator)
            loss = _loss(teacher, student, drawn)
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            if progress is not None:
                progress(step + 1, steps)
    with torch.no_grad():
        for parameter, value in zip(_trainable(converted), parameters, strict=True):
            parameter.copy_(value)


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad and p.is_floating_point()]


def _loss(teacher: nn.Module, student: nn.Module, inputs: Inputs) -> Tensor:
    with torch.no_grad():
        target = _logits(call(teacher, inputs), "original")
    output = _logits(call(student, inputs), "converted")
    if output.shape != target.shape:
        raise ConversionError(
            f"the converted model gives {tuple(output.shape)}, the original "
            f"{tuple(target.shape)}: distillation compares outputs of one shape"
        )
    loss = F.mse_loss(output, target.to(output))
    if not torch.isfinite(loss):
        raise ConversionError(
            "the difference of the two models' logits is not finite: check that both give finite "
            "outputs on these records, and lower lr if it came during distillation"
        )
    return loss


def _logits(output: Any, whose: str) -> Tensor:
    if isinstance(output, Tensor) and output.is_floating_point():
        return output
    kind = f"a tensor of {output.dtype}" if isinstance(output, Tensor) else type(output).__name__
    raise ConversionError(
        f"the {whose} model returns {kind}, but distillation compares one floating-point tensor: "
        "wrap the model so that it returns its logits, or convert without distillation"
    )


def _augmented(inputs: Inputs, records: int, batch: int, generator: torch.Generator) -> Inputs:
    """A batch of shifted and mixed records; what belongs together is drawn together."""
    first = torch.randint(records, (batch,), generator=generator)
    second = torch.randint(records, (batch,), generator=generator)
    share = torch.rand(batch, generator=generator)
    share[: batch // 2] = 1.0
    offsets = torch.randint(-_SHIFT, _SHIFT + 1, (2, batch, 2), generator=generator)

    def draw(tensor: Tensor) -> Tensor:
        ours = tensor[first.to(tensor.device)]
        if not tensor.is_floating_point():
            return ours
        theirs = tensor[second.to(tensor.device)]
        if tensor.dim() == 4:
            ours, theirs = shifted(ours, offsets[0]), shifted(theirs, offsets[1])
        weights = share.to(tensor).view(-1, *[1] * (tensor.dim() - 1))
        return weights * ours + (1 - weights) * theirs

    return map_tensors(draw, inputs)


def shifted(x: Tensor, offsets: Tensor) -> Tensor:
    """Shifts each map of x (N, C, H, W) by its row of offsets (N, 2), the border continued.

    Offsets beyond an eighth of a side are cut to it.

    >>> x = torch.arange(8.0).expand(1, 1, 8, 8)
    >>> shifted(x, torch.tensor([[0, 3]]))[0, 0, 0]
    tensor([0., 0., 1., 2., 3., 4., 5., 6.])
    """
    H, W = x.shape[2:]
    down, right = (offsets[:, i].clamp(-(n // 8), n // 8) for i, n in enumerate((H, W)))
    rows = (torch.arange(H) - down[:, None]).clamp(0, H - 1).to(x.device)
    columns = (torch.arange(W) - right[:, None]).clamp(0, W - 1).to(x.device)
    records = torch.arange(len(x), device=x.device)[:, None, None]
    return x[records, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _check_settings(steps: int, batch: int, lr: float) -> None:
    for name, value in {"steps": steps, "batch": batch}.items():
        if type(value) is not int or value < 1:
            raise InputError(f"{name} is {value!r}: it must be an integer of at least 1")
    if not 0 < lr < math.inf:
        raise InputError(f"lr is {lr!r}: it must be positive and finite")
