"""dpnorm train as a user runs it, stops it, kills it and runs it again."""

import contextlib
import json
import multiprocessing
import os
import pty
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.cli.command import Result, run

SEEDED = """
data = "digits"
model = "lenet"
[training]
epochs = 5
lr = 0.4
[privacy]
epsilon = 3.0
delta = 1e-4
seed = 7
[standardize]
moments = "private"
epsilon = 0.5
"""
UNSEEDED = """
data = "digits"
model = "mlp"
[training]
epochs = 40
[privacy]
epsilon = 3.0
delta = 1e-4
accountant = "rdp"
"""
PLAIN = """
data = "digits"
model = "mlp"
variant = "batch"
[training]
epochs = 2
"""
PRIVATE_RESULTS = {
    "model.safetensors",
    "config.json",
    "history.csv",
    "statement.json",
    "statement.md",
    "ledger.json",
}
ON_THE_WAY = {"config.json", "checkpoint.safetensors"}


def train(folder: Path, recipe: str, *arguments: str) -> Result:
    """Runs `dpnorm train` with a recipe, in this process and in a folder of the test."""
    (folder / "recipe.toml").write_text(recipe)
    with contextlib.chdir(folder):
        return run("train", "recipe.toml", *arguments)


class Process:
    """`dpnorm train` in a process of its own, which imported everything before it was forked."""

    def __init__(self, folder: Path, recipe: str, *arguments: str, limit=None, terminal="") -> None:
        (folder / "recipe.toml").write_text(recipe)
        self._out, self._err = folder / "stdout", folder / "stderr"
        self._err.write_text("")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["dpnorm.training.run", "dpnorm.cli.epochs"])
        self._process = context.Process(
            target=_run, args=(folder, arguments, self._out, terminal or self._err, limit)
        )
        self._process.start()

    def wait_for(self, words: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while words not in self._err.read_text():
            assert self._process.is_alive(), self._err.read_text()
            assert time.monotonic() < end, f"no {words!r} after {seconds} s"
            time.sleep(0.01)

    def send(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def result(self) -> Result:
        self._process.join(60)
        code = self._process.exitcode
        assert code is not None
        return Result(self._out.read_text(), self._err.read_text(), code)


def _run(folder, arguments, out, err, limit) -> None:
    import torch

    from dpnorm.cli import main

    torch.set_num_threads(1)
    os.chdir(folder)
    os.environ |= {"TERM": "xterm", "COLUMNS": ""}
    for number, target in ((1, out), (2, err)):
        os.dup2(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOCTTY), number)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    sys.argv = ["dpnorm", "train", "recipe.toml", *arguments]
    main()


def assert_one_line(result: Result, *words: str) -> None:
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert result.stderr.startswith("dpnorm: ")
    for word in words:
        assert word in result.stderr


def names(folder: Path) -> set[str]:
    return {item.name for item in folder.iterdir()}


def content(folder: Path) -> dict[str, bytes]:
    return {item.name: item.read_bytes() for item in folder.iterdir()}


def statement(folder: Path) -> dict:
    return json.loads((folder / "statement.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a seeded private training that nothing disturbed, and what it printed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    result = train(folder, SEEDED, "--plots")
    assert result.returncode == 0, result.stderr
    return folder / "runs" / "train", result


@pytest.fixture
def stopped(tmp_path):
    """A folder with a run, out/, that was stopped after some steps."""
    process = Process(tmp_path, SEEDED, "-o", "out")
    process.wait_for("epoch 2/5")
    process.send(signal.SIGTERM)
    result = process.result()
    assert result.returncode == 143, result.stderr
    return tmp_path, result


def test_a_private_run_leaves_model_config_history_statement_and_ledger(undisturbed):
    folder, _ = undisturbed
    assert names(folder) == PRIVATE_RESULTS | {"moments.json", "curves.png"}
    config = json.loads((folder / "config.json").read_text())
    assert (config["training"]["lr"], config["training"]["batch_size"]) == (0.4, 81)
    assert all(config["training"][key] is not None for key in ("epochs", "momentum", "ema"))
    assert statement(folder)["weights_origin"] == "random"
    assert statement(folder)["epsilon"] < statement(folder)["total_epsilon"] <= 3
    assert "differential privacy" in (folder / "statement.md").read_text()
    rows = (folder / "history.csv").read_text().splitlines()
    assert rows[0] == "epoch,step,loss,lr,accuracy,epsilon"
    assert len(rows) == 6


def test_private_moments_are_in_the_account_of_the_training(undisturbed):
    from dpnorm.privacy import Ledger
    from dpnorm.privacy.accounting import epsilon_of

    folder, _ = undisturbed
    ledger = Ledger.load(folder / "ledger.json")
    moments = json.loads((folder / "moments.json").read_text())
    assert ledger.runs() == ["moments", "training"]
    assert ledger.of("moments") == Ledger.from_dict(moments["ledger"]).events
    assert ledger.of("moments")[0].noise_multiplier == moments["noise_multiplier"]
    together = epsilon_of(ledger.history(), delta=1e-4, accountant="prv")
    assert 2.9 < together <= 3
    assert statement(folder)["total_epsilon"] == together


def test_stderr_tells_each_epoch_and_stdout_what_came_out(undisturbed):
    _, result = undisturbed
    lines = result.stderr.splitlines()
    form = r"epoch \d/5  loss \d\.\d{3}  accuracy \d\d\.\d%  epsilon \d\.\d\d(  \d+ s left)?"
    assert len(lines) == 5
    assert all(re.fullmatch(form, line) for line in lines), lines
    assert "left" in lines[0]
    assert "left" not in lines[-1]
    assert re.match(r"test accuracy \d\d\.\d%\n\(2\.\d+, 0\.0001\)-differential", result.stdout)
    assert "in runs/train: model.safetensors, config.json" in result.stdout
    assert max(map(len, result.stdout.splitlines() + lines)) <= 80


def test_a_finished_run_is_not_trained_again(undisturbed):
    folder, _ = undisturbed
    before = content(folder)
    assert_one_line(train(folder.parents[1], SEEDED), "'runs/train' holds a finished run", "-o")
    assert content(folder) == before


def test_plots_has_the_panels_that_exist(undisturbed, tmp_path):
    import matplotlib.image

    private = matplotlib.image.imread(undisturbed[0] / "curves.png")
    result = train(tmp_path, PLAIN, "training.epochs=1", "--plots", "-o", "out")
    assert result.returncode == 0, result.stderr
    plain = matplotlib.image.imread(tmp_path / "out" / "curves.png")
    assert (private.shape[1] // 600, plain.shape[1] // 600) == (3, 2)
    assert min(private.std(), plain.std()) > 0.05


def test_a_plain_run_has_no_statement_and_starts_from_the_folder_of_a_killed_one(tmp_path):
    out = tmp_path / "a" / "b"
    out.mkdir(parents=True)
    (out / ".config.json.x1.part.json").write_text("{")  # what a kill leaves behind
    result = train(tmp_path, PLAIN, "-o", "a/b")
    assert result.returncode == 0, result.stderr
    assert names(out) == {"model.safetensors", "config.json", "history.csv"}
    assert "epsilon" not in result.stderr + result.stdout


def test_a_model_that_was_written_gives_the_accuracy_that_was_printed(undisturbed):
    import torch
    from safetensors.torch import load_model

    from dpnorm.data import load, standardized
    from dpnorm.training import accuracy
    from dpnorm.training.networks import build_network

    folder, result = undisturbed
    moments = json.loads((folder / "moments.json").read_text())
    data = standardized(load("digits"), moments["mean"], moments["std"], scaling="as released")
    with torch.random.fork_rng():
        model = build_network("lenet", "group", data)
    load_model(model, folder / "model.safetensors")
    assert f"test accuracy {accuracy(model, data.test):.1%}" in result.stdout


def test_sigterm_and_then_sigkill_change_nothing_in_a_seeded_run(undisturbed, stopped):
    folder, result = stopped
    out = folder / "out"
    form = r"stopped after step (\d+) of 85; .*; run the same command to go on"
    step = re.search(form, result.stderr)
    assert step
    assert 34 <= int(step[1]) < 85
    assert names(out) == ON_THE_WAY | {"moments.json"}
    moments = (out / "moments.json").read_bytes()

    process = Process(folder, SEEDED, "-o", "out")
    process.wait_for("epoch 3/5")
    process.send(signal.SIGKILL)
    assert process.result().returncode == -signal.SIGKILL
    assert "model.safetensors" not in names(out)

    result = train(folder, SEEDED, "-o", "out")
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith("going on with the unfinished run in 'out'\nepoch 3/5")
    assert (out / "moments.json").read_bytes() == moments
    expected = content(undisturbed[0])
    del expected["curves.png"]
    assert content(out) == expected


def test_a_full_disk_leaves_the_checkpoint_and_the_run_goes_on(undisturbed, stopped):
    folder, _ = stopped
    out = folder / "out"
    before = content(out)
    full = Process(folder, SEEDED, "-o", "out", limit=4096).result()
    full.stderr = full.stderr.removeprefix("going on with the unfinished run in 'out'\n")
    assert_one_line(full, "cannot write 'out/checkpoint.safetensors'", "make room")
    assert content(out) == before
    assert train(folder, SEEDED, "-o", "out").returncode == 0
    model = (out / "model.safetensors").read_bytes()
    assert model == (undisturbed[0] / "model.safetensors").read_bytes()


def test_a_disk_that_is_full_at_the_beginning_leaves_no_folder(tmp_path):
    full = Process(tmp_path, SEEDED, "-o", "a/out", limit=4096).result()
    assert_one_line(full, "cannot write 'a/out/checkpoint.safetensors'")
    assert names(tmp_path) == {"recipe.toml", "stdout", "stderr"}


def test_a_disk_that_is_full_at_the_end_loses_nothing(tmp_path, monkeypatch):
    import safetensors.torch

    def fail(model, path):
        raise safetensors.SafetensorError("I/O error: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_model", fail)
        result = train(tmp_path, PLAIN, "-o", "out")
    assert result.returncode == 2
    assert "cannot write 'out/model.safetensors'" in result.stderr
    assert "No space left" in result.stderr
    assert names(tmp_path / "out") == ON_THE_WAY
    result = train(tmp_path, PLAIN, "-o", "out")
    assert result.returncode == 0, result.stderr
    assert names(tmp_path / "out") == {"model.safetensors", "config.json", "history.csv"}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.lr=0.3", ["another recipe", "training.lr was 0.4 and is 0.3 now"]),
        ("variant=layer", ["variant was 'group' and is 'layer' now"]),
        ("privacy.epsilon=4", ["privacy.epsilon was 3.0 and is 4.0 now"]),
        ("standardize.epsilon=0.6", ["standardize.epsilon was 0.5 and is 0.6 now"]),
    ],
)
def test_a_run_goes_on_with_no_other_recipe(unfinished, override, words):
    before = content(unfinished / "out")
    assert_one_line(train(unfinished, SEEDED, override, "-o", "out"), *words)
    assert content(unfinished / "out") == before


def test_a_private_run_does_not_go_on_as_a_plain_one(unfinished):
    result = train(unfinished, PLAIN.replace("mlp", "lenet").replace("batch", "group"), "-o", "out")
    assert_one_line(result, "another recipe", "privacy.epsilon was 3.0 and is None now")


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory, undisturbed):
    """A folder with a run, out/, of which only the beginning is there."""
    folder = tmp_path_factory.mktemp("unfinished")
    (folder / "out").mkdir()
    for name in ("config.json", "moments.json"):
        shutil.copy(undisturbed[0] / name, folder / "out" / name)
    return folder


def test_moments_that_were_released_are_taken_again(unfinished, undisturbed, tmp_path):
    shutil.copytree(unfinished / "out", tmp_path / "out")
    path = tmp_path / "out" / "moments.json"
    released = json.loads(path.read_text())
    released["mean"] = [released["mean"][0] + 1.5]  # what no second release would give
    path.write_text(json.dumps(released))
    result = train(tmp_path, SEEDED, "-o", "out")
    assert result.returncode == 0, result.stderr
    assert json.loads(path.read_text()) == released
    model = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert model != (undisturbed[0] / "model.safetensors").read_bytes()
    assert statement(tmp_path / "out") == statement(undisturbed[0])


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "config.json", "moments.json"])
def test_a_damaged_file_is_one_clear_error_and_stays(unfinished, tmp_path, name):
    shutil.copytree(unfinished / "out", tmp_path / "out")
    (tmp_path / "out" / name).write_text("{")
    result = train(tmp_path, SEEDED, "-o", "out")
    result.stderr = result.stderr.removeprefix("going on with the unfinished run in 'out'\n")
    assert_one_line(result, f"out/{name}")
    assert (tmp_path / "out" / name).read_text() == "{"


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    result = train(tmp_path, PLAIN, "-o", "out")
    assert_one_line(result, "no run of dpnorm train", "'thesis.tex'", "-o")
    assert content(tmp_path / "out") == {"thesis.tex": b"mine"}
    result = train(tmp_path, PLAIN, "-o", "recipe.toml")
    assert_one_line(result, "'recipe.toml' is a file")


def test_a_folder_in_which_another_process_trains_is_refused(tmp_path):
    import fcntl

    (tmp_path / "out").mkdir()
    handle = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        assert_one_line(train(tmp_path, PLAIN, "-o", "out"), "another process trains in 'out'")
    finally:
        os.close(handle)
    assert names(tmp_path / "out") == set()


def test_an_unseeded_run_that_was_killed_states_no_less_and_keeps_its_budget(tmp_path):
    whole = train(tmp_path, UNSEEDED, "-o", "whole")
    assert whole.returncode == 0, whole.stderr
    process = Process(tmp_path, UNSEEDED, "-o", "killed")
    process.wait_for("epoch 3/40")
    process.send(signal.SIGKILL)
    process.result()
    assert names(tmp_path / "killed") == ON_THE_WAY | {"checkpoint.safetensors.steps"}
    result = train(tmp_path, UNSEEDED, "-o", "killed")
    assert result.returncode == 0, result.stderr
    assert names(tmp_path / "killed") == PRIVATE_RESULTS
    whole, killed = statement(tmp_path / "whole"), statement(tmp_path / "killed")
    assert whole["epsilon"] <= killed["epsilon"] <= 3
    assert killed["steps"] == whole["steps"]
    last = (tmp_path / "killed" / "history.csv").read_text().splitlines()[-1]
    assert float(last.split(",")[1]) <= whole["steps"] - 51  # 3 epochs were lost, not free


def test_ctrl_c_on_a_terminal_stops_below_a_bar_of_80_columns(tmp_path):
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    recipe = UNSEEDED.replace("epochs = 40", "epochs = 1000")
    process = Process(tmp_path, recipe, "-o", "out", terminal=os.ttyname(slave))
    # The bar is drawn ten times a second, so any one epoch may never be seen.
    bar = re.compile(r"epoch +[1-9]\d*/1000 loss .* accuracy .* epsilon .* left")
    shown, lines, asked = "", [], False
    end = time.monotonic() + 60
    while "to go on" not in shown and time.monotonic() < end:
        if select.select([master], [], [], 1)[0]:
            shown += os.read(master, 65536).decode()
            lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown))
        if not asked and any(bar.search(line) for line in lines):
            process.send(signal.SIGINT)
            asked = True
    result = process.result()
    os.close(slave)
    os.close(master)
    assert result.returncode == 130
    assert result.stdout == ""
    assert "stopping after this step; Ctrl-C ends at once" in shown
    assert "Traceback" not in shown
    assert any(bar.search(line) for line in lines)
    assert max(len(x.rstrip()) for x in lines if "epoch" in x) <= 80


def test_a_second_ctrl_c_ends_at_once_and_the_handlers_are_put_back(capfd):
    from dpnorm.cli.signals import stop_requests

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_requests() as request:
        assert not request()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert request()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert request.exit_code == 143
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert capfd.readouterr().err.count("stopping after this step") == 1


def test_exact_moments_are_stated_as_not_covered(tmp_path):
    recipe = UNSEEDED + '[standardize]\nmoments = "exact"\n'
    result = train(tmp_path, recipe, "training.epochs=1", "variant=frozen", "-o", "out")
    assert result.returncode == 0, result.stderr
    assert names(tmp_path / "out") == PRIVATE_RESULTS
    found = statement(tmp_path / "out")
    assert any("mean and standard deviation of the inputs" in item for item in found["not_covered"])
    assert found["statistics_origin"] == "public"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("training.epoch=3",), ["unknown key", "did you mean 'epochs'"]),
        (("privcy.epsilon=3",), ["unknown key 'privcy'", "did you mean 'privacy'"]),
        (("standardize.moment=exact",), ["did you mean 'moments'"]),
        (("training.lr",), ["'training.lr' should be KEY=VALUE"]),
        (("model.name=x",), ["'model' is not a section"]),
        (("training.epochs=many",), ["training", "'many'", "integer"]),
        (("variant=grup",), ["unknown variant 'grup'", "'group'?"]),
        (("training.batch_size=5000",), ["batch_size is 5000", "1297 training records"]),
        (("privacy.epsilon=1e-6", 'standardize={moments="none"}'), ["1e-06 cannot be reached"]),
        (("privacy.epsilon=0.4",), ["epsilon 0.4 is spent", "before has 0.49"]),
        (("standardize.moments=exact",), ["epsilon goes with moments = 'private'"]),
        (("standardize.noise_multiplier=1.0",), ["exactly one of noise_multiplier and epsilon"]),
        (("data=npz:nowhere.npz",), ["nowhere.npz"]),
        (("variant=batch",), ["refuted"]),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(tmp_path, overrides, words):
    assert_one_line(train(tmp_path, SEEDED, *overrides), *words)
    assert names(tmp_path) == {"recipe.toml"}


def test_private_moments_need_an_account(tmp_path):
    recipe = PLAIN + '[standardize]\nmoments = "private"\nepsilon = 1.0\n'
    assert_one_line(train(tmp_path, recipe), "there is no [privacy]")


def test_python_m_dpnorm_is_the_command():
    found = subprocess.run(
        [sys.executable, "-m", "dpnorm", "--version"], capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith("dpnorm ")


@pytest.mark.slow
def test_two_processes_of_torchrun_train_one_model(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "recipe.toml").write_text(SEEDED)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(port), "-m", "dpnorm"]
    result = subprocess.run(
        [*command, "train", "recipe.toml", "training.epochs=2", "-o", "out"],
        cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert names(tmp_path / "out") == PRIVATE_RESULTS | {"moments.json"}
    assert len(re.findall("^test accuracy", result.stdout, re.M)) == 1
    assert result.stderr.count("epoch 2/2") == 1
    assert statement(tmp_path / "out")["total_epsilon"] <= 3
