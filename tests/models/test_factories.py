"""A user's own `package.module:factory`."""

import sys
import textwrap

import pytest
import torch

from dpnorm.errors import InputError
from dpnorm.models import build

SOURCE = """
from torch import nn

def all_three(in_channels, num_classes, image_size=11):
    model = nn.Linear(in_channels, num_classes)
    model.image_size = image_size
    return model

def classes_only(num_classes):
    return nn.Linear(3, num_classes)

def nothing():
    return nn.Linear(3, 2)

def anything(**options):
    model = nn.Identity()
    model.options = options
    return model

def needs_more(in_channels, width):
    return nn.Linear(in_channels, width)

def positional(in_channels, /):
    return nn.Linear(in_channels, 1)

class Net(nn.Module):
    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.fc = nn.Linear(in_channels, num_classes)

    @classmethod
    def small(cls, num_classes):
        return cls(1, num_classes)

def late():
    import my_late_helper
    return my_late_helper.net()

def fails():
    raise RuntimeError("no such\\nlayer")

def leaves():
    raise SystemExit(3)

def returns_none():
    pass

def returns_text():
    return "net"

built = nn.Linear(2, 2)
number = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current directory with modules in it; what they import is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_nets.py").write_text(textwrap.dedent(SOURCE))
    (tmp_path / "my_late_helper.py").write_text(
        "from torch import nn\n\ndef net():\n    return nn.Linear(4, 4)\n"
    )
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").touch()
    (tmp_path / "my_package" / "nets.py").write_text("from my_nets import classes_only\n")
    (tmp_path / "my_broken.py").write_text("1 / 0\n")
    (tmp_path / "my_needy.py").write_text("import package_that_is_absent\n")
    (tmp_path / "my_typo.py").write_text("def f(:\n")
    (tmp_path / "my_exit.py").write_text("raise SystemExit(1)\n")
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0].startswith("my_")]:
        del sys.modules[name]


def test_a_factory_gets_the_arguments_that_its_signature_takes(here):
    model = build("my_nets:all_three", in_channels=5, num_classes=4, image_size=(8, 9))
    assert (model.in_features, model.out_features, model.image_size) == (5, 4, (8, 9))
    assert build("my_nets:all_three", image_size=8).image_size == 8
    assert build("my_nets:all_three").image_size == 11, "None leaves the factory's default"
    assert build("my_nets:classes_only", num_classes=6).out_features == 6
    assert build("my_nets:nothing").out_features == 2
    assert build("my_nets:anything", in_channels=2, num_classes=3).options == {
        "in_channels": 2,
        "num_classes": 3,
    }


def test_a_class_a_class_method_and_a_package_work(here):
    assert build("my_nets:Net", in_channels=5).fc.in_features == 5
    assert build("my_nets:Net.small", num_classes=3).fc.out_features == 3
    assert build("my_package.nets:classes_only", num_classes=6).out_features == 6
    assert build("torch.nn:Identity")(torch.ones(1)) == 1


def test_a_factory_may_import_a_neighbour_when_it_is_called(here):
    assert build("my_nets:late").in_features == 4


def test_the_import_path_is_put_back(here):
    before = list(sys.path)
    build("my_nets:nothing")
    with pytest.raises(InputError):
        build("my_broken:net")
    assert sys.path == before


def test_user_code_is_imported_only_when_it_is_named(here):
    build("lenet")
    with pytest.raises(InputError):
        build("my_nets")
    assert "my_nets" not in sys.modules


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_absent:net", r"there is no module 'my_absent' .*current directory"),
        ("my_package.absent:net", "there is no module 'my_package.absent'"),
        ("my_nets.deeper:net", "there is no module 'my_nets.deeper'"),
        ("my_needy:net", "importing 'my_needy' raised ModuleNotFoundError.*package_that_is_absent"),
        ("my_broken:net", "importing 'my_broken' raised ZeroDivisionError: division by zero"),
        ("my_typo:net", "importing 'my_typo' raised SyntaxError"),
        ("my_exit:net", "importing 'my_exit' raised SystemExit: 1"),
        ("my_nets:absent", r"'my_nets' has no attribute 'absent'.*my_nets.py"),
        ("my_nets:Net.absent", "'my_nets' has no attribute 'Net.absent'"),
        ("my_nets:number", "an object of type int, which cannot be called"),
        ("my_nets:built", "a model already built"),
        ("my_nets:returns_none", "returned None; it must return a torch.nn.Module"),
        ("my_nets:returns_text", "returned an object of type str"),
        ("my_nets:fails", "called with \\(\\), raised RuntimeError: no such layer"),
        ("my_nets:leaves", "raised SystemExit: 3"),
        ("my_nets:needs_more", r"called with \(in_channels=1\), raised TypeError.*'width'"),
        ("my_nets:positional", "raised TypeError"),
        (":net", "written package.module:factory"),
        ("my_nets:", "written package.module:factory"),
        ("./my_nets.py:net", "written package.module:factory"),
        (".my_nets:net", "written package.module:factory"),
        ("my_nets:a:b", "written package.module:factory"),
    ],
)
def test_what_goes_wrong_is_one_clear_line(here, name, message):
    with pytest.raises(InputError, match=message) as caught:
        build(name)
    assert "\n" not in str(caught.value)
