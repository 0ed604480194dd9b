"""Data sets as tensors: a private train part, a test part, a public part, and outliers on request.

Every module of this package is imported here, so that a file with a registered data set or kind
of outlier is found without being listed anywhere.
"""

from dpnorm.data.dataset import Dataset, Records
from dpnorm.data.outliers import OUTLIERS, add_outliers
from dpnorm.data.registry import DATASETS, load, names
from dpnorm.data.standardize import exact_moments, standardized
from dpnorm.plugins import import_modules

__all__ = [
    "Dataset",
    "Records",
    "load",
    "names",
    "add_outliers",
    "exact_moments",
    "standardized",
    "DATASETS",
    "OUTLIERS",
]

import_modules(__name__, __path__)
