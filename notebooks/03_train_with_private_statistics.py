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
# # Train a BatchNorm with private statistics
#
# DP-SGD releases, at each step, the sum of the records' gradients, each clipped to a length C, with
# Gaussian noise. The *noise multiplier* is the standard deviation of that noise in units of C. A
# *release* is whatever leaves a step: it may be seen, kept and used for ever after, at no further
# cost.
#
# BatchNorm has no place in this. It normalizes by the mean and the variance of the batch, so that
# one record moves all others. The variant `private-batch` changes two things:
#
# 1. The layer normalizes by statistics that were released at *earlier* steps. Within a step they
#    are constants, and no record moves another.
# 2. Each step releases, beside the gradients, what its records say of the statistics: one vector a
#    record, clipped too, added up, with noise. Only that noisy sum moves the statistics.
#
# `dpnorm.check` proves the first point, and `dpnorm.sensitivity` finds no record that moves the
# gradient sum by more than C.

# %%
import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import Markdown, display
from torch.utils.data import DataLoader, TensorDataset

import dpnorm
from dpnorm.figures import look, style
from dpnorm.privacy import joint_noise, split_noise

data = dpnorm.data.load("digits")  # small pictures of digits; ships with scikit-learn
x, y = data.public.x[:64], data.public.y[:64]


def network(variant, seed=0):
    torch.manual_seed(seed)
    return dpnorm.convert(dpnorm.models.build("lenet"), to=variant).model


for variant in ("batch", "private-batch"):
    model = network(variant)
    report = dpnorm.check(model, x[:8], targets=y[:8], criterion=F.cross_entropy)
    moved = dpnorm.sensitivity(model, x, y, F.cross_entropy)
    print(f"{variant:13} {report.summary()}; the sum moves by up to {moved.ratio:.2f} C")
    assert report.ok == (variant == "private-batch") == (moved.ratio < 1 + 1e-5)

# %% [markdown]
# ## Two releases of one batch
#
# With noise multipliers g for the gradients and s for the statistics, each in units of its own
# clipping length, the two sums of one batch tell exactly as much as a single one with
#
# $$\sigma_\mathrm{eff} = (g^{-2} + s^{-2})^{-1/2}$$
#
# `noise_multiplier` is this total, and what is accounted. `statistics_noise_ratio` is s / g. Much
# noise on the statistics leaves the gradients nearly all of the budget.

# %%
ratios = np.geomspace(0.5, 16, 41)
splits = np.array([split_noise(1.0, ratio) for ratio in ratios])
with style("split"):
    figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained", facecolor="white")
    axes.plot(ratios, splits[:, 1], color=look("private-batch").light, label="statistics, s")
    axes.plot(ratios, splits[:, 0], color=look("group").light, label="gradients, g")
    axes.axhline(1, color="0.3", linestyle="--", linewidth=1, label="both together, as accounted")
    axes.axvline(4, color="0.3", linestyle=":", linewidth=1.2, label="the default ratio")
    axes.set(xscale="log", yscale="log", xlabel="statistics_noise_ratio, s / g")
    axes.set(ylabel="noise multiplier", xticks=(0.5, 1, 2, 4, 8, 16), yticks=(1, 2, 4, 8, 16))
    axes.set(xticklabels=("0.5", "1", "2", "4", "8", "16"), yticklabels=("1", "2", "4", "8", "16"))
    axes.minorticks_off()
    axes.legend(loc="upper left")
    plt.show()

g, s = split_noise(1.0, 4.0)
print(f"ratio 4: the gradients get {g - 1:.1%} more noise than they would get alone, s is {s:.2f}")
assert abs(joint_noise(g, s) - 1) < 1e-9

# %% [markdown]
# It is tempting to count each release as a step of its own. That is wrong in the bad direction.
# Each batch is a random sample, and a record that is rarely sampled is harder to see: but two
# separate steps would draw two samples, and these two releases see one. The next experiment
# accounts a training both ways; for one step the exact epsilon is known.

# %%
answer = dpnorm.explain.answer("private-statistics")
assert answer.holds  # the run showed all that its text says
with style("account"):
    figure = {p.key: p for p in answer.measured.pictures}["epsilon"].draw()
    figure.set(facecolor="white", size_inches=(6.0, 3.6))
    display(figure)
display(Markdown(answer.parts["What they mean"]))

# %% [markdown]
# ## In a training loop
#
# `dpnorm.PrivacyEngine` stands in for Opacus's engine: give it model, optimizer and data loader,
# and train as ever. (The seed makes the noise repeatable, which is for experiments only.)

# %%
# said by a part of Opacus that draws nothing here: noise comes from a generator of dpnorm's
warnings.filterwarnings("ignore", "Secure RNG turned off")

model = network("private-batch").train()
criterion = torch.nn.CrossEntropyLoss()
engine = dpnorm.PrivacyEngine()
model, optimizer, loader = engine.make_private(
    module=model,
    optimizer=torch.optim.SGD(model.parameters(), lr=0.5),
    data_loader=DataLoader(TensorDataset(data.train.x, data.train.y), batch_size=128),
    noise_multiplier=1.5,
    max_grad_norm=1.0,
    statistics_noise_ratio=4.0,
    criterion=criterion,
    grad_sample_mode="lean",
    weights_origin="random",
    statistics_origin="random",
    seed=0,
)
for _ in range(5):
    for inputs, targets in loader:
        optimizer.zero_grad()
        criterion(model(inputs), targets).backward()
        optimizer.step()

statement = engine.statement(delta=1e-4)
for release in statement.releases:
    print(f"{release.noise_multiplier:.3f} times its clipping length: {release.name}")
print(f"{statement.noise_multiplier:.3f} together, which gives epsilon {statement.epsilon:.2f}")
noises = [release.noise_multiplier for release in statement.releases]
assert abs(joint_noise(*noises) - statement.noise_multiplier) < 1e-6

# %% [markdown]
# What does the layer know by now? We hold the data and may look: here are the released statistics
# of the first layer against the exact ones of all training records, channel by channel. They follow
# at some distance: there is noise in them, and they lag behind weights that move. (The exact ones
# are private, and so is this plot. It is here for the lesson.)

# %%
network_inside = next(iter(model.children()))  # of the wrapper that the engine returned
convolution, normalization = network_inside[:2]
with torch.no_grad():
    seen = convolution(data.train.x)
exact = {"mean": seen.mean((0, 2, 3)), "standard deviation": seen.std((0, 2, 3))}
released = {
    "mean": normalization.statistics.running_mean,
    "standard deviation": normalization.statistics.running_var.sqrt(),
}
with style("statistics"):
    figure, row = plt.subplots(1, 2, figsize=(7.6, 3.6), layout="constrained", facecolor="white")
    for axes, (name, value) in zip(row, exact.items(), strict=True):
        axes.plot(value, released[name], "o", color=look("private-batch").light)
        both = torch.cat([value, released[name]])
        ends = float(both.min()) - 0.03, float(both.max()) + 0.03
        axes.plot(ends, ends, color="0.6", linewidth=1, zorder=1)
        axes.set(title=name, xlabel="exact", ylabel="released", xlim=ends, ylim=ends)
        axes.set_aspect("equal")
    plt.show()

error = (released["mean"] - exact["mean"]).abs() / exact["standard deviation"]
print(f"the means are off by {float(error.median()):.2f} standard deviations (median)")
assert error.median() < 0.5

# %% [markdown]
# ## Beside GroupNorm
#
# `dpnorm.train` has the loop, the account and the evaluation in one call. Both variants spend the
# same epsilon; each is trained from three seeds, since a single training says little.

# %%
config = dpnorm.TrainConfig(epochs=10, batch_size=128, lr=0.5, grad_sample_mode="lean")
found = {
    variant: [
        dpnorm.train(
            network(variant, seed),
            data,
            config,
            dpnorm.PrivacyConfig(epsilon=3.0, delta=1e-4, seed=seed),
            weights_origin="random",
            statistics_origin="random",
        )
        for seed in range(3)
    ]
    for variant in ("private-batch", "group")
}
with style("training"):
    figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained", facecolor="white")
    for variant, runs in found.items():
        spent = runs[0].history.column("epsilon")
        accuracy = 100 * np.array([run.history.column("accuracy") for run in runs])
        colour, marker = look(variant).light, look(variant).marker
        axes.fill_between(spent, accuracy.min(0), accuracy.max(0), color=colour, alpha=0.18, lw=0)
        axes.plot(spent, accuracy.mean(0), color=colour, marker=marker, label=variant)
    axes.set(xlabel="epsilon spent so far", ylabel="accuracy on test records (%)")
    axes.legend(loc="lower right", title="mean and range of the seeds", alignment="left")
    plt.show()

for variant, runs in found.items():
    shown = ", ".join(f"{run.accuracy:.3f}" for run in runs)
    print(f"{variant:13} accuracy {shown}; epsilon {runs[0].statement.epsilon:.2f}")
    assert all(run.statement.epsilon <= 3 for run in runs)

# %% [markdown]
# ## What the statement says
#
# Both releases are covered, the account is that of both together, and the list of what is *not*
# covered is a part of the guarantee.

# %%
print(found["private-batch"][0].statement)

# %% [markdown]
# docs/privacy.md says how the statistics are clipped and averaged, and what the layer costs.
