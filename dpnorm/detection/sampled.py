"""The modules at which something is taken from each record: gradients, or statistics."""

from collections.abc import Iterator

from torch import nn

from dpnorm.norms import released_statistics


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


def observed_modules(model: nn.Module) -> dict[int, nn.Module]:
    """The modules whose rows must belong to one record each, by identity.

    The sampled ones, and those whose statistics are released with the gradients.
    """
    found = [module for _, module in sampled_modules(model)]
    return {id(module): module for module in [*found, *released_statistics(model).values()]}
