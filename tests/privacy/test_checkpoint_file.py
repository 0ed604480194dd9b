import contextlib
import io
import json
import math
import os
import pickle
import struct
from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from dpnorm.errors import InputError
from dpnorm.privacy.checkpoint import FORMAT, read_state, require_same, write_state
from dpnorm.tensors import digest_of


def identical(a, b):
    """Equal in type, in order and, for floats and tensors, in every bit."""
    if isinstance(a, torch.Tensor):
        a = a.detach().cpu().resolve_conj().resolve_neg().contiguous()
        alike = type(b) is torch.Tensor and (a.dtype, a.shape) == (b.dtype, b.shape)
        return alike and a.reshape(-1).view(torch.uint8).equal(b.reshape(-1).view(torch.uint8))
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(
            type(x) is type(y) and identical(a[x], b[y]) for x, y in zip(a, b, strict=True)
        )
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(identical, a, b))
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b) or (math.isnan(a) and math.isnan(b))
    return a == b


def network():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))


def stepped(optimizer, net):
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(5, 1, 8, 8)).square().mean().backward()
        optimizer.step()
    return optimizer


def manifest_of(path):
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["dpnorm"])


def with_manifest(path, text, **tensors):
    save_file(tensors or {"a": torch.ones(2)}, str(path), {"dpnorm": text})
    return path


def with_state(path, state, **tensors):
    tensors = tensors or {"a": torch.ones(2)}
    digest = digest_of(state, tensors)
    text = json.dumps({"format": FORMAT, "version": 1, "state": state, "sha256": digest})
    return with_manifest(path, text, **tensors)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run.ckpt"


# Round trips


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.Adam(p, lr=1e-3, betas=(0.8, 0.99), amsgrad=True),
        lambda p: torch.optim.AdamW(p, lr=torch.tensor(1e-3), capturable=False, foreach=False),
        lambda p: torch.optim.RMSprop([{"params": list(p)[:2]}, {"params": list(p)[2:]}], lr=0.1),
        lambda p: torch.optim.LBFGS(p, max_iter=2),
    ],
    ids=["sgd", "adam", "adamw-tensor-lr", "rmsprop-two-groups", "lbfgs"],
)
def test_a_restored_optimizer_takes_the_same_next_step(make, file):
    net = network()
    optimizer = make([*net.parameters()])
    x = torch.randn(5, 1, 8, 8)

    def steps(net, optimizer, count):
        def closure():
            optimizer.zero_grad()
            loss = net(x).square().mean()
            loss.backward()
            return loss

        for _ in range(count):
            optimizer.step(closure)

    steps(net, optimizer, 3)
    state = {"model": net.state_dict(), "optimizer": optimizer.state_dict()}
    write_state(file, state)
    read = read_state(file)
    assert identical(dict(state["model"]), read["model"])
    assert identical(state["optimizer"], read["optimizer"])

    fresh = network()
    other = make([*fresh.parameters()])
    fresh.load_state_dict(read["model"])
    other.load_state_dict(read["optimizer"])
    steps(net, optimizer, 2)
    steps(fresh, other, 2)
    assert identical(dict(net.state_dict()), dict(fresh.state_dict()))


def test_int_keys_stay_ints_and_betas_stay_a_tuple(file):
    net = network()
    optimizer = stepped(torch.optim.Adam(net.parameters(), betas=(0.8, 0.99)), net)
    write_state(file, {"optimizer": optimizer.state_dict()})
    read = read_state(file)["optimizer"]
    assert list(read["state"]) == [0, 1, 2, 3, 4, 5]
    assert read["param_groups"][0]["betas"] == (0.8, 0.99)
    assert type(read["param_groups"][0]["betas"]) is tuple
    assert type(read["param_groups"][0]["params"]) is list


def test_a_scheduler_and_random_states_survive(file):
    import random

    optimizer = torch.optim.SGD(network().parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    state = {
        "scheduler": scheduler.state_dict(),
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": np.random.default_rng(0).bit_generator.state,
    }
    write_state(file, state)
    assert identical(state, read_state(file))


DTYPES = [
    *(torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.complex128),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_shape_survives(dtype, file):
    flat = torch.randint(0, 2, (24,)).to(dtype)
    state = {
        "flat": flat,
        "scalar": flat[0],
        "empty": flat[:0].reshape(0, 3),
        "square": flat.reshape(2, 3, 4),
        "turned": flat.reshape(2, 3, 4).permute(2, 0, 1),
        "strided": flat[::5],
        "expanded": flat[:1].expand(6),
    }
    write_state(file, state)
    assert identical(state, read_state(file))


def test_a_conjugated_and_a_negative_view_are_written_as_what_they_show(file):
    z = torch.randn(3, dtype=torch.complex128)
    state = {"conj": z.conj(), "neg": z.conj().imag, "single": z.to(torch.complex64).conj()}
    write_state(file, state)
    assert identical(state, read_state(file))


def test_shared_memory_is_written_for_each_place(file):
    weight = torch.randn(4, 4)
    base = torch.arange(6.0)
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    state = {"a": weight, "b": weight, "turned": weight.T, "head": base[:3], "tail": base[3:]}
    state["tied"] = dict(net.state_dict())
    write_state(file, state)
    read = read_state(file)
    assert identical(state, read)
    read["a"].zero_()
    assert torch.equal(read["b"], weight)


def test_non_finite_payloads_of_tensors_and_floats_survive(file):
    state = {
        "floats": [math.inf, -math.inf, math.nan, -0.0, 5e-324, 1.7976931348623157e308, 0.1, 1.0],
        "tensor": torch.tensor([math.inf, -math.inf, math.nan, -0.0]),
    }
    write_state(file, state)
    assert identical(state, read_state(file))


TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([2**53, -(2**53), 2**200])
    | st.builds(
        lambda dtype, shape: torch.arange(math.prod(shape)).reshape(shape).to(dtype),
        st.sampled_from(DTYPES),
        st.lists(st.integers(0, 3), max_size=3),
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(state=st.dictionaries(st.text() | st.integers(), TREES, max_size=4))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_nested_state_comes_back_as_it_was(state, file):
    write_state(file, state)
    assert identical(state, read_state(file))


def test_keys_that_look_like_paths_or_tags_do_not_collide(file):
    one, two, three = torch.ones(1), torch.ones(2), torch.ones(3)
    state = {
        "a.b": one,
        "a": {"b": two, "b#2": three},
        1: one,
        "1": two,
        "__metadata__": three,
        "": {"": one},
        "tensor": {"tensor": "a.b"},
        "tuple": {"tuple": [1]},
        "\ud800": two,
        "é\0\n": one,
        2**70: one,
        2**20_000: -(2**20_000),
    }
    write_state(file, state)
    assert identical(state, read_state(file))


def test_other_mappings_sizes_parameters_and_numpy_scalars_come_back_plain(file):
    write_state(
        file,
        {
            "ordered": OrderedDict(a=1),
            "size": torch.Size([2, 3]),
            "parameter": nn.Parameter(torch.ones(2)),
            "lr": np.float64(0.1),
            "small": np.float32(0.1),
            "steps": np.int64(3),
            "yes": np.bool_(True),
        },
    )
    expected = {
        "ordered": {"a": 1},
        "size": (2, 3),
        "parameter": torch.ones(2),
        "lr": 0.1,
        "small": float(np.float32(0.1)),
        "steps": 3,
        "yes": True,
    }
    read = read_state(file)
    assert identical(expected, read)
    assert not read["parameter"].requires_grad


def test_the_weights_can_be_read_by_their_names_with_safetensors_alone(file):
    net = network()
    write_state(file, {"model": net.state_dict(), "epoch": 3})
    weights = load_file(file)
    assert weights.keys() == {f"model.{name}" for name in net.state_dict()}
    assert torch.equal(weights["model.0.weight"], net[0].weight)


def test_what_was_read_does_not_follow_later_changes_of_the_file(file):
    write_state(file, {"a": torch.ones(100)})
    read = read_state(file)["a"]
    size = file.stat().st_size
    with file.open("r+b") as handle:
        handle.seek(size - 400)
        handle.write(b"\0" * 400)
    assert torch.equal(read, torch.ones(100))
    read += 1


# What is not written


class Foo:
    pass


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Foo(), "is a Foo: a state holds"),
        (len, "is a builtin_function_or_method"),
        (Foo, "is a type"),
        (np.ones(2), "is a ndarray: .*torch.from_numpy"),
        (b"x", "is a bytes"),
        ({1}, "is a set"),
        (1j, "is a complex"),
        (Pair(1, 2), "is a Pair"),
        (torch.float32, "is a dtype"),
        (torch.device("cpu"), "is a device"),
        (torch.Generator(), "is a Generator"),
        (torch.ones(2).to_sparse(), "is a torch.sparse_coo tensor"),
        (torch.ones(2, device="meta"), "is a meta tensor"),
        (nn.UninitializedParameter(), "is a UninitializedParameter"),
        (torch.empty(2, dtype=torch.bits8), "is a tensor of torch.bits8"),
    ],
    ids=lambda v: v.split(":")[0] if isinstance(v, str) else "",
)
def test_a_value_that_cannot_be_written_is_named_and_the_old_file_stays(value, message, file):
    write_state(file, {"old": 1})
    state = {"a": torch.ones(3), "optimizer": {"state": {0: {"foo": value}}, "x": ([1, value],)}}
    with pytest.raises(InputError, match=rf"cannot save: optimizer\.state\.0\.foo {message}"):
        write_state(file, state)
    with pytest.raises(InputError, match=rf"x\.0\.1 {message}"):
        write_state(file, {"x": state["optimizer"]["x"]})
    assert read_state(file) == {"old": 1}
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize("key", [None, 1.5, True, (1, 2), b"a"], ids=repr)
def test_a_key_that_cannot_be_written_is_named(key, file):
    with pytest.raises(InputError, match=r"optimizer\.state has the key .*must be str or int"):
        write_state(file, {"optimizer": {"state": {key: 1}}})
    assert not file.exists()


def test_a_state_that_contains_itself_is_refused(file):
    state = {"a": []}
    state["a"].append(state)
    with pytest.raises(InputError, match=r"a\.0\.a\.0\.a\.0 is nested deeper .* contains itself"):
        write_state(file, state)


def test_the_deepest_state_that_is_written_is_read(file):
    state, deepest = {}, None
    for _ in range(150):
        state = {"a": state}
        try:
            write_state(file, state)
        except InputError:
            break
        deepest = state
    else:
        pytest.fail("no depth was refused")
    assert read_state(file) == deepest


def test_a_state_that_is_no_mapping_is_refused(file):
    with pytest.raises(InputError, match="the state is a list: a mapping is needed"):
        write_state(file, [1])


def test_a_place_that_cannot_hold_the_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="the folder does not exist"):
        write_state(tmp_path / "no" / "run.ckpt", {})
    with pytest.raises(InputError, match="it is a folder"):
        write_state(tmp_path, {})


def test_more_structure_than_safetensors_reads_is_refused(file, monkeypatch):
    monkeypatch.setattr("dpnorm.tensors._LARGEST_MANIFEST", 1000)
    with pytest.raises(InputError, match="hold long lists of numbers as tensors"):
        write_state(file, {"history": list(range(1000))})
    assert not file.exists()


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_an_error_while_writing_leaves_the_old_file(kind, file, monkeypatch):
    write_state(file, {"old": torch.ones(2)})
    before = file.read_bytes()

    def torn(tensors, path, metadata):
        with open(path, "wb") as handle:
            handle.write(b"part")
        raise kind("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", torn)
    with pytest.raises(kind):
        write_state(file, {"new": torch.ones(3)})
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]


def test_a_failure_inside_safetensors_is_an_oserror_that_names_the_file(file, monkeypatch):
    from safetensors import SafetensorError

    def failing(tensors, path, metadata):
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", failing)
    with pytest.raises(OSError, match=r"cannot write '.*run\.ckpt': .*No space left"):
        write_state(file, {"a": torch.ones(1)})
    assert os.listdir(file.parent) == []


# What is not read


def refused(path, match):
    with pytest.raises(InputError, match=match) as caught:
        read_state(path)
    text = str(caught.value)
    assert "\n" not in text
    assert "PrivacyEngine.save_checkpoint" in text or "has version" in text
    assert path.name in text


def test_missing_files_and_folders_are_named(tmp_path):
    refused(tmp_path / "none.ckpt", "no file")
    refused(tmp_path, "is a folder")


def test_empty_and_torn_files_and_noise_are_told(file):
    file.write_bytes(b"")
    refused(file, "is empty")
    write_state(file, {"model": network().state_dict(), "epoch": 3})
    whole = file.read_bytes()
    for length in (1, 7, 8, 9, 50, 300, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        refused(file, "cut off or damaged")
    file.write_bytes(whole + b"x")
    refused(file, "cut off or damaged")
    file.write_bytes(bytes(range(255, 0, -1)) * 20)
    refused(file, "not a safetensors file")


@given(noise=st.binary(max_size=200))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_noise_of_any_kind_is_an_input_error(noise, file):
    file.write_bytes(noise)
    with pytest.raises(InputError):
        read_state(file)


class Dangerous:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def pickled(kind, value):
    if kind == "pickle":
        return pickle.dumps(value)
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=kind == "zip")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_no_pickle_is_loaded(kind, file):
    trap = file.parent / "executed"
    file.write_bytes(pickled(kind, {"model": Dangerous(trap)}))
    refused(file, "no pickle is loaded")
    assert not trap.exists()


def test_a_torn_file_whose_header_begins_like_a_pickle_is_not_called_one(file):
    header = b"{".ljust(0x0280)
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    assert file.read_bytes()[:2] == b"\x80\x02"
    refused(file, "cut off or damaged")


def test_other_safetensors_files_are_not_checkpoints(file):
    save_file({"a": torch.ones(1)}, str(file))
    refused(file, "no manifest of dpnorm")
    with_manifest(file, json.dumps({"format": 1, "to": "group"}))
    refused(file, "is not a checkpoint .its format is 1")


def test_a_conversion_and_a_checkpoint_are_not_taken_for_each_other(tmp_path):
    from dpnorm.conversion import convert, load

    path = tmp_path / "model.safetensors"
    convert(network()).save(path)
    refused(path, "is not a checkpoint")
    write_state(path, {"model": network().state_dict()})
    with pytest.raises(InputError, match="has format dpnorm-training-state"):
        load(path, network())


@pytest.mark.parametrize("version", [2, 0, None, "1"])
def test_another_version_is_told(version, file):
    with_manifest(file, json.dumps({"format": FORMAT, "version": version, "state": {"dict": []}}))
    refused(file, "this dpnorm reads 1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "its manifest is no JSON"),
        ("", "its manifest is no JSON"),
        ("[" * 100_000, "its manifest is no JSON"),
        ("[1]", "its manifest is no JSON object"),
        ("9" * 5000, "its manifest is no JSON"),
    ],
    ids=["torn", "empty", "deep", "list", "long"],
)
def test_a_broken_manifest_is_told(text, message, file):
    refused(with_manifest(file, text), message)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "its state is a NoneType, not a dict"),
        ([], "its state is a list, not a dict"),
        ({"dict": [["a", {"tensor": "b"}]]}, "a tensor that it does not hold: 'b'"),
        ({"dict": [["a", {"complex": "b"}]]}, "a tensor that it does not hold: 'b'"),
        ({"dict": [["a", {"complex": "a"}]]}, "is damaged"),
        ({"dict": [["a", {"tensor": ["a"]}]]}, "an entry 'tensor' that"),
        ({"dict": [["a", {"pickle": "gASVCg=="}]]}, "an entry 'pickle' that"),
        ({"dict": [["a", {}]]}, "an object of 0 entries"),
        ({"dict": [["a", {"int": "1", "float": "nan"}]]}, "an object of 2 entries"),
        ({"dict": [["a", {"int": "zz"}]]}, "is damaged"),
        ({"dict": [["a", {"float": "1"}]]}, "an entry 'float' that"),
        ({"dict": [["a"]]}, "an entry that is no pair"),
        ({"dict": {"a": 1}}, "an entry 'dict' that"),
        ({"dict": [[[1], 1]]}, "a wrong or repeated key"),
        ({"dict": [[True, 1]]}, "a wrong or repeated key"),
        ({"dict": [["a", 1], ["a", 2]]}, "a wrong or repeated key, 'a'"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_broken_structure_is_told(state, message, file):
    refused(with_state(file, state, a=torch.ones(3)), message)


def test_a_structure_too_deep_is_told(file):
    state = 1
    for _ in range(200):
        state = {"tuple": [state]}
    refused(with_state(file, {"dict": [["a", state]]}), "nested deeper than 100")


def test_a_shape_that_no_tensor_has_is_told(file):
    header = json.dumps(
        {
            "__metadata__": {"dpnorm": json.dumps({"format": FORMAT})},
            "a": {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [0, 0]},
        }
    ).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    refused(file, "damaged")


def test_the_file_states_its_format_and_version(file):
    write_state(file, {"a": 1})
    assert manifest_of(file) == {
        "format": "dpnorm-training-state",
        "version": 1,
        "state": {"dict": [["a", 1]]},
        "sha256": digest_of({"dict": [["a", 1]]}, {}),
    }


def test_no_flipped_bit_goes_unseen(file):
    state = {"noise": 1.25, "steps": 7, "run": "run 1", "weight": torch.arange(3.0)}
    write_state(file, state)
    whole = file.read_bytes()
    for bit in range(0, 8 * len(whole), 3):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        with contextlib.suppress(InputError):
            # what is read all the same differs in spelling only, as \u00e9 from \u00E9
            assert identical(state, read_state(file)), f"bit {bit} was flipped"


def test_a_file_without_a_digest_is_damaged(file):
    state = {"dict": [["a", 1]]}
    with_manifest(file, json.dumps({"format": FORMAT, "version": 1, "state": state}))
    refused(file, "does not have the SHA-256 that it states")


# Whether a state is that of the model


def test_the_state_of_the_same_model_is_accepted():
    require_same(network().state_dict(), network().state_dict(), "run.ckpt")


def test_every_kind_of_difference_is_listed():
    saved = dict(network().state_dict())
    model = dict(network().state_dict())
    saved["old.weight"] = torch.ones(1)
    del saved["0.bias"]
    saved["3.weight"] = torch.ones(3, 100)
    saved["3.bias"] = saved["3.bias"].double()
    with pytest.raises(InputError) as caught:
        require_same(saved, model, "run.ckpt")
    assert str(caught.value) == (
        "run.ckpt does not fit the model: the model has entries that the file lacks: 0.bias; "
        "the file has entries that the model lacks: old.weight; entries have other shapes: "
        "3.weight is (3, 100) in the file, (3, 144) in the model; entries have other dtypes: "
        "3.bias is float64 in the file, float32 in the model; "
        "build the model as it was when the file was written"
    )


def test_long_lists_of_differences_are_shortened():
    saved = {f"layer{i:02}": torch.ones(1) for i in range(50)}
    with pytest.raises(InputError, match=r"lacks: layer00, layer01, layer02 ... \(50 in all\);"):
        require_same(saved, {}, "run.ckpt")


def test_a_scalar_is_not_a_vector_of_one_and_other_values_are_compared_by_type():
    with pytest.raises(InputError, match=r"a is \(\) in the file, \(1,\) in the model"):
        require_same({"a": torch.tensor(1.0)}, {"a": torch.ones(1)}, "run.ckpt")
    with pytest.raises(InputError, match=r"a is int in the file, \(1,\) in the model"):
        require_same({"a": 1}, {"a": torch.ones(1)}, "run.ckpt")
    with pytest.raises(InputError, match=r"it is a list, needed are named tensors"):
        require_same([1], {}, "run.ckpt")
    require_same({"_extra_state": {"a": 1}}, {"_extra_state": {}}, "run.ckpt")
