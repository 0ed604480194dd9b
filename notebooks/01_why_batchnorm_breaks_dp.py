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
# # Why BatchNorm breaks differential privacy
#
# **Differential privacy** is a promise to everybody whose *record* (one training example) is in a
# data set: whoever sees the trained model can hardly tell whether it was there. *Hardly* is a
# number, **epsilon**: with the record or without it, the probability of any result differs by a
# factor of at most e^epsilon. A second number, **delta**, is the small probability with which the
# promise may fail.
#
# **DP-SGD** keeps the promise in each step of the training:
#
# 1. it finds the gradient of each record's loss,
# 2. *clips* each: one that is longer than C is scaled down to the length C,
# 3. adds them up, and adds Gaussian noise in proportion to C.
#
# One record more adds one clipped gradient to the sum, which moves it by at most C, and the noise
# is made to hide a movement of C. All of it rests on an assumption that is easily overlooked: one
# record more leaves the gradients of the *others* alone. Let us look.

# %%
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from IPython.display import Markdown, display
from torch import nn

import dpnorm
from dpnorm.figures import look, style

C = 1.0


def network(norm):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))


def gradients(model, x, y):
    """One row a record: the gradient of its loss, in a batch with the others."""
    rows = []
    for loss in F.cross_entropy(model(x), y, reduction="none"):
        parts = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows)


def clipped_sum(rows):
    lengths = rows.norm(dim=1, keepdim=True)
    return (rows * (C / lengths).clamp(max=1)).sum(0)


# %% [markdown]
# ## One record more
#
# The batch is handwritten digits, which ship with scikit-learn. The record that is added is a
# stranger: random pixels, fainter or brighter than those of a digit. We compute every gradient
# without the stranger and with it, once with BatchNorm and once with GroupNorm.

# %%
data = dpnorm.data.load("digits")
x, y = data.train.x[:32], data.train.y[:32]
stranger = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
brightness = (1, 2, 3, 5, 7, 10, 15, 20, 30)  # pixels of digits are between -1 and 1
SHOWN = 10  # of which the left plot is

moved_rows, moved_sum = {}, {}
for name, norm in {"batch": nn.BatchNorm2d(8), "group": nn.GroupNorm(2, 8)}.items():
    model = network(norm)
    without = gradients(model, x, y)
    moved_sum[name] = []
    for factor in brightness:
        added = torch.cat([x, factor * stranger]), torch.cat([y, y[:1]])
        rows = gradients(model, *added)
        moved_sum[name].append(float((clipped_sum(rows) - clipped_sum(without)).norm()) / C)
        if factor == SHOWN:
            others = rows[: len(x)]
            moved_rows[name] = (others - without).norm(dim=1) / without.norm(dim=1)

with style("movements"):
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9, 3.4), layout="constrained", facecolor="white"
    )
    for name in moved_sum:
        drawn = {"color": look(name).light, "marker": look(name).marker, "label": f"{name} norm"}
        left.plot(100 * moved_rows[name], linestyle="none", **drawn)
        right.plot(brightness, moved_sum[name], **drawn)
    right.axhline(1, color="0.1", linestyle="--", linewidth=1, zorder=3, label="what noise hides")
    left.set(title=f"The others' gradients, at brightness {SHOWN}", xlabel="record")
    left.set(ylabel="movement (% of its length)")
    right.set(title="The sum of clipped gradients", xlabel="brightness of the added record")
    right.set(xscale="log", xticks=brightness, xticklabels=brightness)
    right.set(ylabel="movement in units of C", ylim=(0, None))
    right.minorticks_off()
    right.legend()
    plt.show()

for name in moved_sum:
    print(
        f"{name} norm: the others' gradients move by {float(moved_rows[name].mean()):.2%} of their "
        f"length, the sum by up to {max(moved_sum[name]):.2f} C"
    )
assert moved_rows["group"].max() < 1e-5 < 0.1 < moved_rows["batch"].min()
assert max(moved_sum["group"]) < 1 + 1e-5 < min(moved_sum["batch"])

# %% [markdown]
# GroupNorm normalizes each record by its own mean and variance. The stranger adds its clipped
# gradient, whatever its brightness: the sum moves by C and no further.
#
# BatchNorm normalizes each record by the mean and the variance of *all* records of the batch. The
# stranger changes both, and through them every other record's activations, loss and gradient. Each
# gradient is clipped, its movement is not, and all of them add up. Nothing bounds the sum by C.
#
# ## What that costs in epsilon
#
# `dpnorm.explain.answer` runs such an experiment on a larger network, with the gradients that
# Opacus clips, and turns the movement into the epsilon of these two datasets. The *accountant* is
# the code that computes the epsilon that is reported. It knows the noise, and not the model.


# %%
def show(answer, *pictures):
    assert answer.holds  # the run showed all that its text says
    display(Markdown("\n\n".join(answer.parts[part] for part in ("The experiment", "The numbers"))))
    for picture in answer.measured.pictures:
        if picture.key in pictures:
            with style(picture.key):
                figure = picture.draw()
                figure.set(facecolor="white", size_inches=(5.2, 3.2))
                display(figure)
    display(Markdown(answer.parts["What they mean"]))


show(dpnorm.explain.answer("coupling"))

# %% [markdown]
# ## "But the noise is added after all that"
#
# Why should a computation *before* the noise matter? Because noise hides what is small beside it,
# and nothing else. The next experiment plays a game: somebody tosses a coin, publishes the noisy
# sum with the record or without it, and an observer says which it was.

# %%
show(dpnorm.explain.answer("before-noise"), "batch", "group")

# %% [markdown]
# ## The second leak
#
# BatchNorm in training also keeps a *running mean* and a *running variance* of what it has seen,
# and they are saved with the model. They are no gradients: DP-SGD neither clips them nor adds noise
# to them. In the next game all weights are fixed, and the observer sees these two buffers alone.

# %%
show(dpnorm.explain.answer("running-stats"), "batch")

# %% [markdown]
# ## Finding it in a model
#
# `dpnorm.check` follows each record through forward, loss and backward, and says where one of them
# reaches another's gradient or a buffer.

# %%
for norm in (nn.BatchNorm2d(8), nn.GroupNorm(2, 8)):
    report = dpnorm.check(network(norm), x, targets=y, criterion=F.cross_entropy)
    print(f"{type(norm).__name__:12} {report.summary()}")
    assert report.ok == isinstance(norm, nn.GroupNorm)

# %% [markdown]
# The next notebook goes on from here. `dpnorm why` lists all questions with an experiment, among
# them `dataset-normalization`: a data set that is normalized by its own mean has the same problem.
