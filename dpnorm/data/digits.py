"""The 8x8 handwritten digits that ship with scikit-learn: the default, no download."""

import numpy as np

from dpnorm.data.dataset import Dataset
from dpnorm.data.registry import dataset
from dpnorm.data.split import split_dataset


@dataset("digits")
def load_digits() -> Dataset:
    """Loads 1,797 gray images [1, 8, 8] of ten digits: 1,297 train, 400 test, 100 public."""
    from sklearn import datasets

    images, labels = datasets.load_digits(return_X_y=True)
    return split_dataset(
        "digits",
        (images / 8.0 - 1.0).astype(np.float32).reshape(-1, 1, 8, 8),
        labels,
        num_classes=10,
        test=400,
        public=100,
        scaling="from [0, 16], the range of the format, to [-1, 1]",
        bounds=(-1.0, 1.0),
    )
