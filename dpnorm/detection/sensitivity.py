"""sensitivity: how far one record moves the clipped gradient sum, and what that is in epsilon."""

import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from scipy import optimize, stats
from torch import Tensor, nn

from dpnorm.detection.draws import seed_draws
from dpnorm.detection.inputs import Inputs, batch_size, call, check_device, map_tensors
from dpnorm.detection.preserve import preserved
from dpnorm.detection.probes import Criterion
from dpnorm.detection.sampled import sampled_modules
from dpnorm.errors import InputError, unknown_name
from dpnorm.gradients import per_record_gradients

SCALES = (1.0, 10.0, 100.0)
DRAWS = 4
ASCENT_STEPS = 20


@dataclass(frozen=True)
class Sensitivity:
    """The largest movement that was found for one added record.

    Attributes:
        ratio: ||S(D + record) - S(D)|| / clip, S the sum of clipped per-record gradients. At most 1
            where records are isolated; a value at or below 1 proves nothing.
        clip: the clipping norm.
        released_state: whether an unnoised buffer moved as well.
        seed: finds the same record again.
    """

    ratio: float
    clip: float
    released_state: bool
    seed: int

    def epsilon(self, noise_multiplier: float, delta: float) -> float:
        """The exact epsilon between this pair of datasets for ONE full-batch step (q = 1, T = 1).

        Two Gaussians at distance `ratio` in units of the clipping norm, with standard deviation
        `noise_multiplier`: delta(eps) = Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu) with mu =
        ratio / noise_multiplier (Balle and Wang, arXiv 1805.06530). Infinite when a buffer that is
        released without noise moves. Compare it only with what is claimed at q = 1, T = 1.

        Raises:
            InputError: noise_multiplier is not positive or delta not within (0, 1).
        """
        if not noise_multiplier > 0 or not 0 < delta < 1:
            raise InputError(
                f"noise_multiplier is {noise_multiplier} and delta {delta}: a positive number and "
                "one between 0 and 1 are needed"
            )
        if self.released_state:
            return math.inf
        return gaussian_epsilon(self.ratio / noise_multiplier, delta)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The epsilon of two unit Gaussians at distance mu (arXiv 1805.06530, theorem 8)."""

    def excess(epsilon: float) -> float:
        first = stats.norm.cdf(mu / 2 - epsilon / mu)
        log_second = epsilon + stats.norm.logcdf(-mu / 2 - epsilon / mu)
        return float(first - math.exp(min(log_second, 0.0)) - delta)

    if mu <= 0 or excess(0.0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2
    return float(optimize.brentq(excess, 0.0, high, xtol=1e-12))


def sensitivity(
    model: nn.Module,
    inputs: Inputs,
    targets: Any,
    criterion: Criterion,
    *,
    clip: float = 1.0,
    loss_reduction: Literal["mean", "sum"] = "mean",
    search: Literal["outlier", "ascent"] = "outlier",
    seed: int = 0,
) -> Sensitivity:
    """Measures how far one added record moves the clipped gradient sum.

    The per-record gradients are those that Opacus's samplers compute. Records to add are the given
    ones at several scales and noise, with the labels of the batch, each of which is tried once
    before one is tried again; "ascent" then climbs from the
    worst of them along the gradient of the movement's input by random search.

    Args:
        model: in the modes in which it would be trained; it comes back as it was.
        inputs: D, as `check` takes it, at least two records.
        targets: of the records.
        criterion: (output, targets) -> scalar loss.
        clip: the clipping norm.
        loss_reduction: "mean" or "sum", as the engine would be told.
        search: "outlier" or "ascent".
        seed: of the records that are tried.

    Raises:
        InputError: wrong arguments, or a model whose rows are not the records.
    """
    if not clip > 0:
        raise InputError(f"clip is {clip}: a positive number is needed")
    if search not in ("outlier", "ascent"):
        raise unknown_name("search", search, ("outlier", "ascent"))
    records = batch_size(inputs)
    check_device(model, inputs)
    modules = list(sampled_modules(model))
    generator = torch.Generator().manual_seed(seed)
    with preserved(model) as state:

        def clipped_sum(given: Inputs, wanted: Any, count: int) -> tuple[Tensor, list[Tensor]]:
            state.restore_buffers()
            seed_draws(seed)
            gradients = per_record_gradients(
                model,
                lambda: call(model, given),
                lambda output: criterion(output, wanted),
                modules,
                records=count,
                loss_reduction=loss_reduction,
            )
            buffers = [b.detach().clone() for b in model.buffers()]
            state.restore_buffers()
            flat = torch.cat([g.reshape(count, -1) for g in gradients.values()], 1).double()
            norms = flat.norm(dim=1).clamp_min(1e-300)
            return (flat * (clip / norms).clamp(max=1.0)[:, None]).sum(0), buffers

        base, base_buffers = clipped_sum(inputs, targets, records)

        def movement(candidate: tuple[Inputs, Any]) -> tuple[float, bool]:
            total, buffers = clipped_sum(*candidate, records + 1)
            moved = any(
                not torch.equal(a, b)
                for a, b in zip(buffers, base_buffers, strict=True)
                if a.is_floating_point()
            )
            return float((total - base).norm()) / clip, moved

        best, state_moved, start = 0.0, False, None
        for candidate in _outliers(inputs, targets, generator):
            ratio, moved = movement(candidate)
            state_moved |= moved
            if ratio > best:
                best, start = ratio, candidate
        for step in range(ASCENT_STEPS if search == "ascent" and start is not None else 0):
            assert start is not None
            candidate = _nearby(start, 0.5 if step % 2 else 2.0, generator)
            ratio, moved = movement(candidate)
            state_moved |= moved
            if ratio > best:
                best, start = ratio, candidate
    return Sensitivity(best, clip, state_moved, seed)


def _outliers(inputs: Inputs, targets: Any, generator: torch.Generator) -> list[tuple[Inputs, Any]]:
    """Datasets with one record more: copies of records and noise, at several scales."""
    records = batch_size(inputs)
    labels = itertools.cycle(_label_rows(targets, records, generator))
    candidates = []
    for scale in SCALES:
        for draw in range(DRAWS):
            source = int(torch.randint(records, (), generator=generator))

            def added(
                tensor: Tensor, draw: int = draw, source: int = source, scale: float = scale
            ) -> Tensor:
                row = tensor[source : source + 1]
                if tensor.is_floating_point():
                    noise = torch.randn(row.shape, generator=generator).to(row)
                    row = (row if draw % 2 else noise) * scale
                return torch.cat([tensor, row])

            def labelled(tensor: Tensor, label: int = next(labels)) -> Tensor:
                return torch.cat([tensor, tensor[label : label + 1]])

            candidates.append((map_tensors(added, inputs), map_tensors(labelled, targets)))
    return candidates


def _label_rows(targets: Any, records: int, generator: torch.Generator) -> list[int]:
    """Records in random order, those first that are the first of their label in that order.

    A loss may couple records through a rare label alone.
    """
    order = torch.randperm(records, generator=generator).tolist()
    leaves: list[Tensor] = []
    map_tensors(leaves.append, targets)
    rows = [leaf.reshape(records, -1) for leaf in leaves if leaf.dim() and len(leaf) == records]
    seen: set[tuple[Any, ...]] = set()
    first: list[int] = []
    others: list[int] = []
    for record in order:
        label = tuple(tuple(row[record].tolist()) for row in rows)
        (others if label in seen else first).append(record)
        seen.add(label)
    return first + others


def _nearby(
    candidate: tuple[Inputs, Any], scale: float, generator: torch.Generator
) -> tuple[Inputs, Any]:
    """The same dataset with its last record moved and scaled."""

    def moved(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        row = tensor[-1:]
        noise = torch.randn(row.shape, generator=generator).to(row)
        return torch.cat([tensor[:-1], row * scale + noise * row.abs().mean()])

    return map_tensors(moved, candidate[0]), candidate[1]
