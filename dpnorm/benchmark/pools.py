"""The pools of a benchmark, out of its run folder."""

from pathlib import Path

from dpnorm.benchmark.cells import MeasureCell, cell_file, read_arrays
from dpnorm.benchmark.plan_file import load_plan
from dpnorm.benchmark.storage import Storage, open_storage
from dpnorm.errors import InputError
from dpnorm.leakage import Pool
from dpnorm.leakage.member_file import NEEDED, WHAT, member_of


def run_pools(folder: str | Path) -> list[tuple[str, Pool]]:
    """The pool of each arm that was trained, named "DATASET MODEL VARIANT epsilon E" or "plain".

    Nothing is unpickled and nothing is trained.

    Args:
        folder: RUNS/NAME of `dpnorm bench run`.

    Raises:
        InputError: it is no such folder, the run is not finished, a file is damaged, or the data
            set is not the one that was trained on.
    """
    folder = Path(folder)
    storage = open_storage(folder.parent)
    planned = load_plan(storage, folder.name)
    return [
        (arm.measure.arm, _pool(arm.measure, storage))
        for arm in planned.arms
        if arm.measure is not None
    ]


def _pool(measure: MeasureCell, storage: Storage) -> Pool:
    train = measure.data().train
    members = []
    for name in measure.members:  # as the code called them that trained them
        arrays = read_arrays(storage, cell_file(name), NEEDED, WHAT)
        if arrays is None:
            raise InputError(
                f"{storage.url!r} lacks trained members of {measure.arm!r}: run its suite again, "
                "which trains those that are missing"
            )
        members.append(member_of(arrays, name))
    return Pool.from_members(members, labels=train.y.numpy(), outlier=train.outlier.numpy())
