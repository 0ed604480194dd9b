"""Records made of nothing but the BatchNorm statistics of a trained model.

The running statistics of a BatchNorm layer are the moments of what it saw of the training data.
Images are sought whose activations have these moments in every layer, and which the model assigns
to its classes in equal parts. Source: DeepInversion, arXiv 1912.08795.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpnorm.conversion.surgery import batch_norms, copied
from dpnorm.errors import ConversionError, InputError

Progress = Callable[[int, int], None]

_RATE = 0.3  # of Adam at the start; it falls to zero along a cosine
_LABELS = 0.05  # weight of the cross entropy beside the moments
_SMOOTH = 0.01  # weight of the squared differences of neighbouring pixels


def synthesize(
    model: nn.Module,
    shape: Sequence[int] | None = None,
    *,
    count: int = 128,
    steps: int = 150,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tensor:
    """Makes records on which the inputs of each BatchNorm layer have its running statistics.

    Starts from normal noise and runs Adam on

        sum over layers of mean_c [v/v' - 1 - log(v/v') + (m - m')^2 / v'] / 2
            + 0.05 cross_entropy + 0.01 roughness

    where m, v are the moments of channel c over the records and positions and m', v' the layer's
    running statistics: the Kullback-Leibler divergence of two normal distributions. The labels are
    random, each class as often; a model whose output is no (N, K) tensor goes without. Roughness
    is the mean squared difference of neighbouring pixels, for maps alone.

    Args:
        model: trained, with BatchNorm layers; a copy is used in evaluation mode, so that modes,
            buffers and gradients stay as they are, and so does the random state.
        shape: of one record: (C, H, W) for maps, (F,) for flat records. None where it follows from
            the model, see `record_shape`.
        count: number of records. All go through the model at once, with a backward pass, so that
            the activations of this many records must fit into memory.
        steps: of Adam.
        seed: the same seed gives the same records.
        progress: called with (done, total) after each step.

    Returns:
        Records (count, *shape), in the model's dtype, on its device.

    Raises:
        InputError: the shape is needed and not given, or the model does not take it; a count below
            2 or steps below 1.
        ConversionError: the model has no BatchNorm with measured statistics, or none that runs.

    No guarantee: the records are a function of the weights and statistics alone, and say about the
    training data what these say. Where those are private, so are the records.
    """
    _require_at_least("count", count, 2)
    _require_at_least("steps", steps, 1)
    shape = _checked_shape(model, shape)
    source = copied(model).eval().requires_grad_(False)
    layers = [layer for _, layer in batch_norms(source) if has_statistics(layer)]
    if not layers:
        raise ConversionError(
            "records are synthesized from running statistics, but the model has no BatchNorm with "
            "statistics that were measured: train it first, or pass public records instead"
        )
    device, dtype = _place(source)
    working = dtype if torch.finfo(dtype).bits >= 32 else torch.float32
    source.to(working)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        noise = torch.randn(count, *shape, dtype=working).to(device)
        order = torch.randperm(count).to(device)
        records = _optimized(source, layers, noise, order, steps, progress)
    return records.to(dtype)


def record_shape(model: nn.Module) -> tuple[int, ...] | None:
    """The shape of one record where the first layer with a weight tells it, else None.

    A linear layer takes (in_features,); a convolution takes maps of any size.

    >>> record_shape(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    (64,)
    """
    first = _first_layer(model)
    return (first.in_features,) if isinstance(first, nn.Linear) else None


def moment_distance(model: nn.Module, records: Tensor) -> float:
    """How far the BatchNorm inputs of `records` (N, ...) are from the running statistics.

    The first sum of the formula in `synthesize`, divided by the number of layers; 0 where all
    moments agree. The model is not touched.
    """
    source = copied(model).eval()
    layers = [layer for _, layer in batch_norms(source) if has_statistics(layer)]
    with torch.no_grad(), _Divergences(layers) as divergences:
        source(records)
    return float(divergences.total()) / max(1, len(divergences.terms))


class _Divergences:
    """Collects, while the model runs, the divergence of each layer's input from its statistics."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        self.terms: list[Tensor] = []
        self._layers = list(layers)
        self._handles: list[Any] = []

    def __enter__(self) -> "_Divergences":
        self._handles = [layer.register_forward_pre_hook(self._note) for layer in self._layers]
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()

    def total(self) -> Tensor:
        return torch.stack(self.terms).sum()

    def _note(self, layer: Any, args: tuple[Tensor, ...]) -> None:
        x = args[0].transpose(0, 1).flatten(1)
        mean, var = x.mean(1), x.var(1, correction=0) + layer.eps
        target = layer.running_var + layer.eps
        ratio = var / target
        shift = (mean - layer.running_mean).square() / target
        self.terms.append((ratio - 1 - ratio.log() + shift).mean() / 2)


def _optimized(
    source: nn.Module,
    layers: list[nn.Module],
    records: Tensor,
    order: Tensor,
    steps: int,
    progress: Progress | None,
) -> Tensor:
    records = records.requires_grad_()
    optimizer = torch.optim.Adam([records], lr=_RATE)
    with torch.enable_grad():
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = _RATE * (1 + math.cos(math.pi * step / steps)) / 2
            with _Divergences(layers) as divergences:
                output = _run(source, records)
            if not divergences.terms:
                raise ConversionError(
                    "no BatchNorm with measured statistics runs in the model's forward pass: pass "
                    "public records instead of synthesizing them"
                )
            loss = divergences.total() + _LABELS * _label_loss(output, order)
            loss = loss + _SMOOTH * _roughness(records)
            (records.grad,) = torch.autograd.grad(loss, [records])
            optimizer.step()
            if progress is not None:
                progress(step + 1, steps)
    return records.detach()


def _run(source: nn.Module, records: Tensor) -> Any:
    try:
        return source(records)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise InputError(
            f"the model does not take records of shape {tuple(records.shape[1:])} "
            f"({type(error).__name__}: {error}): pass the shape of one of its records"
        ) from error


def _label_loss(output: Any, order: Tensor) -> Tensor | float:
    """Cross entropy to labels that fall on the classes in equal parts, for logits (N, K)."""
    if not isinstance(output, Tensor) or output.dim() != 2 or output.shape[1] < 2:
        return 0.0
    return F.cross_entropy(output, order % output.shape[1])


def _roughness(records: Tensor) -> Tensor | float:
    if records.dim() < 4:
        return 0.0
    axes = range(2, records.dim())
    return sum((records.diff(dim=axis).square().mean() for axis in axes), start=0.0)


def has_statistics(layer: Any) -> bool:
    """Whether a layer's running statistics are of data, not their initial 0 and 1."""
    mean, var = layer.running_mean, layer.running_var
    return mean is not None and bool((mean != 0).any() or (var != 1).any())


def _place(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    tensors = [*model.parameters(), *model.buffers()]
    first = next(tensor for tensor in tensors if tensor.is_floating_point())
    return first.device, first.dtype


def _first_layer(model: nn.Module) -> Any:
    modules = (m for m in model.modules() if next(m.parameters(recurse=False), None) is not None)
    return next(modules, None)


def _checked_shape(model: nn.Module, shape: Sequence[int] | None) -> tuple[int, ...]:
    if shape is None:
        shape = record_shape(model)
    if shape is None:
        channels = getattr(_first_layer(model), "in_channels", "C")
        raise InputError(
            "the model does not tell the shape of its records: pass the shape of one record, "
            f"without the batch dimension, such as ({channels}, H, W)"
        )
    sizes = tuple(shape)
    if not sizes or not all(type(size) is int and size > 0 for size in sizes):
        raise InputError(
            f"the shape of one record is {sizes}: it must be positive integers, such as "
            "(C, H, W) for maps or (F,) for flat records"
        )
    return sizes


def _require_at_least(what: str, value: object, least: int) -> None:
    if type(value) is not int or value < least:
        raise InputError(f"{what} is {value!r}: it must be an integer of at least {least}")
