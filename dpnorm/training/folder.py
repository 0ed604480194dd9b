"""The output folder of one training: what it holds on the way, and in the end."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path

from dpnorm.errors import DpnormError, InputError
from dpnorm.files import is_remnant, locked, make_folder, write_text
from dpnorm.training.recipe import TrainingRecipe, read_recipe
from dpnorm.training.resume import journal_of

MODEL, CONFIG, MOMENTS = "model.safetensors", "config.json", "moments.json"
HISTORY, LEDGER, CURVES = "history.csv", "ledger.json", "curves.png"
STATEMENT, STATEMENT_PAGE = "statement.json", "statement.md"
CHECKPOINT = "checkpoint.safetensors"
PLOTS = "plots"  # of an attack on the run
RESULTS = (MODEL, CONFIG, HISTORY, STATEMENT, STATEMENT_PAGE, LEDGER, MOMENTS, CURVES)


class State(StrEnum):
    """How far the run of a folder is."""

    NEW = "new"
    UNFINISHED = "unfinished"
    FINISHED = "finished"


class RunFolder:
    """The folder of one run.

    On the way it holds the recipe, the moments if they are released with noise, and the checkpoint
    with its journal. The results are written beside them, and only then the checkpoint goes: a kill
    at any time leaves a run that is finished or that goes on.

    Args:
        path: of the folder, which need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoint = self.path / CHECKPOINT
        self.journal = journal_of(self.checkpoint)

    def state(self) -> State:
        """How far the run is.

        Raises:
            InputError: the path is no folder, or holds something else than a run.
        """
        if not self.path.exists():
            return State.NEW
        if not self.path.is_dir():
            raise InputError(f"{str(self.path)!r} is a file: take another name for the folder")
        try:
            there = {item.name for item in self.path.iterdir() if not is_remnant(item)}
        except OSError as error:
            raise InputError(
                f"{str(self.path)!r} cannot be read ({error.strerror or error}): take another "
                "folder with -o"
            ) from None
        if not there:
            return State.NEW
        strange = there - {*RESULTS, PLOTS, self.checkpoint.name, self.journal.name}
        if strange or CONFIG not in there:
            raise InputError(
                f"{str(self.path)!r} holds something already that is no run of dpnorm train, such "
                f"as {min(strange or there)!r}: take another folder with -o"
            )
        finished = MODEL in there and self.checkpoint.name not in there
        return State.FINISHED if finished else State.UNFINISHED

    def require_usable(self) -> State:
        """The state of a folder in which a run may begin or go on.

        Raises:
            InputError: it holds a finished run, or something else.
        """
        state = self.state()
        if state is State.FINISHED:
            raise InputError(
                f"{str(self.path)!r} holds a finished run: take another folder with -o, or move "
                "that one away"
            )
        return state

    @contextlib.contextmanager
    def entered(self, recipe: TrainingRecipe) -> Iterator[State]:
        """The folder is of this run alone inside, and holds its recipe, with nothing left open.

        A run that fails before its first checkpoint leaves everything as it was.

        Yields the state in which it was found: new, or unfinished with the same recipe.

        Raises:
            InputError: another process trains in it, or it holds something else than this run.
            StorageError: it cannot be made or written.
        """
        self.require_usable()
        made = self._make()
        with locked(self.path):
            state = self.require_usable()
            try:
                if state is State.NEW:
                    write_text(self.path / CONFIG, json.dumps(recipe.model_dump(), indent=2) + "\n")
                else:
                    self._require_same(recipe)
                yield state
            except DpnormError:
                if state is State.NEW and not self.checkpoint.exists():
                    # what was released for this run was seen by nobody, and goes
                    self._remove(self.path / MOMENTS, self.path / CONFIG)
                    for folder in made:
                        folder.rmdir()
                raise

    def finish(self) -> None:
        """The results are there: what was needed to go on is removed."""
        self._remove(self.checkpoint, self.journal)

    def results(self) -> list[str]:
        """The names of the files that a finished run has here."""
        return [name for name in RESULTS if (self.path / name).is_file()]

    def _make(self) -> list[Path]:
        """Makes the folder; which ones were made for it, the innermost first."""
        missing = [part for part in (self.path, *self.path.parents) if not part.exists()]
        make_folder(self.path, "-o")
        return missing

    def _require_same(self, recipe: TrainingRecipe) -> None:
        before = read_recipe(self.path / CONFIG).flat()
        for key, value in recipe.flat().items():
            if before[key] != value:
                raise InputError(
                    f"{str(self.path)!r} holds an unfinished run of another recipe: {key} was "
                    f"{before[key]!r} and is {value!r} now; pass what it began with, or take "
                    "another folder with -o"
                )

    def _remove(self, *paths: Path) -> None:
        """Removes files, and what writers that were killed have left."""
        remnants: Iterable[Path] = filter(is_remnant, list(self.path.iterdir()))
        for path in (*paths, *remnants):
            path.unlink(missing_ok=True)
