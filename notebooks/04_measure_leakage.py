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
# # Measure what leaks
#
# An epsilon is a promise: an upper bound on what anybody can learn about one record, whatever the
# record and whatever the attack. What an attacker learns in fact can be measured. Both belong
# together: a small epsilon is worth nothing if it is not true, and an attack that fails proves
# nothing.
#
# The tool is a **pool**: many models, each trained on a random half of the records. For each record
# some models have seen it and others have not, by the toss of a coin, and every question about
# leakage becomes a question about one table: who was in, and what each model says of each record.
#
# Some **outliers** are planted among the records: noise with random labels. Beyond chance, a model
# can only get such a label right by remembering it.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

import dpnorm
from dpnorm.figures import look, style
from dpnorm.leakage import (
    attack,
    audit_training,
    memorization,
    memorized_difference,
    one_run_epsilon,
    train_pool,
)

data = dpnorm.data.load("digits")  # small pictures of digits; ships with scikit-learn
plain = dpnorm.TrainConfig(epochs=8, batch_size=64, lr=0.05, momentum=0.9)
slow = dpnorm.TrainConfig(epochs=6, batch_size=128, lr=0.5, grad_sample_mode="lean")
privacy = dpnorm.PrivacyConfig(epsilon=3.0, delta=1e-4, seed=0)


def pool(variant, config, privacy=None):
    """Eight models; the same seed gives every pool the same halves and the same outliers."""

    def factory():
        return dpnorm.convert(dpnorm.models.build("lenet"), to=variant).model

    options = {"size": 8, "outliers": 50, "seed": 0, "workers": 1}
    return train_pool(factory, data, config, privacy=privacy, **options)


pools = {
    "batch": pool("batch", plain),
    "group": pool("group", plain),
    "none": pool("none", plain),
    "group, epsilon 3": pool("group", slow, privacy),
}
looks = {name: look(name) for name in pools}  # of the variant, and one for the private pool
looks["group, epsilon 3"] = look("private-batch")
for name, trained in pools.items():
    print(f"{name:17} accuracy {trained.accuracy.mean():.3f} (mean of {trained.models} models)")

# %% [markdown]
# ## Membership inference
#
# The attacker is given a model and a record, and says whether the record was in its training data.
# An attack is a *score*, higher for members; whoever scores above a threshold is called a member.
# The **true positive rate** is the share of members that are found, the **false positive rate** the
# share of the others that are accused. The **AUC** is the probability that a member scores higher
# than another: 0.5 is guessing.
#
# The `loss` attack scores a record by its loss. `lira` (Carlini et al., arXiv 2112.03570) compares
# what the model says of the record with what models say that saw it, and models that did not.

# %%
scores = {name: {kind: attack(p, kind) for kind in ("loss", "lira")} for name, p in pools.items()}
print(f"{'AUC, 95% interval':17} {'loss':21} {'lira':21} lira, outliers alone")
for name, both in scores.items():
    strange = both["lira"].on(both["lira"].outlier)
    print(f"{name:17} {both['loss'].auc!s:21} {both['lira'].auc!s:21} {strange.auc}")
assert all(scores[name]["lira"].auc.low > 0.5 for name in ("batch", "group", "none"))

# %% [markdown]
# An average hides what matters. A few people who are found with certainty are harmed more than all
# of them found with a shrug, and these few stand at the left end of the ROC curve, where hardly
# anybody is accused wrongly. That is why both axes are logarithmic. The bands are 95% intervals,
# which resample models and records.


# %%
def draw_roc(axes, records, rates):
    for name, both in scores.items():
        found = [both["lira"].on(records).tpr_at_fpr(rate) for rate in rates]
        low, high = [e.low for e in found], [e.high for e in found]
        colour, marker = looks[name].light, looks[name].marker
        axes.fill_between(rates, np.maximum(low, 1e-4), high, color=colour, alpha=0.15, lw=0)
        axes.plot(rates, [e.value for e in found], color=colour, marker=marker, label=name)
    axes.plot(rates, rates, color="0.3", linestyle="--", linewidth=1, label="guessing")
    axes.set(xscale="log", yscale="log", xlim=(rates[0], 1), ylim=(rates[0] / 2, 1.1))
    axes.set(xlabel="false positive rate", ylabel="true positive rate")


outlier = pools["batch"].outlier
with style("roc"):
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9, 4), layout="constrained", facecolor="white"
    )
    draw_roc(left, ~outlier, np.geomspace(0.003, 1, 9))
    draw_roc(right, outlier, np.geomspace(0.01, 1, 9))
    left.set_title("lira on the digits")
    right.set_title("lira on the planted outliers")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    plt.show()

for name, both in scores.items():
    print(f"{name:17} outliers found at 1% FPR: {both['lira'].on(outlier).tpr_at_fpr(0.01)}")
first = scores["batch"]["lira"].on(outlier).auc
assert first.low > scores["batch"]["lira"].auc.high  # outliers are told better than the rest
assert first.low > scores["group, epsilon 3"]["lira"].on(outlier).auc.high

# %% [markdown]
# ## Memorization
#
# How much more often does a model get a record's label when it has seen the record? For an outlier
# that difference is what the model remembers (Feldman and Zhang, arXiv 2008.03703).

# %%
remembered = {name: memorization(trained) for name, trained in pools.items()}
with style("memorization"):
    figure, axes = plt.subplots(figsize=(6.4, 2.6), layout="constrained", facecolor="white")
    for place, (name, found) in enumerate(remembered.items()):
        share = found.outliers
        sides = [[100 * (share.value - share.low)], [100 * (share.high - share.value)]]
        axes.errorbar(
            [100 * share.value], [place], xerr=sides, color=looks[name].light,
            marker=looks[name].marker, capsize=4, markersize=8,
        )  # fmt: skip
    axes.axvline(0, color="0.3", linestyle="--", linewidth=1)
    axes.set(yticks=range(len(pools)), yticklabels=pools, ylim=(3.6, -0.6))
    axes.set(xlabel="outliers memorized (%), with 95% intervals")
    axes.grid(visible=False, axis="y")
    plt.show()

for other in ("none", "group", "group, epsilon 3"):
    more = memorized_difference(remembered["batch"], remembered[other])
    print(f"batch memorizes more than {other + ' by':20} {more}")
for variant in ("batch", "group"):
    assert memorized_difference(remembered[variant], remembered["none"]).low > 0
assert memorized_difference(remembered["group"], remembered["group, epsilon 3"]).low > 0

# %% [markdown]
# Read the intervals. BatchNorm remembers more outliers than no normalization does, and so does
# GroupNorm: it is no cure for memorization. What GroupNorm has, and BatchNorm has not, is that
# DP-SGD may train it, and that is what makes the difference. It is not free (the accuracy above),
# and it promises little leakage, not none: the table shows what the plain `loss` attack still finds
# at this epsilon.
#
# ## A lower bound on epsilon
#
# An *audit* turns guesses into a number that can be held against the claim. *Canaries* are put into
# one training, each by the toss of a coin, and an auditor who sees what the training releases says
# of some of them whether they were in. If many of the guesses are right, epsilon cannot be small
# (Steinke et al., arXiv 2305.08846). How many are guessed is fixed before.

# %%
torch.manual_seed(0)
model = dpnorm.convert(dpnorm.models.build("lenet"), to="group").model
audit = audit_training(model, data, slow, privacy, canaries=1000)
print(audit)
assert not audit.exceeded

# %% [markdown]
# The bound of such an audit has a *ceiling*, the most that so many guesses can show. It is never
# evidence that a training is safe.

# %%
seen = audit.white_box
options = {"delta": seen.delta, "confidence": 1 - (1 - seen.confidence) / 2}  # of two plans
right = np.arange(seen.guesses // 2, seen.guesses + 1)
bounds = [float(one_run_epsilon(int(v), seen.guesses, seen.canaries, **options)) for v in right]
with style("audit"):
    figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained", facecolor="white")
    axes.plot(right, bounds, color=look("group").light, label="lower bound")
    axes.plot(
        [seen.correct], [seen.value], "o", color=look("batch").light, markersize=9, zorder=3,
        label="this audit",
    )  # fmt: skip
    axes.axhline(audit.claimed, color="0.3", linestyle="--", linewidth=1, label="claimed")
    axes.set(xlabel=f"right guesses of {seen.guesses}, {seen.canaries} canaries", ylabel="epsilon")
    axes.legend(loc="upper left")
    plt.show()

print(f"half of the guesses right show epsilon >= {bounds[0]:.2f}, all of them {bounds[-1]:.2f}")
assert bounds[0] == 0
assert bounds[list(right).index(seen.correct)] == seen.value

# %% [markdown]
# From a command line: `dpnorm pool`, `dpnorm attack`, `dpnorm audit`. With larger pools, other data
# and more variants: docs/leakage.md.
