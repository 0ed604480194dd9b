"""dpnorm's own models."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dpnorm.errors import InputError
from dpnorm.models import build, names

# counted from the architectures: one a convolution (resnets: stem, two a block, shortcuts)
BATCH_NORMS = {
    "lenet": 2,
    "mlp": 2,
    "resnet8": 1 + 6 + 2,
    "resnet20": 1 + 18 + 2,
    "vgg-small": 6,
    "wrn16-4": 12 + 1,
}
torch.set_num_threads(1)


def randomized(model: nn.Module) -> nn.Module:
    """Gives every BatchNorm statistics and weights that do something."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return model


def test_every_promised_name_is_there():
    assert names() == sorted(BATCH_NORMS)


@pytest.mark.parametrize("name", sorted(BATCH_NORMS))
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 28), (3, 32), (2, (8, 12))])
def test_it_trains_one_step_on_this_size(name, channels, size):
    torch.manual_seed(0)
    height, width = size if isinstance(size, tuple) else (size, size)
    model = build(name, in_channels=channels, num_classes=7, image_size=size)
    x, y = torch.rand(14, channels, height, width), torch.arange(14) % 7
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    before = loss.item()
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.01 * p.grad
    assert nn.functional.cross_entropy(model(x), y).item() < before


@pytest.mark.parametrize("name", sorted(BATCH_NORMS))
def test_batch_norm_is_what_it_has_and_nothing_works_in_place(name):
    model = build(name, image_size=8)
    assert sum(isinstance(m, _BatchNorm) for m in model.modules()) == BATCH_NORMS[name]
    assert not any(getattr(m, "inplace", False) for m in model.modules())


@pytest.mark.parametrize("name", sorted(BATCH_NORMS))
def test_a_record_is_independent_of_the_others_in_eval_mode_only(name):
    torch.manual_seed(0)
    model = randomized(build(name, image_size=8))
    x = torch.rand(6, 1, 8, 8)
    other = torch.cat([x[:1], torch.rand(5, 1, 8, 8)])
    model.eval()
    assert torch.allclose(model(x)[0], model(other)[0], atol=1e-5)
    assert torch.allclose(model(x)[:1], model(x[:1]), atol=1e-5)
    model.train()
    assert not torch.allclose(model(x)[0], model(other)[0], atol=1e-3)


@pytest.mark.parametrize("name", sorted(BATCH_NORMS))
def test_opacus_objects_to_batch_norm_alone(name):
    from opacus.validators import ModuleValidator

    model = build(name, image_size=8)
    errors = ModuleValidator.validate(model, strict=False)
    assert len(errors) == BATCH_NORMS[name]
    assert all("BatchNorm" in str(error) for error in errors)


@pytest.mark.parametrize("name", sorted(BATCH_NORMS))
def test_without_batch_norm_opacus_gives_the_gradient_of_each_record(name):
    from opacus import GradSampleModule

    torch.manual_seed(0)
    model = build(name, image_size=8, num_classes=3)
    for path, module in list(model.named_modules()):
        if isinstance(module, _BatchNorm):
            parent, _, last = path.rpartition(".")
            setattr(model.get_submodule(parent), last, nn.Identity())
    x, y = torch.rand(3, 1, 8, 8), torch.arange(3)
    plain = copy.deepcopy(model)
    sampled = GradSampleModule(model, loss_reduction="sum")
    nn.functional.cross_entropy(sampled(x), y, reduction="sum").backward()
    for record in range(3):
        plain.zero_grad()
        nn.functional.cross_entropy(
            plain(x[record : record + 1]), y[record : record + 1]
        ).backward()
        for one, many in zip(plain.parameters(), model.parameters(), strict=True):
            assert torch.allclose(one.grad, many.grad_sample[record], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", sorted(BATCH_NORMS))
def test_the_seed_of_torch_decides_the_weights(name):
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(build(name, image_size=8).parameters()).detach()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_depths_are_what_the_names_say():
    def layers(name: str) -> tuple[int, int]:
        modules = list(build(name).modules())
        convolutions = [m for m in modules if isinstance(m, nn.Conv2d)]
        linear = sum(isinstance(m, nn.Linear) for m in modules)
        large = sum(m.kernel_size == (3, 3) for m in convolutions)
        return large + linear, len(convolutions)

    assert layers("resnet8")[0] == 8  # arXiv:1512.03385 counts 3x3 convolutions and the last layer
    assert layers("resnet20")[0] == 20
    assert layers("wrn16-4")[1] == 16  # arXiv:1605.07146 counts convolutions, shortcuts included


def test_resnet20_has_the_size_of_its_paper_plus_the_projections():
    # 0.27 million parameters with shortcuts that have none (arXiv:1512.03385, table 6); option B
    # adds 16 * 32 + 2 * 32 and 32 * 64 + 2 * 64
    count = sum(p.numel() for p in build("resnet20", in_channels=3).parameters())
    assert count == 269_722 + 576 + 2_176


def test_mlp_without_an_image_size_takes_flat_records():
    assert build("mlp", in_channels=30, num_classes=4)(torch.rand(5, 30)).shape == (5, 4)


@pytest.mark.parametrize(("name", "size"), [("vgg-small", 7), ("lenet", 1), ("vgg-small", (8, 4))])
def test_images_that_are_too_small_are_refused(name, size):
    with pytest.raises(InputError, match="it needs at least"):
        build(name, image_size=size)


@pytest.mark.parametrize("value", [0, -1, 2.0, "3", True, None])
@pytest.mark.parametrize("what", ["in_channels", "num_classes"])
def test_bad_counts_are_refused(what, value):
    with pytest.raises(InputError, match=f"{what} must be an integer of at least 1"):
        build("lenet", **{what: value})


@pytest.mark.parametrize("size", [0, (8,), (8, 8, 8), (8, 0), "8", 8.0])
def test_bad_image_sizes_are_refused(size):
    with pytest.raises(InputError, match="image_size must be an integer"):
        build("lenet", image_size=size)


def test_unknown_names_say_what_is_allowed():
    with pytest.raises(InputError, match=r"'resnt8': .*tv:NAME.*did you mean 'resnet8'\?"):
        build("resnt8")
    with pytest.raises(InputError, match="named by a string"):
        build(8)  # type: ignore[arg-type]
