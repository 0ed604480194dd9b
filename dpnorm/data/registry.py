"""The data sets by name. A new one is a new file in this package and no edit elsewhere."""

from collections.abc import Callable
from typing import TypeVar

from dpnorm.data.dataset import Dataset
from dpnorm.errors import InputError, unknown_name

Loader = Callable[[], Dataset]
ArgumentLoader = Callable[[str], Dataset]
_L = TypeVar("_L", bound=Callable[..., Dataset])

DATASETS: dict[str, Loader] = {}
SCHEMES: dict[str, tuple[str, ArgumentLoader]] = {}  # scheme -> (its argument's name, loader)


def dataset(name: str) -> Callable[[_L], _L]:
    """Registers a function without arguments as the loader of `name`."""

    def add(loader: _L) -> _L:
        DATASETS[name] = loader
        return loader

    return add


def scheme(prefix: str, argument: str) -> Callable[[_L], _L]:
    """Registers a function of one string as the loader of every name `prefix:ARGUMENT`."""

    def add(loader: _L) -> _L:
        SCHEMES[prefix] = (argument, loader)
        return loader

    return add


def names() -> list[str]:
    """Returns the names of the data sets that need nothing but their name.

    >>> names()
    ['digits', 'mnist5k']
    """
    return sorted(DATASETS)


def load(name: str) -> Dataset:
    """Loads a data set: a name in `names()`, or `npz:PATH` for a file of one's own.

    The same name gives the same records in the same order, always; no random state is touched.

    Raises:
        InputError: the name is unknown, or the file cannot be used (see `npz`).
        MissingExtraError: the data set lies in a package that is not installed.

    >>> data = load("digits")
    >>> len(data.train), len(data.test), len(data.public), data.shape, data.num_classes
    (1297, 400, 100, (1, 8, 8), 10)
    """
    if not isinstance(name, str):
        raise InputError(f"a data set is named by a string, but {name!r} was given")
    prefix, colon, argument = name.partition(":")
    if colon and prefix in SCHEMES:
        return SCHEMES[prefix][1](argument)
    if name not in DATASETS:
        patterns = [f"{key}:{argument}" for key, (argument, _) in sorted(SCHEMES.items())]
        raise unknown_name("data set", name, names() + patterns)
    return DATASETS[name]()
