# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Why BatchNorm breaks differential privacy
#
# **Differential privacy** promises a person whose record is in a training set: whoever sees the
# trained model can hardly tell whether it was there. **DP-SGD** keeps the promise step by step.
# It takes the gradient of each record alone, shortens it to at most a length C (*clipping*), adds
# the gradients up, and adds random noise that is large against C. One record more or less then
# moves the sum by at most C, and the noise hides a movement of C.
#
# All of it rests on one thing: that the gradient of a record is *its own*. Let us look.

# %%
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn

import dpnorm

data = dpnorm.data.load("digits")  # small pictures of digits; ships with scikit-learn
x, y = data.train.x[:33], data.train.y[:33]


def network(norm):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))


def gradient_of_first_record(model, records):
    """The gradient of the loss of record 0, in a batch of so many records."""
    model.zero_grad()
    F.cross_entropy(model(x[:records])[:1], y[:1]).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


# %% [markdown]
# The first record stays where it is. We only put other records beside it, one after the other, and
# watch *its* gradient.

# %%
moved = {}
for name, norm in {"BatchNorm": nn.BatchNorm2d(8), "GroupNorm": nn.GroupNorm(2, 8)}.items():
    model = network(norm)
    alone = gradient_of_first_record(model, 2)
    moved[name] = [
        float((gradient_of_first_record(model, n) - alone).norm() / alone.norm())
        for n in range(2, 34)
    ]
    plt.plot(range(2, 34), moved[name], label=name)
plt.xlabel("records in the batch")
plt.ylabel("movement of record 0's gradient / its length")
plt.legend()
plt.show()
assert max(moved["GroupNorm"]) < 1e-4 < 0.1 < max(moved["BatchNorm"])

# %% [markdown]
# BatchNorm divides each record by the mean and the spread of *all* of them, so that a record's
# gradient depends on its company. GroupNorm takes them within the record.
#
# Is that a flaw of the promise, or only of its proof? The next cell adds one record to a batch
# and measures how far the clipped sum moves. Noise was scaled for a movement of C at most;
# *epsilon* says how well the two cases can be told apart, small is private.

# %%
coupling = dpnorm.explain.answer("coupling")
assert coupling.holds
coupling

# %% [markdown]
# "But the noise is added *after* all that": the first question that people ask. It is added to
# the sum, and it hides what it is large enough to hide.

# %%
before_noise = dpnorm.explain.answer("before-noise")
assert before_noise.holds
before_noise

# %% [markdown]
# And there is a second leak without any gradient: BatchNorm's running mean and variance are written
# from the data, without noise, and are published with the model.

# %%
running = dpnorm.explain.answer("running-stats")
assert running.holds
running

# %% [markdown]
# `dpnorm.check` finds the layer, and whatever else does the same under another name; the next
# notebook starts from there. All questions: `dpnorm why`.

# %%
print(dpnorm.check(network(nn.BatchNorm2d(8)), x[:4]))
