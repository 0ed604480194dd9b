"""Small suites and what stands by a run in tests."""

import json
import math
from pathlib import Path

from dpnorm.benchmark import Suite


def tiny(**changes) -> Suite:
    """Five trained arms of three members each, one refused, in seconds."""
    values = {
        "name": "tiny",
        "datasets": ("digits",),
        "models": ("lenet",),
        "variants": ("batch", "group", "frozen"),
        "epsilons": (math.inf, 4.0),
        "pool": {"size": 3, "outliers": 20},
        "training": {"epochs": 2, "batch_size": 64, "lr": 0.05},
        "private_training": {"epochs": 1, "batch_size": 128, "lr": 0.5, "momentum": 0.0},
        "privacy": {"delta": 1e-4},
    }
    return Suite(**(values | changes))


def one_arm(**changes) -> Suite:
    """One plain arm of three members."""
    return tiny(**({"variants": ("group",), "epsilons": (math.inf,)} | changes))


def written_suite(suite: Suite, folder: Path) -> Path:
    """The suite as FOLDER/NAME.toml."""
    values = suite.model_dump(mode="json", exclude_unset=True)
    lines = [
        f"{key} = {json.dumps(value)}"
        for key, value in values.items()
        if not isinstance(value, dict)
    ]
    for key, section in values.items():
        if isinstance(section, dict):
            lines += [f"[{key}]", *(f"{k} = {json.dumps(v)}" for k, v in section.items())]
    file = folder / f"{suite.name}.toml"
    file.write_text("\n".join(lines).replace('"inf"', "inf"))
    return file


class Told:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.said: list[str] = []
        self.before = -1

    def begin(self, total: int, finished: int) -> None:
        self.before = finished

    def finished(self, description: str, seconds: float) -> None:
        self.done.append(description)

    def say(self, text: str) -> None:
        self.said.append(text)

    def end(self) -> None: ...
