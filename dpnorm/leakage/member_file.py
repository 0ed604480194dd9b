"""One trained member in a file: arrays and facts, npz without objects."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpnorm.arrays import load_arrays, save_arrays
from dpnorm.errors import InputError
from dpnorm.leakage.course import MemberCourse
from dpnorm.leakage.members import Member

NEEDED = ("keep", "logits", "facts")
WHAT = "a member of a pool"
_FACTS = ("accuracy", "statement", "seconds", "history")


def save_member(path: Path, member: Member, about: Mapping[str, Any] | None = None) -> None:
    """Writes a member; a reader sees the old file or the new one.

    Args:
        path: of the file.
        member: that is written.
        about: plain data that stand beside its facts.

    Raises:
        StorageError: the file cannot be written.
    """
    save_arrays(path, member_arrays(member, about))


def load_member(path: Path) -> Member:
    """Reads what `save_member` wrote. Never unpickles.

    Raises:
        InputError: there is no such file, or it is damaged or something else.
    """
    return member_of(load_arrays(path, NEEDED, WHAT), str(path))


def member_arrays(
    member: Member, about: Mapping[str, Any] | None = None
) -> dict[str, NDArray[Any]]:
    """A member as named arrays, one of them the bytes of a JSON object."""
    facts = {name: getattr(member, name) for name in _FACTS} | dict(about or {})
    arrays = {
        "keep": member.keep,
        "logits": member.logits,
        "facts": np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8),
    }
    if member.test_logits is not None:
        arrays["test_logits"] = member.test_logits
    if member.course is not None:
        arrays |= {
            "epochs": member.course.epochs,
            "correct": member.course.correct,
            "loss": member.course.loss,
        }
        if member.course.norms is not None:
            arrays["norms"] = member.course.norms
    return arrays


def member_of(arrays: Mapping[str, NDArray[Any]], name: str) -> Member:
    """The member that `member_arrays` gave.

    Raises:
        InputError: the arrays of the file `name` are none.
    """
    try:
        facts = json.loads(arrays["facts"].tobytes())
        course = None
        if "epochs" in arrays:
            course = MemberCourse(
                arrays["epochs"], arrays["correct"], arrays["loss"], arrays.get("norms")
            )
        return Member(
            keep=arrays["keep"],
            logits=arrays["logits"],
            accuracy=float(facts["accuracy"]),
            statement=facts["statement"],
            seconds=float(facts["seconds"]),
            history=tuple(facts["history"]),
            test_logits=arrays.get("test_logits"),
            course=course,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{name}: not a member of a pool: {error}") from error
