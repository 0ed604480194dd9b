"""A run in a folder whose models were never trained."""

import math

import numpy as np

from dpnorm.benchmark.arms import Arm
from dpnorm.benchmark.cells import MeasureCell, MemberCell, load_data, write_arrays
from dpnorm.benchmark.plan_file import RunPlan, save_plan
from dpnorm.benchmark.storage import open_storage
from dpnorm.benchmark.suite import OutlierConfig
from dpnorm.leakage import Member, draw_membership
from dpnorm.leakage.member_file import member_arrays
from dpnorm.training import TrainConfig
from tests.benchmark.suites import tiny

MODELS = 3


def stored_run(runs):
    """RUNS/tiny of two arms and a refused one; the data, and the member of each cell."""
    storage, outliers = open_storage(runs), OutlierConfig(kind="noise", count=10)
    data = load_data("digits", outliers)
    keep = draw_membership(len(data.train), MODELS, 0)
    generator = np.random.default_rng(0)
    arms, members = [], {}
    for variant in ("batch", "group"):
        shared = {
            "dataset": "digits",
            "data_fingerprint": data.fingerprint(),
            "outliers": outliers,
            "model": "lenet",
            "variant": variant,
            "epsilon": math.inf,
            "training": TrainConfig(epochs=1),
            "privacy": None,
            "seed": 0,
        }
        cells = [MemberCell(**shared, members=MODELS, member=m) for m in range(MODELS)]
        for m, cell in enumerate(cells):
            logits = generator.normal(size=(len(data.train), 1, 10)).astype(np.float32)
            members[variant, m] = Member(keep[m], logits, 0.1 * m, None, 1.0, ())
            write_arrays(storage, cell, member_arrays(members[variant, m]))
        names = tuple(cell.name for cell in cells)
        measure = MeasureCell(**shared, members=names, attacks=("loss",), watched=False)
        arms.append(_arm(variant, math.inf, members=tuple(cells), measure=measure))
    arms.append(_arm("batch", 8.0))
    save_plan(storage, RunPlan.of(tiny(), arms, "dpnorm bench run tiny.toml"))
    return data, members


def _arm(variant, epsilon, **cells):
    return Arm(
        dataset="digits", model="lenet", variant=variant, epsilon=epsilon, seed=0,
        verdict="proven", summary="", witness=None, findings=(), **cells,
    )  # fmt: skip
