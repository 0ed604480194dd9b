"""What each part of dpnorm costs, as ratios with intervals, measured side by side in one run."""

from dpnorm.benchmark.speed.render import FORMATS, render, terminal
from dpnorm.benchmark.speed.result import Curve, SpeedResult, SpeedRow
from dpnorm.benchmark.speed.run import ALL, run_speed
from dpnorm.benchmark.speed.sizes import FULL, QUICK, SUBJECTS, Sizes, Subject

__all__ = [
    "run_speed",
    "SpeedResult",
    "SpeedRow",
    "Curve",
    "render",
    "terminal",
    "FORMATS",
    "ALL",
    "Sizes",
    "QUICK",
    "FULL",
    "Subject",
    "SUBJECTS",
]
