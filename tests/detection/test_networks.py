"""Networks as people use them: refuted where a BatchNorm is active, proven otherwise."""

import pytest
import torch

from dpnorm.detection import Verdict, check
from dpnorm.detection.families import is_batch_norm
from tests.memory import give_back

TORCHVISION = """alexnet convnext_tiny densenet121 efficientnet_b0 googlenet mnasnet0_5 mobilenet_v2
mobilenet_v3_small regnet_y_400mf resnet18 resnext50_32x4d shufflenet_v2_x0_5 squeezenet1_1 swin_t
swin_v2_t vgg11_bn vit_b_32""".split()
TIMM = """resnet10t eca_resnet33ts seresnext26t_32x4d skresnet18 resnest14d hrnet_w18_small
ghostnet_100 efficientnet_lite0 regnety_002 nf_regnet_b0 nf_resnet50 dm_nfnet_f0 resnetv2_50d_gn
resnetv2_50d_evos resnetv2_50d_frn convnext_atto convnextv2_atto convmixer_768_32 mixer_s32_224
gmixer_24_224 resmlp_12_224 gmlp_s16_224 vit_tiny_patch16_224 deit3_small_patch16_224
beit_base_patch16_224 cait_xxs24_224 xcit_nano_12_p16_224 swin_tiny_patch4_window7_224
maxvit_tiny_rw_224 coatnet_0_rw_224 pvt_v2_b0 pit_ti_224 levit_128s crossvit_tiny_240 coat_tiny
convit_tiny poolformer_s12 edgenext_xx_small mobilevit_xxs mvitv2_tiny volo_d1_224 tnt_s_patch16_224
halonet26t lambda_resnet26t focalnet_tiny_srf davit_tiny gcvit_xxtiny efficientformer_l1
efficientvit_b0 fastvit_t8 starnet_s1 tiny_vit_5m_224 sequencer2d_s hiera_tiny_224
gernet_s repvgg_a0 bat_resnext26ts botnet26t_256 visformer_tiny nest_tiny twins_svt_small
cs3darknet_s dla34 ese_vovnet19b_dw res2net50_26w_4s selecsls42 rexnet_100 mixnet_s xception41
repghostnet_050 repvit_m0_9 mobilenetv4_conv_small swiftformer_xs rdnet_tiny hgnet_tiny
nextvit_small mambaout_femto caformer_s18 convformer_s18 inception_next_atto vitamin_small_224
flexivit_small eva02_tiny_patch14_224 swinv2_tiny_window8_256 vit_relpos_small_patch16_224
vit_small_patch16_rope_224""".split()
QUICK = ["resnet18", "squeezenet1_1"]


def judged(model: torch.nn.Module, side: int) -> None:
    x = torch.randn(3, 3, side, side)
    coupled = any(is_batch_norm(module) for module in model.modules())
    report = check(model.train(), x)
    assert report.verdict == (Verdict.REFUTED if coupled else Verdict.PROVEN), report.render()
    if coupled:
        named = {f.path for f in report.findings if f.code == "DPN101"}
        assert named == {path for path, m in model.named_modules() if is_batch_norm(m)}
        report = check(model.eval(), x)
        assert report.verdict == Verdict.PROVEN, report.render("concise")


@pytest.fixture(autouse=True)
def _memory():
    yield
    give_back()


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in TORCHVISION],
)
def test_torchvision(name):
    torchvision = pytest.importorskip("torchvision")
    options = {"init_weights": False} if name == "googlenet" else {}
    judged(torchvision.models.get_model(name, weights=None, **options), 224)


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, pretrained=False, num_classes=10)
    judged(model, model.default_cfg["input_size"][-1])
