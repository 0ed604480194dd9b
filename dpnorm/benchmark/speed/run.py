"""Measuring: every comparison of every network, then the curves."""

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import torch

from dpnorm.benchmark.plan_file import machine, versions
from dpnorm.benchmark.speed.comparisons import COMPARISONS, Comparison, Prepared
from dpnorm.benchmark.speed.growth import GROWTH
from dpnorm.benchmark.speed.measure import FEWEST, in_turns, peak_growth
from dpnorm.benchmark.speed.result import Curve, SpeedResult, SpeedRow
from dpnorm.benchmark.speed.sizes import FULL, QUICK, SUBJECTS, Sizes, Subject
from dpnorm.errors import DpnormError, InputError, unknown_name
from dpnorm.leakage.estimate import Estimate
from dpnorm.parallel import torch_threads

ALL = (*COMPARISONS, *GROWTH)

Say = Callable[[str], None]


def run_speed(
    *,
    networks: Sequence[str] | None = None,
    only: Sequence[str] | None = None,
    repeats: int | None = None,
    quick: bool = False,
    device: str | torch.device = "cpu",
    threads: int = 1,
    progress: Say | None = None,
    subjects: Mapping[str, Subject] = SUBJECTS,
    sizes: Sizes | None = None,
) -> SpeedResult:
    """Measures what the parts of dpnorm cost, each in turns with what it is compared with.

    Pools and their loop have threads of their own. What does not apply to a network is a
    row that says why. torch's global random state, and the number of threads, come back as they
    were.

    Args:
        networks: names of subjects; default all, or `lenet` where `quick`.
        only: names in `ALL`: comparisons and curves; default all.
        repeats: pairs of timings at most; fewer than 6 cannot reach intervals at 95%.
        quick: less effort: below three minutes on two slow cores.
        device: of the networks; pools are trained on the CPU.
        threads: of torch.
        progress: is told each result as a line of text.
        subjects: the networks by name.
        sizes: the effort; default `QUICK` or `FULL`.

    Raises:
        InputError: an unknown name, fewer than 3 repeats, or no thread.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InputError(f"threads is {threads!r}: at least 1 is needed")
    sizes = sizes or (QUICK if quick else FULL)
    if repeats is not None:
        if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < FEWEST:
            raise InputError(
                f"repeats is {repeats!r}: at least {FEWEST} are needed, and 6 for intervals at 95%"
            )
        sizes = replace(sizes, repeats=repeats)
    chosen = _known("network", networks or sizes.networks, subjects)
    wanted = _known("comparison", only or ALL, ALL)
    say: Say = progress or (lambda line: None)
    place = torch.device(device)
    started = time.perf_counter()
    rows: list[SpeedRow] = []
    devices = [place] if place.type == "cuda" else []
    with warnings.catch_warnings(), torch.random.fork_rng(devices), torch_threads(threads):
        warnings.simplefilter("ignore")  # of Opacus and torch, about what every step does
        for name in chosen:
            given = Prepared(subjects[name], sizes, place)
            for group in COMPARISONS:
                if group in wanted:
                    for comparison in COMPARISONS[group](given):
                        rows.append(_row(name, group, comparison, given))
                        say(_row_line(rows[-1]))
        curves = [_curve(name, sizes, place, say) for name in GROWTH if name in wanted]
    return SpeedResult(
        machine=machine() if place.type == "cpu" else _with_gpu(machine(), place),
        versions=versions(),
        device=str(place),
        threads=threads,
        quick=quick,
        seconds=time.perf_counter() - started,
        subjects={name: subjects[name].described() for name in chosen},
        rows=tuple(rows),
        curves=tuple(curves),
    )


def _with_gpu(said: str, device: torch.device) -> str:
    return f"{said}, {torch.cuda.get_device_name(device)}"


def _known(kind: str, given: Iterable[str], allowed: Iterable[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(given))
    known = tuple(allowed)
    for name in names:
        if name not in known:
            raise unknown_name(kind, name, known)
    return names


def _row(network: str, group: str, comparison: Comparison, given: Prepared) -> SpeedRow:
    row = SpeedRow(network, group, comparison.measured, comparison.against)
    sizes, device = given.sizes, given.device
    try:
        pair = comparison.prepare()
        runs = [pair.numerator, pair.denominator]
        times = in_turns(runs, repeats=sizes.repeats, budget=sizes.budget, device=device)
        peaks = [peak_growth(run, device) if comparison.memory else None for run in runs]
    except DpnormError as error:
        return replace(row, status="not applicable", reason=" ".join(str(error).split()))
    except Exception as error:  # one that breaks does not take hours of others with it
        return replace(row, status="failed", reason=_failure(error))
    return replace(
        row,
        numerator=times[0],
        denominator=times[1],
        numerator_bytes=peaks[0],
        denominator_bytes=peaks[1],
        note=pair.note,
    )


def _curve(name: str, sizes: Sizes, device: torch.device, say: Say) -> Curve:
    try:
        curve = GROWTH[name](sizes, device)
    except Exception as error:  # as above
        curve = Curve(name, "", (), "", reason=_failure(error))
    found = ", ".join(f"{what} {_brief(e)}" for what, e in curve.exponents().items())
    say(f"growth against {curve.name}: {curve.reason or f'exponents: {found}'}")
    return curve


def _failure(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _row_line(row: SpeedRow) -> str:
    what = f"{row.network}: {row.measured} / {row.against}: "
    if row.ratio is None:
        return f"{what}{row.status}: {row.reason}"
    return f"{what}{_brief(row.ratio)}, {len(row.numerator)} pairs"


def _brief(estimate: Estimate) -> str:
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"
