"""The modules at which Opacus samples per-record gradients."""

from collections.abc import Iterator

from torch import nn


def sampled_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Paths and modules, as Opacus's hooks visit them.

    A module that owns a trainable parameter is sampled; below one for which no sampler is
    registered Opacus does not look, since functorch differentiates it whole.
    """
    from opacus.grad_sample import GradSampleModule

    seen: set[int] = set()

    def visit(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        if id(module) in seen:
            return
        seen.add(id(module))
        if any(p.requires_grad for p in module.parameters(recurse=False)):
            yield path, module
            if type(module) not in GradSampleModule.GRAD_SAMPLERS:
                return
        for name, child in module.named_children():
            yield from visit(f"{path}.{name}" if path else name, child)

    yield from visit("", model)
