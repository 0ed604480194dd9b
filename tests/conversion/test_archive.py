import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dpnorm.conversion import Conversion, convert, fidelity, load
from dpnorm.errors import ConversionError, InputError
from tests.conversion.networks import largest_gap, maps, randomized

VARIANTS = ["group", "layer", "instance", "rms", "weight-standardized", "frozen", "folded", "none"]


@pytest.mark.parametrize("to", VARIANTS)
def test_a_loaded_conversion_gives_identical_outputs(to, tmp_path):
    conversion = convert(randomized(maps()), to=to, groups=4 if to == "group" else None)
    conversion.save(tmp_path / "model.safetensors")
    fresh = maps().eval()
    before = {k: v.clone() for k, v in fresh.state_dict().items()}
    loaded = Conversion.load(tmp_path / "model.safetensors", fresh)
    assert largest_gap(conversion.model, loaded.model, torch.randn(4, 1, 8, 8)) == 0
    assert loaded.hash == conversion.hash
    assert loaded.changes == conversion.changes
    assert all(torch.equal(before[k], v) for k, v in fresh.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtypes_survive_the_round_trip(dtype, tmp_path):
    conversion = convert(randomized(maps()).to(dtype))
    conversion.save(tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors", maps().eval()).model
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    assert largest_gap(conversion.model, loaded, torch.randn(2, 1, 8, 8, dtype=dtype)) == 0


def test_shared_layers_and_selected_paths_survive_the_round_trip(tmp_path):
    def build():
        norm = nn.BatchNorm2d(16)
        return nn.Sequential(nn.Conv2d(1, 16, 1), norm, norm, nn.BatchNorm2d(16)).eval()

    conversion = convert(randomized(build()), select=["1"])
    conversion.save(tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors", build()).model
    assert loaded[1] is loaded[2]
    assert isinstance(loaded[3], nn.BatchNorm2d)
    assert largest_gap(conversion.model, loaded, torch.randn(2, 1, 3, 3)) == 0


def test_a_torchvision_network_survives_the_round_trip(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    conversion = convert(randomized(torchvision.models.resnet18(num_classes=4)))
    conversion.save(tmp_path / "model.safetensors")
    fresh = torchvision.models.resnet18(num_classes=4).eval()
    loaded = load(tmp_path / "model.safetensors", fresh).model
    assert largest_gap(conversion.model, loaded, torch.randn(2, 3, 64, 64)) == 0


def test_files_that_do_not_fit_are_one_clear_error(tmp_path):
    path = tmp_path / "model.safetensors"
    convert(maps()).save(path)
    narrow = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8))
    longer = nn.Sequential(*maps(), nn.Linear(10, 2))
    wider = maps()
    wider[8] = nn.Linear(48, 12)
    for model, message in (
        (nn.Sequential(nn.Linear(2, 2)), "no BatchNorm layer '1'"),
        (narrow, "'1' would become GroupNorm|do not divide"),
        (longer, "the file lacks"),
        (wider, "other shapes: 8.bias"),
    ):
        with pytest.raises(InputError, match=message):
            load(path, model)
    with pytest.raises(InputError, match="no file"):
        load(tmp_path / "other.safetensors", maps())
    save_file({"a": torch.ones(1)}, str(tmp_path / "plain.safetensors"))
    with pytest.raises(InputError, match="no manifest"):
        load(tmp_path / "plain.safetensors", maps())
    (tmp_path / "torn.safetensors").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged"):
        load(tmp_path / "torn.safetensors", maps())


def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path):
    path = tmp_path / "model.safetensors"
    convert(maps()).save(path)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match="do not have the hash"):
        load(path, maps())


def test_the_hash_tells_weights_and_origin_apart():
    net = randomized(maps())
    first, same = convert(net), convert(net)
    assert first.hash == same.hash
    assert convert(net, statistics_origin="private").hash != first.hash
    with torch.no_grad():
        same.model[0].weight[0, 0, 0, 0] += 1
    assert same.hash != first.hash


@pytest.mark.parametrize("origin", ["private", "public", "unknown"])
def test_the_manifest_states_where_statistics_come_from(origin):
    manifest = convert(randomized(maps()), statistics_origin=origin).manifest
    layer = manifest.to_dict()["layers"][0]
    assert (layer["path"], layer["groups"], layer["statistics"]) == ("1", 2, origin)
    assert layer["before"].startswith("BatchNorm2d(32")
    assert layer["after"].startswith("GroupNorm(2, 32")
    assert bool(manifest.warning) == (origin == "private")
    assert convert(maps(), statistics_origin=origin).manifest.warning is None


def test_an_unknown_origin_is_refused():
    with pytest.raises(InputError, match="did you mean 'private'"):
        convert(maps(), statistics_origin="privat")


def test_fidelity_agrees_with_its_definition():
    net, x = randomized(maps()), torch.randn(64, 1, 8, 8)
    conversion = convert(net, to="layer")
    found = conversion.fidelity(x)
    p, q = (m(x).double().softmax(1).detach() for m in (net, conversion.model))
    kl = nn.functional.kl_div(q.log(), p, reduction="batchmean")
    assert found.agreement == pytest.approx(float((p.argmax(1) == q.argmax(1)).double().mean()))
    assert found.kl == pytest.approx(float(kl), rel=1e-5)
    assert found.largest_difference == pytest.approx(largest_gap(net, conversion.model, x))
    assert found.records == 64
    assert convert(net, to="folded").fidelity(x).agreement == 1


def test_fidelity_leaves_both_models_as_they_are():
    net = maps().train()
    conversion = convert(net, to="frozen")
    before = {k: v.clone() for k, v in net.state_dict().items()}
    conversion.fidelity(torch.randn(4, 1, 8, 8))
    assert net.training
    assert conversion.model.training
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_fidelity_needs_an_original_and_logits(tmp_path):
    conversion = convert(maps())
    conversion.save(tmp_path / "model.safetensors")
    with pytest.raises(ConversionError, match="no original"):
        load(tmp_path / "model.safetensors", maps()).fidelity(torch.randn(2, 1, 8, 8))
    with pytest.raises(InputError, match="compares logits"):
        fidelity(nn.Flatten(0), nn.Flatten(0), torch.randn(2, 3))


def test_the_json_beside_is_the_manifest_and_the_digest_of_the_weights(tmp_path):
    import hashlib

    conversion = convert(maps())
    conversion.save(tmp_path / "model.safetensors")
    beside = json.loads((tmp_path / "model.json").read_text())
    raw = (tmp_path / "model.safetensors").read_bytes()
    assert beside["weights_sha256"] == hashlib.sha256(raw).hexdigest()
    assert beside["hash"] == conversion.hash
    assert beside["manifest"] == json.loads(json.dumps(conversion.manifest.to_dict()))
    assert load_file(tmp_path / "model.safetensors").keys() == conversion.model.state_dict().keys()
