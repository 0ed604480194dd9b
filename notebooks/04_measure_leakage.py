# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Measure what leaks
#
# An epsilon is a promise. What an attacker learns in fact can be measured: train many models,
# each on a random half of the records, and ask whether one can tell from a model which half it
# was.

# %%
import functools

import matplotlib.pyplot as plt

import dpnorm
from dpnorm.leakage import attack, memorization, one_run_epsilon, train_pool
from dpnorm.training.networks import build_network

data = dpnorm.data.load("digits")
config = dpnorm.TrainConfig(epochs=8, batch_size=64, lr=0.05, momentum=0.9)
pools = {
    variant: train_pool(
        functools.partial(build_network, "lenet", variant, data),
        data,
        config,
        size=8,
        outliers=50,  # strange records, planted: models remember those first
        seed=0,
    )
    for variant in ("batch", "none")
}

# %% [markdown]
# **Membership inference.** LiRA (Carlini et al., arXiv 2112.03570) compares what a model says of
# a record with what models say that saw it and models that did not. The curve shows how many
# members are found (TPR) at how many false alarms (FPR); guessing is the diagonal. What matters
# is the left end: few people found with certainty are harmed more than all of them found with a
# shrug.

# %%
for variant, pool in pools.items():
    scores = attack(pool, "lira")
    curve = scores.roc()
    auc = scores.auc
    plt.plot(
        curve.fpr,
        curve.tpr,
        label=f"{variant}: AUC {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f})",
    )
    print(f"{variant:6} TPR at 1% FPR: {scores.tpr_at_fpr(0.01)}")
    assert auc.low > 0.5
plt.plot([1e-3, 1], [1e-3, 1], color="0.6", linestyle="--", label="guessing")
plt.xscale("log")
plt.yscale("log")
plt.xlim(1e-3, 1)
plt.ylim(1e-3, 1)
plt.xlabel("false positive rate")
plt.ylabel("true positive rate")
plt.legend()
plt.show()

# %% [markdown]
# **Memorization.** The share of the planted outliers that models get right only when they were
# trained on them, with 95% intervals.

# %%
found = {variant: memorization(pool).outliers for variant, pool in pools.items()}
plt.bar(
    list(found),
    [e.value for e in found.values()],
    yerr=[[e.value - e.low for e in found.values()], [e.high - e.value for e in found.values()]],
    capsize=4,
)
plt.ylabel("memorized outliers")
plt.show()
for variant, share in found.items():
    print(f"{variant:6} {share.value:.2f} ({share.low:.2f} to {share.high:.2f})")

# %% [markdown]
# **From guesses to epsilon.** An auditor puts canaries into one training, each by the toss of a
# coin, and guesses afterwards which were in. Many right guesses prove a lower bound on epsilon
# (Steinke et al., arXiv 2305.08846); a bound has a ceiling, the most that so many guesses could
# have shown.

# %%
for correct in (50, 60, 80, 100):
    print(f"{correct} of 100 guesses right:", one_run_epsilon(correct, 100, 1000, delta=1e-5))
assert one_run_epsilon(50, 100, 1000, delta=1e-5).value == 0

# %% [markdown]
# The whole audit of a training of yours: `dpnorm audit TRAIN.toml`; pools that grow and outlive a
# kill: `dpnorm pool` and `dpnorm attack`.
