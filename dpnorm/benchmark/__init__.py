"""Suites, their cells, the engines that compute them, and the report."""

from dpnorm.benchmark.engines import Engine, open_engine
from dpnorm.benchmark.results import BenchmarkResult, Row, Timing
from dpnorm.benchmark.run import Run, run_suite
from dpnorm.benchmark.suite import Suite, load_suite, shipped_suites

__all__ = [
    "BenchmarkResult",
    "Engine",
    "Row",
    "Run",
    "Suite",
    "Timing",
    "load_suite",
    "open_engine",
    "run_suite",
    "shipped_suites",
]
