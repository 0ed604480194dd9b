"""Arguments of a private training: what is no such number, goes not together, or is unknown."""

import inspect
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from dpnorm.errors import InputError, unknown_name

ADAPTIVE = (
    "target_unclipped_quantile",
    "clipbound_learning_rate",
    "max_clipbound",
    "min_clipbound",
    "unclipped_num_std",
)
OPTIONS = ("noise_generator", "wrap_model", "rand_on_empty", "batch_first", *ADAPTIVE)


def require_noise(noise_multiplier: float, clip: float | list[float], parameters: int) -> None:
    """Raises an InputError for a noise multiplier or clipping norms that are no such numbers."""
    if not is_number(noise_multiplier) or noise_multiplier < 0:
        raise InputError(
            f"noise_multiplier is {noise_multiplier!r}: it is to be a finite number of at least 0; "
            "0 trains without privacy"
        )
    clips = clip if isinstance(clip, (list, tuple)) else [clip]
    if not all(is_number(c) and c > 0 for c in clips) or not clips:
        raise InputError(f"max_grad_norm is {clip!r}: it is to be a finite number above 0")
    if isinstance(clip, (list, tuple)) and len(clip) != parameters:
        raise InputError(
            f"max_grad_norm lists {len(clip)} norms for {parameters} trainable parameters: give "
            "one for each, in the optimizer's order"
        )


def require_positive(name: str, value: float) -> None:
    """Raises an InputError for what is no finite number above 0."""
    if not is_number(value) or value <= 0:
        raise InputError(f"{name} is {value!r}: it is to be a finite number above 0")


def require_known(
    options: Mapping[str, Any], allowed: Sequence[str], named: Sequence[str] = ()
) -> None:
    """Raises an InputError for an argument that nothing takes, which would be lost in silence.

    Args:
        options: what was given besides the named arguments.
        allowed: what may be.
        named: the names of the others, for the message.
    """
    for name in options:
        if name not in allowed:
            raise unknown_name("argument", name, (*named, *allowed))


def is_number(value: Any) -> bool:
    """Whether a value is a finite real number, NumPy's among them; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def arguments_of(method: Any) -> list[str]:
    """The names of what a method takes, but for what it collects."""
    found = inspect.signature(method).parameters.values()
    return [p.name for p in found if p.kind is p.KEYWORD_ONLY]


def require_no_target(options: Any) -> None:
    """Raises an InputError for a budget where noise is asked for."""
    if given := [n for n in ("target_epsilon", "target_delta", "epochs") if n in options]:
        raise InputError(
            f"make_private takes a noise_multiplier and no {', '.join(given)}: call "
            "make_private_with_epsilon with these and without the noise_multiplier"
        )


def require_possible(options: Any, mode: str, clipping: str, loss_reduction: str) -> None:
    """Raises an InputError for arguments that do not go together, or that no account covers."""
    if loss_reduction not in ("mean", "sum"):
        raise unknown_name("loss_reduction", loss_reduction, ("mean", "sum"))
    if options.pop("rand_on_empty", False):
        raise InputError(
            "rand_on_empty puts a random record into an empty batch, which a private one would "
            "replace: a record then moves the step by twice the clipping norm. Leave it out: empty "
            "batches are batches of no rows"
        )
    if not options.get("batch_first", True):
        raise InputError("batch_first=False is not supported: put the batch first")
    if mode == "ghost" and clipping != "flat":
        raise InputError(f"ghost clipping is flat, not {clipping!r}: take grad_sample_mode='hooks'")
    given = [name for name in ADAPTIVE if name in options]
    if clipping != "adaptive" and given:
        raise InputError(f"{', '.join(given)}: these go with clipping='adaptive'")
    if clipping == "adaptive" and len(given) < len(ADAPTIVE):
        missing = [name for name in ADAPTIVE if name not in options]
        raise InputError(f"clipping='adaptive' needs {', '.join(missing)}")


def plain_norms(clip: Any) -> float | list[float]:
    """Clipping norms as Python numbers."""
    return [float(c) for c in clip] if isinstance(clip, (list, tuple)) else float(clip)
