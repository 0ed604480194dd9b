"""What is measured, and how large: networks with their records, and how much effort is made."""

from collections.abc import Mapping
from dataclasses import dataclass

CLASSES = 10


@dataclass(frozen=True)
class Subject:
    """A network and what it is run on.

    Attributes:
        model: a name that `dpnorm.models.build` takes.
        shape: of one record, (C, H, W).
        batch: records in a training step.
        pool_records: training records of a pool, of which each model sees half.
        pool_batch: records in a step of a pool's training.
    """

    model: str
    shape: tuple[int, int, int]
    batch: int
    pool_records: int
    pool_batch: int

    def described(self) -> str:
        """The network and its records in words."""
        return f"{self.model}, {'x'.join(map(str, self.shape))}, batch {self.batch}"


SUBJECTS: Mapping[str, Subject] = {
    subject.model: subject
    for subject in (
        Subject("lenet", (1, 28, 28), 64, pool_records=1024, pool_batch=64),
        Subject("vgg-small", (3, 32, 32), 64, pool_records=128, pool_batch=32),
        Subject("resnet8", (1, 28, 28), 64, pool_records=256, pool_batch=32),
        Subject("resnet20", (1, 28, 28), 64, pool_records=256, pool_batch=32),
        Subject("wrn16-4", (1, 28, 28), 16, pool_records=64, pool_batch=16),
        Subject("tv:resnet18", (3, 64, 64), 16, pool_records=64, pool_batch=16),
    )
}


@dataclass(frozen=True)
class Sizes:
    """How much effort is made.

    Attributes:
        networks: that are measured if none are named.
        repeats: pairs of timings of one comparison, or rounds of a curve.
        budget: seconds of one comparison, or of one size of a curve, at which fewer are taken,
            down to 6, and to 3 at three times the budget.
        pool_models: models of the pool that is compared with a loop.
        pool_epochs: of their training.
        batch_sizes: of the curve against the batch size.
        widths: factors of the curve against the width.
        width_batch: records in a step of that curve.
        models: numbers of models of the curve of pools.
        side: height and width of the curves' images.
    """

    networks: tuple[str, ...] = tuple(SUBJECTS)
    repeats: int = 21
    budget: float = 60.0
    pool_models: int = 8
    pool_epochs: int = 3
    batch_sizes: tuple[int, ...] = (16, 32, 64, 128, 256)
    widths: tuple[int, ...] = (1, 2, 3, 4)
    width_batch: int = 32
    models: tuple[int, ...] = (2, 4, 8)
    side: int = 28


FULL = Sizes()
QUICK = Sizes(
    networks=("lenet",),
    repeats=9,
    budget=12.0,
    pool_models=4,
    pool_epochs=1,
    batch_sizes=(16, 64, 256),
    widths=(1, 2, 4),
    width_batch=16,
)
