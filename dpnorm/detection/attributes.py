"""What a module keeps in Python: caches, counters, lists, tensors that are no buffers."""

from collections import deque
from typing import Any

import torch
from torch import Tensor, nn

_OWN = set(nn.Module().__dict__) - {"training", "_parameters", "_buffers", "_modules"}
_CONTAINERS = (list, dict, set, deque)


class SavedAttributes:
    """The attributes of every module of a model, to go back to.

    The attributes are the same objects again, lists, dicts, sets and deques with the items that
    they had, and tensors with their content. What other objects did to themselves stays.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = [
            (module, {key: _saved(value) for key, value in _attributes(module).items()})
            for module in model.modules()
        ]

    def restore(self) -> None:
        """Puts every attribute back."""
        for module, attributes in self._modules:
            for key in _attributes(module):
                if key not in attributes:
                    del module.__dict__[key]
            for key, (value, content) in attributes.items():
                module.__dict__[key] = value
                _refill(value, content)


def _attributes(module: nn.Module) -> dict[str, Any]:
    return {key: value for key, value in module.__dict__.items() if key not in _OWN}


def _saved(value: Any) -> tuple[Any, Any]:
    if isinstance(value, Tensor):
        return value, None if value.requires_grad else value.detach().clone()
    if type(value) in _CONTAINERS:
        return value, value.copy()
    return value, None


def _refill(value: Any, content: Any) -> None:
    if isinstance(value, Tensor) and content is not None:
        with torch.no_grad():
            value.copy_(content)
    elif isinstance(value, dict) and content is not None:
        if value.keys() != content.keys() or any(value[k] is not content[k] for k in content):
            value.clear()
            value.update(content)
    elif isinstance(value, list) and content is not None:
        value[:] = content
    elif isinstance(value, (set, deque)) and content is not None:
        value.clear()
        value.update(content) if isinstance(value, set) else value.extend(content)
