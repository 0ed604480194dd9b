"""The topics, and how an answer is put together from the parts of one."""

import importlib
import platform
from importlib.metadata import version
from importlib.resources import files

import torch

from dpnorm.errors import unknown_name
from dpnorm.explain.explanation import Explanation, Measured, shown
from dpnorm.parallel import torch_threads

# In the order in which they are best read; each is a module and a text of that name.
_TOPICS = (
    "coupling",
    "before-noise",
    "running-stats",
    "dataset-normalization",
    "memorization",
    "private-statistics",
    "silent-acceptance",
    "groups",
)


def topics() -> dict[str, str]:
    """The question of each topic, by name, in the order in which they are best read."""
    return {name: _text(name)[0] for name in _TOPICS}


def answer(topic: str) -> Explanation:
    """Runs the experiment of a topic, in less than a minute on the CPU of a laptop.

    Its random numbers are seeded, and torch's own stay as they were.

    Args:
        topic: a name in `topics()`.

    Raises:
        InputError: there is no such topic.
    """
    if topic not in _TOPICS:
        raise unknown_name("topic", topic, _TOPICS)
    module = importlib.import_module(f"dpnorm.explain.{topic.replace('-', '_')}")
    with torch.random.fork_rng(), torch_threads():  # more threads make small models slower
        return explained(topic, module.measure())


def explained(topic: str, measured: Measured) -> Explanation:
    """The answer of a topic with the numbers of an experiment in its texts."""
    words = {name: str(value) for name, value in measured.settings.items()}
    words |= {name: shown(value) for name, value in measured.numbers.items()}
    question, argument, parts = _text(topic)
    return Explanation(
        topic=topic,
        question=question,
        argument=argument.format_map(words),
        parts={heading: text.format_map(words) for heading, text in parts.items()},
        measured=measured,
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in ("dpnorm", "torch", "opacus", "numpy")},
        },
    )


def _text(topic: str) -> tuple[str, str, dict[str, str]]:
    """Question, argument, and the parts by heading, with the names of numbers in braces."""
    file = files("dpnorm.explain") / "texts" / f"{topic}.md"
    argument, *rest = file.read_text(encoding="utf-8").split("\n## ")
    question, _, argument = argument.removeprefix("# ").partition("\n")
    parts = {}
    for part in rest:
        heading, _, text = part.partition("\n")
        parts[heading] = text.strip()
    return question, argument.strip(), parts
