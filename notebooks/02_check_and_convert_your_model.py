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
# # Check and convert your model
#
# DP-SGD clips the gradient of each record to a length C and adds noise in proportion to C. Its
# privacy guarantee, a pair (epsilon, delta), holds if each record's contribution to the step is its
# own. A model in which one record moves another's gradient, or a buffer that is saved, *couples*
# its records, and the epsilon that is reported for it is not true (notebook 01 shows why).
#
# `dpnorm.check` looks for coupling. It runs forward, loss and backward on a few records and follows
# which numbers depend on which of them. There are three verdicts:
#
# - **proven**: on the path that was executed each record's contribution is its own;
# - **refuted**: it is not, and there is a *witness*, a measured change that can be seen again;
# - **unproven**: neither. Treat it as refuted.

# %%
import dataclasses

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from IPython.display import Markdown, display
from opacus.validators import ModuleValidator
from torch import nn

import dpnorm
from dpnorm.figures import look, style
from dpnorm.privacy import epsilon_spent

data = dpnorm.data.load("digits")  # small pictures of digits; ships with scikit-learn
records = data.public.x[:8]  # any records of the right shape will do
loss = {"targets": data.public.y[:8], "criterion": F.cross_entropy}

torch.manual_seed(0)
lenet = dpnorm.models.build("lenet")  # a convolutional network with BatchNorm
report = dpnorm.check(lenet, records, **loss)
assert report.verdict == "refuted"
display(Markdown(report.render("markdown")))

# %% [markdown]
# ## It is not about names
#
# Here is a layer of our own that subtracts the mean over the batch. Opacus's validator looks at the
# classes of modules and has nothing against it. `check` looks at what they do.


# %%
class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


torch.manual_seed(0)
centred = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), Centred(), nn.ReLU(), nn.Linear(32, 10))
print("Opacus's validator complains of:", ModuleValidator.validate(centred) or "nothing")
report = dpnorm.check(centred, records, **loss)
display(Markdown(report.render("markdown")))
assert ModuleValidator.is_valid(centred)
assert not report.ok

# %% [markdown]
# ## How far one record moves the step
#
# `dpnorm.sensitivity` tries strange records and measures how far one of them moves the sum of
# clipped gradients, in units of C. At most 1 is what the noise is made for. From the movement
# follows the exact epsilon of the two datasets, with the record and without it, for one step on all
# records. Where a buffer moves that is saved without noise, no epsilon is finite.

# %%
group = dpnorm.convert(lenet, to="group").model
claimed = epsilon_spent(
    noise_multiplier=2.0, sampling_rate=1.0, steps=1, delta=1e-5, accountant="prv"
)
print(f"the accountant says, of every model: epsilon {claimed:.2f}\n")
for name, model in {"BatchNorm": lenet, "Centred": centred, "GroupNorm": group}.items():
    found = dpnorm.sensitivity(model, data.public.x[:64], data.public.y[:64], F.cross_entropy)
    epsilon = found.epsilon(noise_multiplier=2.0, delta=1e-5)
    print(f"{name:10} moves the sum by {found.ratio:5.2f} C, exact epsilon {epsilon:.2f}")
    assert (epsilon > claimed) == (model is not group)

# %% [markdown]
# ## Convert
#
# `dpnorm.convert` returns a copy with other layers in the place of BatchNorm. What the network has
# learned need not be lost. BatchNorm's running mean and variance say what the new layer will see,
# and with `init="match"` its scale and shift are set so that the network computes nearly what it
# did, without any data. Opacus's own fix begins with scale 1 and shift 0, which is `init="reset"`.
#
# The network below has learned from public records, which need no protection.

# %%
public = dataclasses.replace(data, train=data.public)
config = dpnorm.TrainConfig(epochs=40, batch_size=20, lr=0.1)
learned = dpnorm.train(lenet, public, config)
print(f"{len(data.public)} public records: accuracy {learned.accuracy:.3f}\n")
print(dpnorm.convert(learned.model, to="group", statistics_origin="public"))

# %%
variants = ("group", "layer", "rms", "instance", "weight-standardized")
kept = {
    init: [
        100 * dpnorm.convert(learned.model, to=v, init=init).fidelity(data.test.x).agreement
        for v in variants
    ]
    for init in ("match", "reset")
}
with style("fidelity"):
    figure, axes = plt.subplots(figsize=(6.4, 2.8), layout="constrained", facecolor="white")
    axes.hlines(range(len(variants)), kept["reset"], kept["match"], color="0.75", linewidth=2)
    axes.plot(kept["match"], range(len(variants)), "o", color="#0b5fa5", label='init="match"')
    axes.plot(
        kept["reset"], range(len(variants)), "o", color="#c8500a", label='init="reset"', mfc="white"
    )
    axes.set(yticks=range(len(variants)), yticklabels=variants, xlim=(None, 100.5))
    axes.set(xlabel="test records that keep their predicted class (%)")
    axes.invert_yaxis()
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    plt.show()

for row in zip(variants, kept["match"], kept["reset"], strict=True):
    print("{:20} matched {:5.1f}%, reset {:5.1f}%".format(*row))
assert all(m > r for m, r in zip(kept["match"], kept["reset"], strict=True))

# %% [markdown]
# ## Train privately
#
# Now the private records, at a small epsilon. A network that begins with what public records taught
# it need not buy that from the budget. For comparison the same network from random weights. (The
# seed makes the noise repeatable. That is for experiments: whoever knows it can take the noise
# away, and the statement says so.)

# %%
privacy = dpnorm.PrivacyConfig(epsilon=1.0, delta=1e-4, seed=0)
starts = {
    "from the converted network": (dpnorm.convert(learned.model, to="group").model, 0.3, "public"),
    "from random weights": (group, 0.5, "random"),
}
trained = {}
for name, (model, lr, origin) in starts.items():
    assert dpnorm.check(model, records, **loss).ok
    config = dpnorm.TrainConfig(epochs=10, batch_size=128, lr=lr, grad_sample_mode="lean")
    trained[name] = dpnorm.train(model, data, config, privacy, weights_origin=origin)

with style("private"):
    figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained", facecolor="white")
    for name, colour in zip(trained, (look("group").light, look("none").light), strict=True):
        history = trained[name].history
        accuracy = [100 * value for value in history.column("accuracy")]
        axes.plot(history.column("epsilon"), accuracy, "o-", color=colour, label=name)
    axes.axhline(
        100 * learned.accuracy,
        color="0.3",
        linestyle="--",
        linewidth=1,
        label="public records only",
    )
    axes.set(xlabel="epsilon spent so far", ylabel="accuracy on test records (%)")
    axes.legend(loc="lower right")
    plt.show()

for name, result in trained.items():
    print(f"{name:26} accuracy {result.accuracy:.3f}, epsilon {result.statement.epsilon:.2f}")
    assert result.statement.epsilon <= privacy.epsilon

# %% [markdown]
# The statement of a private training says what is guaranteed and what is not.

# %%
print(trained["from the converted network"].statement)

# %% [markdown]
# From a command line: `dpnorm check TARGET`, `dpnorm convert TARGET --to group --diff`,
# `dpnorm train RECIPE.toml`. What a verdict does not say stands in docs/limits.md.
