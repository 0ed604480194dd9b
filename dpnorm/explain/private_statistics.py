"""Topic `private-statistics`: a BatchNorm that is private, and how its releases are counted."""

import functools
import math
from typing import TYPE_CHECKING

from scipy import optimize, stats
from torch import Tensor, nn

from dpnorm.detection import Verdict, check
from dpnorm.explain.drawing import grouped_bars, record_movements
from dpnorm.explain.explanation import Claim, Measured, Picture, Setting
from dpnorm.explain.pair import CLIP, RECORDS, ROUNDING, Pair, clipped_sum, moved
from dpnorm.figures import Look, legend_below, look, looks, new_figure
from dpnorm.privacy.accounting import epsilon_of
from dpnorm.privacy.joint import joint_noise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRADIENT_NOISE = STATISTICS_NOISE = 1.5
RATE, STEPS, DELTA = 0.05, 400, 1e-5


def measure(subject: str = "batch", control: str = "private-batch") -> Measured:
    """Adds a record with either normalization, and counts a training in both ways.

    Args:
        subject: the variant that is said to break the bound.
        control: the variant that is said to keep it.
    """
    total = joint_noise(GRADIENT_NOISE, STATISTICS_NOISE)
    numbers: dict[str, float] = {"exact_one": exact_epsilon(total, RATE, DELTA)}
    for word, steps in (("one", 1), ("all", STEPS)):
        numbers[f"together_{word}"] = _spent((total, RATE, steps))
        numbers[f"separate_{word}"] = _spent(
            (GRADIENT_NOISE, RATE, steps), (STATISTICS_NOISE, RATE, steps)
        )
    settings: dict[str, Setting] = {
        "subject": subject, "control": control, "records": RECORDS, "steps": STEPS, "rate": RATE,
        "delta": DELTA, "gradient_noise": GRADIENT_NOISE,
    }  # fmt: skip
    verdicts: dict[str, Verdict] = {}
    shares: dict[str, tuple[Look, Tensor]] = {}
    for who, variant in (("subject", subject), ("control", control)):
        pair = Pair(variant)
        before, after = (pair.gradients(RECORDS + more) for more in (0, 1))
        numbers[f"shift_{who}"] = float((clipped_sum(after) - clipped_sum(before)).norm()) / CLIP
        shares[variant] = look(variant), moved(before, after[:RECORDS])
        criterion = nn.CrossEntropyLoss()
        verdicts[who] = check(pair.network, pair.x, targets=pair.y, criterion=criterion).verdict
        settings[f"verdict_{who}"] = str(verdicts[who].value)
    claims = (
        Claim(
            f"with {subject} normalization the sum moves by more than C, and check refutes it",
            numbers["shift_subject"] > 1 + ROUNDING and verdicts["subject"] is Verdict.REFUTED,
        ),
        Claim(
            f"with {control} normalization it moves by at most C, and check proves it",
            numbers["shift_control"] <= 1 + ROUNDING and verdicts["control"] is Verdict.PROVEN,
        ),
        Claim(
            "counted together, the epsilon of one step is an upper bound on the exact one",
            numbers["together_one"] >= numbers["exact_one"],
        ),
        Claim(
            "counted as separate steps, it is smaller than the exact one",
            numbers["separate_one"] < numbers["exact_one"],
        ),
        Claim(
            f"over {STEPS} steps the separate count is the smaller one, too",
            numbers["separate_all"] < numbers["together_all"],
        ),
    )
    pictures = (
        Picture(
            "gradients",
            f"How far the gradient of each of {RECORDS} records moves when another record is "
            f"added: {subject} against {control} normalization.",
            functools.partial(record_movements, shares),
        ),
        Picture(
            "epsilon",
            f"Epsilon of one step and of {STEPS} steps, the two releases of each batch counted "
            "together or as separate steps; for one step the exact epsilon stands beside "
            "both.",
            functools.partial(_drawn, numbers),
        ),
    )
    return Measured(numbers, settings, claims, pictures)


def exact_epsilon(noise: float, rate: float, delta: float) -> float:
    """The exact epsilon of one Poisson-sampled Gaussian step, of removing one record.

    With the record the result is (1 - q) N(0, 1) + q N(mu, 1), without it N(0, 1), mu = 1 / noise.
    Their likelihood ratio grows along the line and reaches e^epsilon at
    x = ln((e^epsilon - 1 + q) / q) / mu + mu / 2; delta(epsilon) is what the first has above x less
    e^epsilon times what the second has there (arXiv 1908.10530, section 2; 1805.06530, theorem 5).

    Args:
        noise: standard deviation of the noise over what one record moves.
        rate: q, the probability of a record to be in the batch.
        delta: the probability with which the guarantee may fail.
    """
    mu = 1 / noise

    def excess(epsilon: float) -> float:
        x = math.log((math.expm1(epsilon) + rate) / rate) / mu + mu / 2
        above = float(stats.norm.sf(x))
        with_it = (1 - rate) * above + rate * float(stats.norm.sf(x - mu))
        return with_it - math.exp(epsilon) * above - delta

    high = 1.0
    while excess(high) > 0:
        high *= 2
    return float(optimize.brentq(excess, 0.0, high, xtol=1e-10))


def _spent(*runs: tuple[float, float, int]) -> float:
    return epsilon_of(list(runs), delta=DELTA, accountant="prv")


def _drawn(n: dict[str, float]) -> "Figure":
    figure, axes = new_figure()
    values = {
        "exact": (n["exact_one"], None),
        "counted as separate steps": (n["separate_one"], n["separate_all"]),
        "counted together": (n["together_one"], n["together_all"]),
    }
    series = dict(zip(values, zip(looks([*values]), values.values(), strict=True), strict=True))
    grouped_bars(axes, ("one step", f"{STEPS} steps"), series)
    axes.set_ylabel(f"epsilon (delta = {DELTA:g})")
    axes.set_title("Two releases of one batch")
    legend_below(figure, axes)
    return figure
