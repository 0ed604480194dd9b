"""The rules by operator name: how an operator's outputs depend on the records.

A rule takes a `Call` and returns the mask of its output, or a list of masks, one for each tensor it
returns in order (tensors inside returned lists counted one by one). A mask may be smaller than the
output as long as it broadcasts to it. An in-place or out= operator's mask is that of the written
tensor afterwards. Rules are sound when they say too much and unsound when they say too little.
"""

import functools
from collections.abc import Callable, Sequence

from dpnorm.plugins import import_modules
from dpnorm.provenance.call import Call
from dpnorm.provenance.masks import Mask

Rule = Callable[[Call], Mask | Sequence[Mask] | None]

_RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers a rule for operators, such as "aten::mm"; every overload, in-place and out= too.

    A name ending in an underscore is the in-place operator; naming the plain one covers it.
    """

    def decorate(function: Rule) -> Rule:
        for name in names:
            if name in _RULES:
                raise ValueError(f"{name} has a rule already")
            _RULES[name] = function
        return function

    return decorate


def find_rule(name: str) -> Rule | None:
    """The rule of an operator, or that of the plain operator for an in-place one."""
    _load()
    found = _RULES.get(name)
    if found is None and name.endswith("_") and not name.endswith("__"):
        found = _RULES.get(name[:-1])
    return found


def rules() -> dict[str, Rule]:
    """Every rule by operator name."""
    _load()
    return dict(_RULES)


@functools.cache
def _load() -> None:
    from dpnorm.provenance import rules as package

    import_modules(package.__name__, package.__path__)
