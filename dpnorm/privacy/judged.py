"""The model as it was when it was judged, which it has to be in every step."""

from torch import nn

from dpnorm.errors import RefusedError


class Judged:
    """What a verdict stands on: modules, their modes, parameters, and which of them are trained.

    Args:
        model: as it is now, judged.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._modes = [(path, m, m.training) for path, m in model.named_modules()]
        self._flags = [(name, p, p.requires_grad) for name, p in model.named_parameters()]
        self._parts = [_parts(m) for _, m, _ in self._modes]
        self.trainable = [p for _, p, trained in self._flags if trained]

    def require_unchanged(self) -> None:
        """Nothing, where the model is as it was.

        Raises:
            RefusedError: a module, its mode, a parameter, or what is trained, has changed.
        """
        for (_, module, _), parts in zip(self._modes, self._parts, strict=True):
            if _parts(module) != parts:
                self._require_names()
        for path, module, training in self._modes:
            if module.training != training:
                was, now = ("training", "evaluation") if training else ("evaluation", "training")
                raise RefusedError(
                    f"refused: {path or 'the model'} was in {was} mode when the model was judged, "
                    f"and is now in {now} mode, which may couple records (DPN401): put it back "
                    "after model.train(), or, for a BatchNorm, dpnorm.convert(model, to='frozen') "
                    "first"
                )
        for name, parameter, trained in self._flags:
            if parameter.requires_grad != trained:
                raise RefusedError(
                    f"refused: requires_grad of {name} has changed since the model was made "
                    "private: its gradient would not be clipped; call make_private again"
                )

    def _require_names(self) -> None:
        """Raises a RefusedError where another module or parameter goes by a name of the model."""
        judged = [(path, id(module)) for path, module, _ in self._modes]
        present = [(path, id(module)) for path, module in self._model.named_modules()]
        own = [(name, id(parameter)) for name, parameter in self._model.named_parameters()]
        other = {*judged, *[(name, id(p)) for name, p, _ in self._flags]} ^ {*present, *own}
        if other:
            path = min(path for path, _ in other)
            raise RefusedError(
                f"refused: {path or 'the model'} is not what was judged (DPN401): change the model "
                "first, and call make_private then, with a new engine"
            )


def _parts(module: nn.Module) -> list[tuple[str, int]]:
    """The names of what a module is made of, and which they are.

    While all modules of a tree are made of the same, so is the tree: there is no need to walk it.
    """
    own, below = module._parameters.items(), module._modules.items()
    return [(name, id(part)) for name, part in own] + [(name, id(part)) for name, part in below]
