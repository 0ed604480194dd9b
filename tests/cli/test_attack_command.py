"""dpnorm attack as a user runs it: what it prints, what it writes, and how it refuses."""

import dataclasses
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from dpnorm.leakage import Member, PoolFolder, attack, memorization
from dpnorm.leakage.course import MemberCourse
from tests.benchmark.stored import stored_run
from tests.cli.command import Result, assert_one_line
from tests.cli.command import run as run_command
from tests.leakage.attack_pools import gaussian_pool
from tests.leakage.test_opened import RECIPE

SHOWN = ["--attacks", "loss,lira"]


def run(*arguments: object) -> Result:
    """Runs `dpnorm attack` in this process."""
    return run_command("attack", *arguments)


def planted_pool(models=12, records=60, outliers=15):
    pool = gaussian_pool(models, records, shift=1.5)
    return dataclasses.replace(
        pool,
        outlier=np.arange(records) >= records - outliers,
        accuracy=np.full(models, 0.9),
    )


@pytest.fixture
def saved(tmp_path):
    pool = planted_pool()
    pool.save(tmp_path / "half.npz")
    return tmp_path / "half.npz", pool


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from dpnorm.training.run import run_recipe

    folder = tmp_path_factory.mktemp("runs") / "plain"
    run_recipe(RECIPE, folder)
    return folder


def test_the_table_holds_the_numbers_of_the_python_api(saved):
    path, pool = saved
    result = run(path, *SHOWN)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "half: 12 models, 60 records (15 of them outliers), test accuracy 90.0%"
    for name in ("loss", "lira"):
        rows = [line for line in lines if line.startswith(f"{name} ")]
        whole = attack(pool, name)
        for row, scores in zip(rows, (whole, whole.on(pool.outlier)), strict=True):
            assert str(scores.auc) in row
        assert str(whole.tpr_at_fpr(0.01)) in rows[0]
    share = memorization(pool).outliers
    assert (
        f"outliers memorized: {share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"
        in result.stdout
    )


def test_what_is_below_resolution_is_marked_and_never_a_number(saved):
    path, pool = saved
    text = run(path, *SHOWN).stdout
    others = int((~pool.keep).sum())
    assert 100 < others < 1000
    all_targets, outliers = text.split("outliers alone")
    assert all_targets.count("below resolution") == 2
    assert outliers.count("below resolution") == 2 * 2 + 1
    assert "below resolution: 1% FPR needs 100, 0.1% FPR needs 1000 non-members" in text


def test_the_text_fits_eighty_columns_and_says_what_the_intervals_resample(saved):
    path, _ = saved
    text = run(path, "--classes").stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "[low, high]: 95% over resampled models and records" in text
    assert "\x1b" not in text


def test_classes_are_listed_on_request_alone_and_a_class_without_records_says_so(tmp_path):
    pool = planted_pool()
    logits = np.concatenate([pool.logits, pool.logits[..., :1] - 1], axis=-1)
    labels = np.where(pool.labels == 1, 2, 0)
    dataclasses.replace(pool, logits=logits, labels=labels).save(tmp_path / "gap.npz")
    assert "class" not in run(tmp_path / "gap.npz", "--attacks", "loss").stdout
    text = run(tmp_path / "gap.npz", "--attacks", "loss", "--classes").stdout
    sections = text.split("\n\n")
    (empty,) = [part for part in sections if part.startswith("class 1: ")]
    assert empty.startswith("class 1: 0 members, 0 non-members")
    assert empty.splitlines()[-1].split() == ["loss"] + ["no", "records"] * 3
    assert [part for part in sections if part.startswith("class 2: ")]


def test_progress_goes_to_stderr_and_data_to_stdout(saved):
    result = run(saved[0], *SHOWN)
    assert "half: resampling the scores of lira" in result.stderr
    assert "resampling" not in result.stdout


@pytest.mark.parametrize("classes", [[], ["--classes"]])
def test_json_is_what_the_python_api_says(saved, classes):
    path, pool = saved
    result = run(path, *SHOWN, *classes, "--format", "json")
    (found,) = json.loads(result.stdout)["pools"]
    assert list(found["attacks"]) == ["loss", "lira"]
    for name, summary in found["attacks"].items():
        wanted = attack(pool, name).summary(pool.labels if classes else None)
        assert summary == json.loads(json.dumps(wanted.to_dict()))
    assert found["outliers_memorized"]["value"] == memorization(pool).outliers.value
    assert (found["name"], found["models"], found["accuracy"]) == ("half", 12, 0.9)
    assert found["not_run"] == {}


def test_all_attacks_are_run_by_default_and_a_pool_without_accuracy_is_valid_json(tmp_path):
    pool = dataclasses.replace(planted_pool(), accuracy=np.full(12, np.nan))
    pool.save(tmp_path / "pool.npz")

    def refuse(word: str) -> None:
        pytest.fail(f"{word} is not JSON")

    text = run(tmp_path / "pool.npz", "--format", "json").stdout
    (found,) = json.loads(text, parse_constant=refuse)["pools"]
    ran = {*found["attacks"], *found["not_run"]}
    assert ran == {"bavaria", "calibrated", "lira", "loss", "rmia"}
    assert {"bavaria", "calibrated", "lira", "loss"} <= {*found["attacks"]}
    assert found["accuracy"] is None


def test_one_model_runs_the_loss_attack_and_notes_what_the_others_need(trained):
    result = run(trained)
    assert result.returncode == 0
    text = " ".join(result.stdout.split())
    assert "plain: 1 model, 1697 records" in text
    assert text.count("not run: bavaria, calibrated, lira, rmia: these need shadow models") == 1
    assert "train one with dpnorm pool" in text
    assert "over resampled records (one model: not over trainings)" in text
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_one_model_with_a_named_attack_that_needs_shadows_is_an_error(trained):
    result = run(trained, "--attacks", "loss,lira")
    assert_one_line(result, "LiRA", "at least 3", "dpnorm pool")


def test_a_benchmark_prints_a_table_for_each_of_its_pools(tmp_path):
    stored_run(tmp_path)
    result = run(tmp_path / "tiny", "--attacks", "loss")
    assert result.returncode == 0, result.stderr
    heads = [line for line in result.stdout.splitlines() if " models, " in line]
    assert [head.split(":")[0] for head in heads] == [
        "digits lenet batch plain",
        "digits lenet group plain",
    ]


def test_plots_are_written_beside_a_file_or_where_one_says(saved, tmp_path):
    path, _ = saved
    result = run(path, "--attacks", "loss", "--plots")
    folder = tmp_path / "plots"
    names = ["roc.svg", "roc-outliers.svg", "scores-loss.svg"]
    assert sorted(file.name for file in folder.iterdir()) == sorted(names)
    assert result.stdout.endswith(
        f"plots in {folder}:\n" + "".join(f"  {name}\n" for name in names)
    )
    for name in names:
        assert ElementTree.parse(folder / name).getroot().tag.endswith("svg")
    elsewhere = tmp_path / "a" / "b"
    options = ["--attacks", "loss", "--plots", "-o", elsewhere, "--format", "json"]
    written = json.loads(run(path, *options).stdout)["plots"]
    assert written == [str(elsewhere / name) for name in names]


def test_a_folder_that_cannot_be_made_is_refused_and_says_what_to_do(saved):
    result = run(saved[0], "--attacks", "loss", "--plots", "-o", saved[0])
    assert (result.returncode, result.stdout) == (2, "")
    assert "cannot make the folder" in result.stderr.splitlines()[-1]
    assert "choose another with -o" in result.stderr.splitlines()[-1]


def test_a_watched_pool_gets_the_plots_of_its_course_too(tmp_path):
    from dpnorm.data import Dataset, Records

    folder, pool = watched_folder(tmp_path / "pool", Dataset, Records)
    result = run(folder, "--attacks", "loss", "--plots")
    assert result.returncode == 0, result.stderr
    names = {file.name for file in (folder / "plots").iterdir()}
    assert {"memorization.svg", "gradient-norms.svg"} <= names
    again = run(folder, "--attacks", "loss", "--format", "json")  # the plots are in nobody's way
    (found,) = json.loads(again.stdout)["pools"]
    wanted = json.loads(json.dumps(attack(pool, "loss").summary().to_dict()))
    assert found["attacks"]["loss"] == wanted


def watched_folder(path, dataset, records):
    import torch

    from dpnorm.leakage.membership import grown_membership

    models, size, generator = 6, 40, np.random.default_rng(3)
    outlier = torch.arange(size) >= 30
    part = records(torch.zeros(size, 1, 2, 2), torch.zeros(size, dtype=torch.int64), outlier)
    data = dataset("blank", part, part, part, 2, (1, 2, 2), "none")
    keep = grown_membership(size, [models], 0)
    folder = PoolFolder(path)
    with folder.entered({"privacy": None}, data, models, 0):
        for m in range(models):
            correct = generator.random((3, size)) < 0.5
            norms = np.where(keep[m], generator.random((3, size)) + 0.1, np.nan)
            course = MemberCourse(
                np.arange(1, 4), correct, np.ones((3, size), np.float32), norms.astype(np.float32)
            )
            logits = generator.normal(size=(size, 1, 2)).astype(np.float32)
            test = np.zeros((size, 2), dtype=np.float32)
            folder.save_member(m, Member(keep[m], logits, 0.5, None, 1.0, (), test, course))
    return path, folder.pool()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{pool}", "--attacks", "lyra"], ["unknown attack 'lyra'", "did you mean 'lira'?"]),
        (["{pool}", "--attacks", ","], ["the attacks are ','", "loss,lira"]),
        (["{pool}", "--format", "jsn"], ["unknown format 'jsn'", "did you mean 'json'?"]),
        (["{pool}", "-o", "somewhere"], ["goes with --plots"]),
        (["{folder}/nowhere"], ["no such file or folder", "a pool saved as .npz"]),
        (["{folder}"], ["holds bad.npz, full.npz, half.npz", "is needed"]),
        (["{folder}/bad.npz"], ["not a readable npz"]),
        (["{folder}/full.npz"], ["needs both", "draw_membership"]),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(saved, arguments, words):
    path, pool = saved
    folder = path.parent
    (folder / "bad.npz").write_bytes(path.read_bytes()[:300])
    dataclasses.replace(pool, keep=np.ones_like(pool.keep)).save(folder / "full.npz")
    before = sorted(folder.iterdir())
    result = run(*[word.format(pool=path, folder=folder) for word in arguments])
    assert_one_line(result, *words)
    assert sorted(folder.iterdir()) == before


def test_the_help_fits_eighty_columns_and_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['dpnorm', 'attack', '--help']\n"
        "from dpnorm.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'opacus', 'numpy', 'pandas', 'matplotlib'} & set(sys.modules)\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True,
        env={"COLUMNS": "80", "PATH": "", "PYTHONPATH": ":".join(filter(None, sys.path))},
    )  # fmt: skip
    assert max(map(len, shown.stdout.splitlines())) <= 80
    for word in ("RUN_OR_POOL", "--attacks", "--plots", "--classes", "--format", "--output"):
        assert word in shown.stdout
