"""Refinement of a converted network: per-layer moment matching, then distillation."""

from collections.abc import Callable, Sequence

from torch import nn

from dpnorm.conversion.calibration import calibrate
from dpnorm.conversion.distillation import distill
from dpnorm.detection.inputs import Inputs

Progress = Callable[[str, int, int], None]


def refine(
    original: nn.Module,
    converted: nn.Module,
    paths: Sequence[str],
    inputs: Inputs,
    *,
    match: bool,
    distill_steps: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Sets the converted layers by `inputs`, in place, and trains on the original's logits.

    Args:
        original: the model with its BatchNorm layers; it is not changed.
        converted: the model to refine.
        paths: the converted layers.
        inputs: at least two records, public or synthesized (`dpnorm.conversion.synthesis`).
        match: whether to match output moments, see `dpnorm.conversion.calibration`.
        distill_steps: of `dpnorm.conversion.distillation`; 0 for none.
        seed: of the distillation's draws.
        progress: called with (stage, done, total); the stages are "matching", "distillation".

    Raises:
        InputError, ConversionError: see `calibrate` and `distill`.
    """
    calibrate(original, converted, paths, inputs, match=match)
    if progress is not None:
        progress("matching", 1, 1)
    if distill_steps:
        distill(
            original,
            converted,
            inputs,
            steps=distill_steps,
            seed=seed,
            progress=stage(progress, "distillation"),
        )


def stage(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    """A callback of (done, total) that tells `progress` the stage as well."""
    if progress is None:
        return None
    return lambda done, total: progress(name, done, total)
