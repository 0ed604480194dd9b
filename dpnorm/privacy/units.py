"""What is differentiated as one, so that every trainable parameter has one gradient a record."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dpnorm.detection import sampled_modules, unit_of
from dpnorm.detection.attributes import SavedAttributes
from dpnorm.errors import DpnormError, RefusedError
from dpnorm.gradients import Rows, record_gradients, sampler_of


@dataclass(frozen=True)
class Unit:
    """A module that is differentiated as one.

    Attributes:
        path: of the module.
        module: whose trainable parameters it covers.
        rows: which row belongs to which record.
        functional: whether it runs again record by record, whatever its class.
    """

    path: str
    module: nn.Module
    rows: Rows
    functional: bool

    @property
    def reruns(self) -> bool:
        """Whether its gradients take another run of the module."""
        plain = isinstance(self.module, _BatchNorm) or sampler_of(self.module) is not None
        return self.functional or not plain

    def gradients(
        self, given: "Arguments", gradient: Tensor, records: int, output: int
    ) -> dict[nn.Parameter, Tensor]:
        """Each record's gradient of the trainable parameters: (records, *shape) tensors.

        Args:
            given: the arguments of the call.
            gradient: (rows, ...), of the loss with respect to one output tensor.
            records: how many.
            output: the place of that tensor among the outputs.

        Raises:
            RefusedError: the rows are not the records that they are said to be, or an argument was
                written in place since.
        """
        self.require_rows(gradient, records)
        args, kwargs = given.unchanged(self.path)
        now = SavedAttributes(self.module) if self.reruns else None
        try:
            return record_gradients(
                self.module,
                args,
                kwargs,
                gradient,
                records,
                self.rows,
                functional=self.functional or output > 0,
                output=output,
                buffers=given.buffers,
                reset=given.reset,
            )
        except DpnormError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())
            raise RefusedError(
                f"refused: {self.path or 'the model'} cannot be run again on one record, which its "
                f"gradient takes (DPN502): {type(error).__name__}: {reason}"
            ) from error
        finally:
            if now is not None:
                now.restore()

    def require_rows(self, gradient: Tensor, records: int) -> None:
        """Raises a RefusedError where records have other rows than when the model was judged."""
        if gradient.shape[0] != records and not self.rows.folded:
            raise RefusedError(
                f"refused: {self.path or 'the model'} gave {len(gradient)} rows for {records} "
                "records, where each record had one row when the model was judged (DPN503)"
            )


@dataclass(frozen=True)
class Arguments:
    """What a module was given, in which version, and the module's state at that time."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    versions: tuple[int, ...]
    buffers: dict[str, Tensor]
    attributes: SavedAttributes | None

    @classmethod
    def kept(cls, unit: Unit, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Self:
        """Keeps arguments without their graph; as copies where the module may write them.

        For a module that will run again its buffers and attributes are kept as well.
        """
        clone = unit.functional

        def keep(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return value.detach().clone() if clone else value.detach()

        args, kwargs = torch.utils._pytree.tree_map(keep, (args, kwargs))
        return cls(
            args,
            kwargs,
            tuple(t._version for t in tensors_of((args, kwargs))),
            {n: b.detach().clone() for n, b in unit.module.named_buffers() if unit.reruns},
            SavedAttributes(unit.module) if unit.reruns else None,
        )

    def reset(self) -> None:
        """Puts back the attributes that the module had when it was called."""
        if self.attributes is not None:
            self.attributes.restore()

    def unchanged(self, path: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, if nothing has written them since.

        Raises:
            RefusedError: something has.
        """
        if self.versions != tuple(t._version for t in tensors_of((self.args, self.kwargs))):
            raise RefusedError(
                f"refused: what {path or 'the model'} was given was written in place afterwards "
                "(DPN501), so that its gradient of a record is lost: replace the in-place operation"
            )
        return self.args, self.kwargs


def units(model: nn.Module, plan: Mapping[str, Rows]) -> list[Unit]:
    """What is to be differentiated, given which rows belong to which record.

    A sampled module whose rows cannot be told apart by record is covered by the innermost module
    around it whose rows can.

    Raises:
        RefusedError: there is no such module.
    """
    chosen: dict[str, Unit] = {}
    for path, _ in sampled_modules(model):
        unit = unit_of(path, plan)
        if unit is None:
            raise RefusedError(
                f"refused: {path or 'the model'} has no gradient of one record (DPN502): its rows "
                "hold values of several records, and so do those of every module around it"
            )
        functional = unit != path or (unit in chosen and chosen[unit].functional)
        chosen[unit] = Unit(unit, model.get_submodule(unit), plan[unit], functional)
    whole = [path for path, unit in chosen.items() if unit.functional]
    return [
        unit
        for path, unit in chosen.items()
        if not any(path != outer and _is_inside(path, outer) for outer in whole)
    ]


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors in nested arguments or outputs that have a dimension."""
    leaves = torch.utils._pytree.tree_leaves(value)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim()]


def _is_inside(path: str, outer: str) -> bool:
    return not outer or path.startswith(f"{outer}.")
