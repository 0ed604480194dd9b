# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Train a BatchNorm with private statistics
#
# BatchNorm is refused under DP-SGD since it normalizes by statistics of the batch. The variant
# `private-batch` normalizes by statistics that were *released*: at each step the batch gives a
# noisy sum of clipped gradients, and beside it a noisy sum of what each record says of the
# statistics, clipped too. The layer uses them from the next step on, where they are constants.

# %%
import matplotlib.pyplot as plt
import torch

import dpnorm

data = dpnorm.data.load("digits")
torch.manual_seed(0)
model = dpnorm.convert(dpnorm.models.build("lenet"), to="private-batch").model
report = dpnorm.check(model, data.public.x[:8])
print(report.summary())
assert report.ok

# %% [markdown]
# Both sums come from one draw of the batch, so that they are counted as one release. With noise
# multipliers a of the gradients and b of the statistics the two together tell as much as one
# release with the noise multiplier
#
#     total = (a^-2 + b^-2)^(-1/2)
#
# `noise_multiplier` is this total; `statistics_noise_ratio` is b / a.

# %%
from dpnorm.privacy import split_noise

for ratio in (1.0, 2.0, 4.0, 8.0):
    gradients, statistics = split_noise(1.0, ratio)
    total = (gradients**-2 + statistics**-2) ** -0.5
    print(f"ratio {ratio:g}: {gradients:.3f} and {statistics:.3f}, total {total:.3f}")
    assert abs(total - 1) < 1e-9

# %% [markdown]
# A training: what is left open is chosen for the size of the data. The seed makes noise that can be
# repeated, which is for experiments only, and the statement says so.

# %%
privacy = dpnorm.PrivacyConfig(epsilon=3.0, delta=1e-4, seed=0)
found = {}
for variant in ("private-batch", "group"):
    torch.manual_seed(0)
    network = dpnorm.convert(dpnorm.models.build("lenet"), to=variant).model
    found[variant] = dpnorm.train(network, data, privacy=privacy)
    history = found[variant].history
    plt.plot(
        [row["epsilon"] for row in history], [row["accuracy"] for row in history], label=variant
    )
plt.xlabel("epsilon spent so far")
plt.ylabel("accuracy on test records")
plt.legend()
plt.show()
for variant, trained in found.items():
    print(f"{variant:14} accuracy {trained.accuracy:.3f}, epsilon {trained.statement.epsilon:.2f}")
assert all(trained.statement.epsilon <= 3 for trained in found.values())

# %%
print(found["private-batch"].statement)

# %% [markdown]
# What goes wrong where statistics and gradients are counted as steps of their own: `dpnorm why
# private-statistics`.
