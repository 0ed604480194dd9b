"""The folder of a pool: what it is of, its records, and one file a trained member."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpnorm.arrays import load_arrays, save_arrays
from dpnorm.errors import DpnormError, InputError
from dpnorm.files import is_remnant, locked, make_folder, write_text
from dpnorm.leakage.course import Course
from dpnorm.leakage.member_file import load_member, save_member
from dpnorm.leakage.members import Member
from dpnorm.leakage.membership import grown_membership
from dpnorm.leakage.pool import Pool

if TYPE_CHECKING:
    from dpnorm.data import Dataset

FORMAT = "dpnorm-pool/1"
DESCRIPTION, RECORDS, MEMBERS = "pool.json", "records.npz", "members"

_DIGESTS = {"records": "the records", "model": "the layers or initial weights of the model"}


class PoolFolder:
    """A pool on disk: pool.json, records.npz, and members/00000.npz and so on.

    Files are written whole or not at all, and one process writes at a time, so that a reader sees
    the members that are finished. A member's file that is damaged is noticed by its checksum.

    Args:
        path: of the folder, which need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def exists(self) -> bool:
        """Whether there is a pool here, finished or not."""
        return (self.path / DESCRIPTION).is_file()

    def description(self) -> dict[str, Any]:
        """What the pool is of: "terms", "sizes" that it had, "seed" and number of "records".

        Raises:
            InputError: there is no pool here, or its pool.json is damaged.
        """
        file = self.path / DESCRIPTION
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            if found["format"] != FORMAT or not found["sizes"]:
                raise KeyError(found["format"])
            return dict(found)
        except FileNotFoundError:
            raise InputError(
                f"{str(self.path)!r} holds no pool: there is no {DESCRIPTION}"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{str(file)!r} is not what this dpnorm wrote ({error}): train the pool in another "
                "folder"
            ) from None

    def keep(self) -> NDArray[np.bool_]:
        """bool[M, N]: the membership that was drawn for the pool."""
        about = self.description()
        return grown_membership(about["records"], about["sizes"], about["seed"])

    def member(self, index: int, keep: NDArray[np.bool_]) -> Member | None:
        """A trained member; None where there is none yet or its file is damaged.

        Args:
            index: counted from 0.
            keep: bool[N], its row of the membership.

        Raises:
            InputError: it was trained on other records than its row says.
        """
        try:
            member = load_member(self._file(index))
        except InputError:
            return None
        if not np.array_equal(member.keep, keep):
            raise InputError(
                f"{str(self._file(index))!r} was trained on other records than the membership of "
                "this pool says: it belongs elsewhere; remove it, and train it again"
            )
        return member

    def members(self, models: int | None = None) -> list[Member]:
        """The first so many members, by default all that the pool is to have.

        Raises:
            InputError: some are not trained yet, or their files are damaged.
        """
        keep = self.keep()
        wanted = len(keep) if models is None else models
        if not 1 <= wanted <= len(keep):
            raise InputError(f"{wanted} models were asked for; the pool has {len(keep)}")
        found = [self.member(index, keep[index]) for index in range(wanted)]
        missing = [index for index, member in enumerate(found) if member is None]
        if missing:
            raise InputError(
                f"{str(self.path)!r}: {len(missing)} of {wanted} models are not trained or damaged "
                f"(the first is number {missing[0]}): train the pool again, which trains those"
            )
        return [member for member in found if member is not None]

    def pool(self, models: int | None = None) -> Pool:
        """The pool of the first so many models, by default of all.

        Raises:
            InputError: as `members`.
        """
        members = self.members(models)
        arrays = load_arrays(self.path / RECORDS, ("labels", "outlier"), "the records of a pool")
        return Pool.from_members(
            members, arrays["labels"], arrays["outlier"], arrays.get("test_labels")
        )

    def course(self, models: int | None = None) -> Course:
        """What was seen of the models along their training.

        Raises:
            InputError: as `members`, or the pool was not watched.
        """
        members = self.members(models)
        outlier = load_arrays(self.path / RECORDS, ("outlier",), "the records of a pool")["outlier"]
        privacy = self.description()["terms"]["privacy"]
        clip = None if privacy is None else float(privacy["clip"])
        keep = np.stack([member.keep for member in members])
        return Course.of([member.course for member in members], keep, outlier, clip)

    @contextlib.contextmanager
    def entered(
        self, terms: Mapping[str, Any], data: "Dataset", size: int, seed: int
    ) -> Iterator[list[int]]:
        """The folder is of this pool alone inside; yields the sizes that it had, up to `size`.

        Raises:
            InputError: it holds another pool, a larger one or something else, or another process
                trains in it; nothing in it is changed then.
            StorageError: it cannot be made or written.
        """
        grown_membership(len(data.train), [size], seed)  # a pool that cannot be leaves no folder
        self._make()
        with locked(self.path):
            if self.exists:
                sizes = self._grown(terms, size)
            else:
                self._require_empty()
                sizes = [size]
            new = not self.exists
            if new or sizes != self.description()["sizes"]:
                self._write(terms, data, sizes, seed)
            try:
                yield sizes
            except DpnormError:
                if new and not any((self.path / MEMBERS).iterdir()):
                    self._remove()  # another recipe may be tried here
                raise

    def save_member(self, index: int, member: Member) -> None:
        """Writes a trained member."""
        save_member(self._file(index), member)

    def _file(self, index: int) -> Path:
        return self.path / MEMBERS / f"{index:05d}.npz"

    def _grown(self, terms: Mapping[str, Any], size: int) -> list[int]:
        """The sizes of the pool that is here once it has `size` models."""
        about = self.description()
        for key, value in json.loads(json.dumps(terms)).items():
            before = about["terms"].get(key)
            if before != value:
                raise InputError(
                    f"{str(self.path)!r} holds another pool: {_difference(key, before, value)}; "
                    "pass what it began with, or take another folder"
                )
        sizes = [int(s) for s in about["sizes"]]
        if size < sizes[-1]:
            raise InputError(
                f"{str(self.path)!r} holds a pool of {sizes[-1]} models, {size} were asked for: "
                f"ask for {sizes[-1]} or more, or take another folder"
            )
        return sizes if size == sizes[-1] else [*sizes, size]

    def _require_empty(self) -> None:
        strange = [
            item.name
            for item in self.path.iterdir()
            if item.name not in (RECORDS, MEMBERS) and not is_remnant(item)
        ]
        if strange:
            raise InputError(
                f"{str(self.path)!r} holds something already that is no pool, such as "
                f"{min(strange)!r}: take another folder"
            )

    def _make(self) -> None:
        make_folder(self.path / MEMBERS)

    def _remove(self) -> None:
        """Takes away the description of a pool that has no member."""
        for name in (DESCRIPTION, RECORDS):
            (self.path / name).unlink(missing_ok=True)
        (self.path / MEMBERS).rmdir()

    def _write(
        self, terms: Mapping[str, Any], data: "Dataset", sizes: list[int], seed: int
    ) -> None:
        records = {
            "labels": data.train.y.cpu().numpy(),
            "outlier": data.train.outlier.cpu().numpy(),
        }
        if len(data.test):
            records["test_labels"] = data.test.y.cpu().numpy()
        save_arrays(self.path / RECORDS, records)
        about = {
            "format": FORMAT,
            "sizes": sizes,
            "seed": seed,
            "records": len(data.train),
            "terms": terms,
        }
        write_text(self.path / DESCRIPTION, json.dumps(about, indent=2) + "\n")


def _difference(key: str, before: Any, value: Any) -> str:
    """Where two values of a term differ."""
    if isinstance(before, dict) and isinstance(value, dict):
        for name in sorted({*before, *value}):
            if before.get(name) != value.get(name):
                return _difference(f"{key}.{name}", before.get(name), value.get(name))
    if key in _DIGESTS:
        return f"{_DIGESTS[key]} were others"
    return f"{key} was {before!r} and is {value!r} now"
