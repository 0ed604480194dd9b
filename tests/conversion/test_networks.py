"""Networks as people use them, converted: proven, and one real step under DP-SGD."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dpnorm
from dpnorm.models import build
from tests.memory import give_back

WITH_BATCH_NORM = """resnet18 resnet50 resnext50_32x4d wide_resnet50_2 densenet121 efficientnet_b0
efficientnet_v2_s googlenet inception_v3 mnasnet0_5 mobilenet_v2 mobilenet_v3_small
mobilenet_v3_large regnet_x_400mf regnet_y_400mf shufflenet_v2_x0_5 vgg11_bn maxvit_t""".split()
TIMM = """resnet10t eca_resnet33ts seresnext26t_32x4d skresnet18 resnest14d ghostnet_100
efficientnet_lite0 regnety_002 hrnet_w18_small convmixer_768_32 mobilevit_xxs levit_128s
coatnet_0_rw_224 halonet26t efficientformer_l1 efficientvit_b0 fastvit_t8 starnet_s1
mobilenetv4_conv_small repvgg_a0 dla34 hgnet_tiny""".split()
# pixels a side; others of torchvision take 64, of timm their own
SIDES = {"inception_v3": 299, "maxvit_t": 224, "convmixer_768_32": 64}
QUICK = ["resnet18"]
VARIANTS = ["group", "layer", "frozen"]


class MainOutput(nn.Module):
    """The logits alone, where a network returns auxiliary ones as well."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x):
        out = self.network(x)
        return out if isinstance(out, torch.Tensor) else out[0]


def takes_a_private_step(model: nn.Module, side: int, to: str) -> None:
    torch.manual_seed(0)
    converted = dpnorm.convert(model.train(), to=to).model
    data = TensorDataset(torch.randn(4, 3, side, side), torch.arange(4) % 3)
    before = [p.detach().clone() for p in converted.parameters()]
    engine = dpnorm.PrivacyEngine()
    private, optimizer, loader = engine.make_private(
        module=converted,
        optimizer=torch.optim.SGD(converted.parameters(), lr=0.1),
        data_loader=DataLoader(data, batch_size=4),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        criterion=nn.CrossEntropyLoss(),
    )
    for x, y in loader:
        nn.functional.cross_entropy(private(x), y).backward()
        optimizer.step()
    statement = engine.statement(1e-3)
    assert statement.is_sound
    assert statement.steps == 1
    assert all(not torch.equal(a, b) for a, b in zip(before, converted.parameters(), strict=True))


@pytest.fixture(autouse=True)
def _memory():
    yield
    give_back()


@pytest.mark.parametrize("to", VARIANTS)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in WITH_BATCH_NORM
    ],
)
def test_torchvision(name, to):
    torchvision = pytest.importorskip("torchvision")
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network = torchvision.models.get_model(name, weights=None, num_classes=3, **options)
    takes_a_private_step(MainOutput(network), SIDES.get(name, 64), to)


@pytest.mark.parametrize("to", ["scale", "evonorm"])
def test_rebuilt_blocks(to):
    takes_a_private_step(build("resnet8", in_channels=3, num_classes=3), 16, to)


@pytest.mark.slow
@pytest.mark.parametrize("to", VARIANTS)
@pytest.mark.parametrize("name", TIMM)
def test_timm(name, to):
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, pretrained=False, num_classes=3)
    takes_a_private_step(model, SIDES.get(name, model.default_cfg["input_size"][-1]), to)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swin_t", "swin_v2_t", "vit_b_32", "convnext_tiny"])
def test_transformers_take_a_private_step_as_they_are(name):
    torchvision = pytest.importorskip("torchvision")
    network = torchvision.models.get_model(name, weights=None, num_classes=3)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    takes_a_private_step(network, 224, "none")
