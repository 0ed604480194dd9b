"""Planted pools that the tests of the attacks share, and the attacks in all their modes."""

import numpy as np

from dpnorm.leakage import Pool, draw_membership

MODES = [
    ("loss", {}),
    ("calibrated", {"shadows": "all"}),
    ("calibrated", {"shadows": "out"}),
    ("lira", {"mode": "online", "variance": "fixed"}),
    ("lira", {"mode": "online", "variance": "per-example"}),
    ("lira", {"mode": "offline", "variance": "fixed"}),
    ("lira", {"mode": "offline", "variance": "per-example"}),
    ("rmia", {"mode": "online"}),
    ("rmia", {"mode": "online", "gamma": 2.0}),
    ("rmia", {"mode": "offline"}),
    ("rmia", {"mode": "offline", "a": 0.3}),
    ("bavaria", {}),
]
WITH_SHADOWS = [case for case in MODES if case[0] != "loss"]


def gaussian_pool(
    models: int = 12,
    records: int = 40,
    views: int = 1,
    *,
    shift: float = 0.0,
    noise: float = 1.0,
    level: float = 0.0,
    seed: int = 0,
    keep: np.ndarray | None = None,
) -> Pool:
    """Two-class logits whose log-odds are N(level + record + shift * member, noise^2)."""
    generator = np.random.default_rng([41, seed])
    keep = draw_membership(records, models, seed) if keep is None else keep
    labels = generator.integers(2, size=records)
    odds = generator.normal(size=(models, records, views)) * noise + level
    odds += 2 * generator.normal(size=records)[:, None] + shift * keep[..., None]
    logits = np.zeros((models, records, views, 2), dtype=np.float32)
    np.put_along_axis(logits, labels[None, :, None, None], odds[..., None], axis=-1)
    return Pool(keep, logits, labels, np.zeros(records, dtype=bool), np.zeros(models))


def shadow_lists(values: np.ndarray, keep: np.ndarray, m: int, n: int) -> tuple[list, list]:
    """The values of the "in" and of the "out" shadows of target (m, n)."""
    others = [k for k in range(len(keep)) if k != m]
    inside = [values[k, n] for k in others if keep[k, n]]
    outside = [values[k, n] for k in others if not keep[k, n]]
    return inside, outside
