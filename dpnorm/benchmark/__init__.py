"""Suites, their cells, and the report."""

from dpnorm.benchmark.results import BenchmarkResult, Row, Timing
from dpnorm.benchmark.run import run_suite
from dpnorm.benchmark.suite import Suite, load_suite

__all__ = ["BenchmarkResult", "Row", "Suite", "Timing", "load_suite", "run_suite"]
