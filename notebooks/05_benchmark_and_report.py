# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Benchmark and report
#
# Which normalization should a network have under DP-SGD? That is a question for an experiment, and
# a fair one has many parts: every variant under the same settings, several models of each, accuracy
# and epsilon and leakage side by side, intervals. `dpnorm bench` does this from one file.
#
# A **suite** is that file. It says what is crossed with what: data sets, models, variants,
# epsilons (`inf` is training without privacy). Each combination is an **arm**, and each arm is a
# pool of models that were trained on random halves of the records (notebook 04).

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import SVG, Markdown, display
from rich.console import Console

from dpnorm.benchmark import load_suite, open_engine, run_suite
from dpnorm.benchmark.arms import plan
from dpnorm.benchmark.compare import compare
from dpnorm.benchmark.plots import plots
from dpnorm.benchmark.terminal import render_terminal
from dpnorm.figures import look, style

folder = tempfile.TemporaryDirectory()  # for suite and runs; it goes when the notebook ends
os.chdir(folder.name)

# %%
SUITE = """
name = "tiny"
datasets = ["digits"]
models = ["lenet"]
variants = ["batch", "group"]
epsilons = [inf, 8.0]

[pool]
size = 6            # models an arm; far too few, but quick
outliers = 60       # planted: noise with random labels

[training]
epochs = 4
batch_size = 64
lr = 0.05

[private_training]
epochs = 5
batch_size = 128
lr = 0.5
grad_sample_mode = "lean"

[privacy]
delta = 1e-4
"""
Path("tiny.toml").write_text(SUITE)
suite = load_suite("tiny.toml")

# %% [markdown]
# ## Plan
#
# Before anything is trained every variant is judged by `dpnorm.check`, and the noise is set so that
# the private arms spend what they may. A **cell** is one trained model, or all measures of a pool.
# An arm that is not proven gets no epsilon: it is refused where one is asked for, and that is a
# result. (`dpnorm bench plan tiny.toml` also says how long it will take.)

# %%
arms = plan(suite)
for arm in arms:
    cells = "refused" if arm.refused else f"{len(arm.cells())} cells"
    print(f"{arm.label:32} {arm.verdict:8} {cells}")
assert [arm.label for arm in arms if arm.refused] == ["digits lenet batch epsilon 8"]

# %% [markdown]
# ## Run
#
# `dpnorm bench run tiny.toml` does what the next cell does, and prints the same table. A run that
# is stopped or killed goes on where it was. Noise and sampling come from a fixed seed, so that a
# run can be repeated: its models have no guarantee and must not be published as private ones.

# %%
engine = open_engine(workers=1)
run = run_suite(suite, "runs", engine=engine, command="dpnorm bench run tiny.toml")
assert not run.failures
Console(width=80, force_jupyter=False, color_system=None).print(render_terminal(run.result))

# %% [markdown]
# So few models an arm make wide intervals: compare two numbers only with an eye on them. The files
# of the run hold all of it, for people and for machines.

# %%
assert all(row.epsilon <= row.target_epsilon for row in run.result.rows if row.epsilon)
print(*sorted(path.name for path in Path("runs/tiny").iterdir()), sep="\n")

# %% [markdown]
# `report.html` is one file that needs no network. Its plots can be had alone:

# %%


def show(plot):
    display(Markdown(f"**{plot.title}.** {plot.alt}"))
    display(SVG(plot.svg.replace("<svg ", '<svg style="background: white" ', 1)))


drawn = plots(run.result)
print("plots:", ", ".join(drawn))
show(drawn["accuracy"])

# %% [markdown]
# ## Compare
#
# Does longer training leak more? Any key of a suite can be changed for a run, as with
# `dpnorm bench run tiny.toml --override training.epochs=12`. No suite computes a cell that another
# has computed with the same settings: the private arm, which does not change, is taken over.

# %%
cells = set(Path("runs/cells").iterdir())
longer = load_suite("tiny.toml", ["name=longer", "training.epochs=12"])
second = run_suite(longer, "runs", engine=engine)
new = set(Path("runs/cells").iterdir()) - cells
print(f"cells of the first run: {len(cells)}; added by the second: {len(new)}\n")
assert not second.failures
assert 0 < len(new) < len(cells)

comparison = compare(run.result, second.result)  # also: dpnorm bench compare runs/tiny runs/longer
print(comparison)

# %% [markdown]
# The differences of the plain arms, with their intervals. A * above is an interval that leaves zero
# out. With so many of them chance alone gives one or the other.

# %%
measures = {"accuracy": "accuracy", "memorized": "outliers memorized", "lira AUC": "lira AUC"}
with style("comparison"):
    figure, axes = plt.subplots(figsize=(6.4, 2.8), layout="constrained", facecolor="white")
    for difference in comparison.differences:
        _, _, variant, epsilon, _ = difference.arm
        if difference.measure in measures and epsilon == float("inf"):
            change, colour, marker = difference.change, look(variant).light, look(variant).marker
            place = list(measures).index(difference.measure) + (
                0.15 if variant == "group" else -0.15
            )
            sides = [[100 * (change.value - change.low)], [100 * (change.high - change.value)]]
            axes.errorbar(
                [100 * change.value], [place], xerr=sides, color=colour, marker=marker,
                capsize=4, label=variant if difference.measure == "accuracy" else None,
            )  # fmt: skip
    axes.axvline(0, color="0.3", linestyle="--", linewidth=1)
    axes.set(yticks=range(len(measures)), yticklabels=measures.values(), ylim=(2.5, -0.5))
    axes.set(xlabel="change with three times the epochs (points), 95% intervals")
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower right")
    plt.show()

changes = {(d.arm[2], d.arm[3], d.measure): d.change for d in comparison.differences}
for variant in ("batch", "group"):
    accuracy, memorized, auc = (changes[variant, float("inf"), measure] for measure in measures)
    print(f"{variant}: accuracy {accuracy}, memorized {memorized}, AUC {auc}")
    assert memorized.value > 0

# %% [markdown]
# In both variants the models that trained longer remember more outliers. The private ones remember
# fewer than either, and are less accurate: that is the trade that a suite is there to show.

# %%
show(plots(second.result)["memorization"])
rows = {(row.variant, row.target_epsilon): row for row in second.result.rows}
private = rows["group", 8.0]
for variant in ("batch", "group"):
    plain = rows[variant, float("inf")]
    assert private.memorized.high < plain.memorized.low
    assert private.accuracy.high < plain.accuracy.low

# %% [markdown]
# `dpnorm bench run quick` is a suite of three minutes, with more models and the common variants.
# docs/benchmarks.md describes the suites and what `standard` shows.
