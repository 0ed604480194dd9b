"""What a run was planned to do, kept in its folder: run.json."""

import json
import os
import platform
from typing import Any

from dpnorm import __version__
from dpnorm.benchmark.arms import Arm
from dpnorm.benchmark.code import code_versions
from dpnorm.benchmark.storage import Storage
from dpnorm.benchmark.suite import Suite
from dpnorm.config import Config
from dpnorm.errors import InputError

FORMAT = "dpnorm-run/1"


class RunPlan(Config):
    """The suite of a run and its arms, with all their cells.

    Attributes:
        suite: as it was read, every default filled in.
        arms: in the order of the report.
        command: that makes the run again.
        code: the versions of the code that planned it, dpnorm's own by its fingerprint.
        versions: of what a result depends on.
        machine: processor, cores, system.
    """

    format: str = FORMAT
    suite: Suite
    arms: tuple[Arm, ...]
    command: str
    code: dict[str, str]
    versions: dict[str, str]
    machine: str

    @classmethod
    def of(cls, suite: Suite, arms: list[Arm], command: str) -> "RunPlan":
        """A run of this code on this machine."""
        return cls(
            suite=suite,
            arms=tuple(arms),
            command=command,
            code=code_versions(),
            versions=versions(),
            machine=machine(),
        )

    def same_code(self) -> bool:
        """Whether the cells that it names are those of the code that runs now."""
        return self.code == code_versions()


def plan_name(run: str) -> str:
    """The file of a run's plan in the storage of all runs."""
    return f"{run}/run.json"


def save_plan(storage: Storage, plan: RunPlan) -> None:
    """Writes the plan into the run's folder.

    Raises:
        StorageError: it cannot be written.
    """
    text = json.dumps(plan.model_dump(mode="json"), indent=1, allow_nan=False)
    storage.write(plan_name(plan.suite.name), text.encode())


def load_plan(storage: Storage, run: str) -> RunPlan:
    """Reads the plan of a run.

    Raises:
        InputError: there is none, or it is damaged.
    """
    content = storage.read(plan_name(run))
    if content is None:
        raise InputError(
            f"{run!r} in {storage.url!r} holds no run of dpnorm bench: there is no run.json; begin "
            "one with dpnorm bench run"
        )
    try:
        values: Any = json.loads(content)
        if values.get("format") != FORMAT:
            raise InputError(f"its format is {values.get('format')!r}, not {FORMAT!r}")
        return RunPlan(**values)
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{plan_name(run)} in {storage.url!r} is not what dpnorm bench run wrote ({error}): "
            "run the suite again"
        ) from error


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    import numpy
    import opacus
    import torch

    return {
        "dpnorm": __version__,
        "torch": torch.__version__,
        "opacus": opacus.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }


def machine() -> str:
    """Processor, cores and system, in a line."""
    from dpnorm.parallel import cores

    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
        name = names[0] if names else name
    return f"{name}, {cores()} cores, {platform.system()}"
