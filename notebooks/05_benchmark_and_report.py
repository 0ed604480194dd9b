# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Benchmark and report
#
# A suite says what is compared: data, models, variants, epsilons. Each trained model is a cell of
# its own with a name made of all that it depends on, so that a run that was killed goes on where
# it was, and no suite computes what another has computed. Here is a tiny one; `dpnorm bench run
# quick` is the real thing.

# %%
from pathlib import Path

from IPython.display import Markdown, display

import dpnorm
from dpnorm.benchmark import load_suite, run_suite

Path("tiny.toml").write_text(
    """
name = "tiny"
datasets = ["digits"]
models = ["lenet"]
variants = ["batch", "group"]
epsilons = [inf, 8.0]

[pool]
size = 4
outliers = 40

[training]
epochs = 4
batch_size = 64
lr = 0.05

[private_training]
epochs = 4
batch_size = 128
lr = 0.5
momentum = 0.0

[privacy]
delta = 1e-4
"""
)
suite = load_suite("tiny.toml")
run = run_suite(suite, "runs", command="dpnorm bench run tiny.toml")
assert not run.failures

# %% [markdown]
# The report stands in `runs/tiny/report.html`, one file without a network; `report.md` is the
# same for a forge. BatchNorm is refused where an epsilon was asked for.

# %%
display(Markdown(Path("runs/tiny/report.md").read_text()))

# %% [markdown]
# The numbers stand in `results.csv`, each with its interval. So do they in Python:

# %%
import matplotlib.pyplot as plt

rows = [row for row in run.result.rows if row.accuracy is not None]
for place, row in enumerate(rows):
    accuracy = row.accuracy
    plt.errorbar(
        [accuracy.value],
        [place],
        xerr=[[accuracy.value - accuracy.low], [accuracy.high - accuracy.value]],
        fmt="o",
        capsize=4,
    )
plt.yticks(range(len(rows)), [f"{row.variant}, epsilon {row.target_epsilon:g}" for row in rows])
plt.xlabel("accuracy on test records, 95%")
plt.show()

# %% [markdown]
# A second run finds every cell finished.

# %%
again = run_suite(suite, "runs", command="dpnorm bench run tiny.toml")
assert again.result.rows == run.result.rows
print(f"dpnorm {dpnorm.__version__}: {len(again.result.rows)} arms, nothing was trained again")
