"""What runs in the place of a module's own forward pass in mode "lean"."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any, Protocol

from torch import Tensor, nn

from dpnorm.gradients.factors import Samples
from dpnorm.gradients.lean import LeanLayer, LeanPool, lean_call
from dpnorm.privacy import lean_evonorm, lean_norms, lean_standardized
from dpnorm.privacy.units import Arguments, Unit

_OWN_LAYERS = (lean_evonorm, lean_norms, lean_standardized)  # imported for what they register


class Owner(Protocol):
    """Who gathers the gradients of the records of a model, pass by pass."""

    def listens(self) -> bool:
        """Whether they are wanted now."""

    def ran(self, unit: Unit) -> Any:
        """A unit has run in the present forward pass, which is returned."""

    def heard(self, unit: Unit, given: Arguments, output: Any) -> None:
        """A unit ran as it is: the gradient of its output is to be heard."""

    def begin(self, unit: Unit, own: Any, slope: Tensor) -> float | None:
        """See `dpnorm.gradients.lean.Sink`; `own` is the forward pass."""

    def records(self, own: Any) -> int:
        """Of how many records a forward pass was."""

    def take(self, parameter: nn.Parameter, samples: Samples) -> None:
        """The records' gradients of one parameter; of several calls they add up."""


@dataclass(frozen=True)
class _Call:
    """The sink of one call of a unit."""

    owner: Owner
    unit: Unit
    layer: LeanLayer
    own: Any

    def begin(self, slope: Tensor) -> float | None:
        return self.owner.begin(self.unit, self.own, slope)

    def group(self, rows: Tensor) -> Tensor:
        return self.unit.rows.grouped(rows, self.owner.records(self.own))

    def take(self, samples: Sequence[Samples | None]) -> None:
        for parameter, found in zip(self.layer.parameters, samples, strict=True):
            if parameter is not None and found is not None:
                self.owner.take(parameter, found)


class _OwnForward(ABC):
    """Runs in the place of a module's forward pass, until it is removed.

    It is an attribute of the one module; a deep copy of the module runs as the module did before.
    """

    def __init__(self, module: nn.Module, owner: Owner) -> None:
        self._module, self._owner = module, owner
        module.forward = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._owner.listens():
            return self._plain(*args, **kwargs)
        return self._run(*args, **kwargs)

    @abstractmethod
    def _run(self, *args: Any, **kwargs: Any) -> Any:
        """The forward pass where the gradients of the records are wanted."""

    def _plain(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own."""
        return type(self._module).forward(self._module, *args, **kwargs)

    def remove(self) -> None:
        """The module runs as it did before."""
        if vars(self._module).get("forward") is self:
            del self._module.forward

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Any]:
        module = memo.get(id(self._module), self._module)
        return MethodType(type(module).forward, module)


class LeanForward(_OwnForward):
    """The forward pass of a unit: lean where its layer serves the input, else as it is and heard.

    Args:
        unit: of the model.
        layer: of the unit's module.
        owner: gets the gradients of the records.
    """

    def __init__(self, unit: Unit, layer: LeanLayer, owner: Owner) -> None:
        super().__init__(unit.module, owner)
        self._unit, self._layer = unit, layer

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        unit, owner = self._unit, self._owner
        if kwargs or not self._layer.serves(*args):
            given = Arguments.kept(unit, args, kwargs)
            output = self._plain(*args, **kwargs)
            owner.heard(unit, given, output)
            return output
        return lean_call(self._layer, args, _Call(owner, unit, self._layer, owner.ran(unit)))


class PoolForward(_OwnForward):
    """The forward pass of a pooling: by a faster way where that serves the input, else as it is.

    Args:
        pool: of the module.
        owner: of the model's other layers; elsewhere than in its steps the module runs as it is.
    """

    def __init__(self, pool: LeanPool, owner: Owner) -> None:
        super().__init__(pool.module, owner)
        self._pool = pool

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs or not self._pool.serves(*args):
            return self._plain(*args, **kwargs)
        return self._pool(*args)
