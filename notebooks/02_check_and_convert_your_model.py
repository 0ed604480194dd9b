# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Check and convert your model
#
# A BatchNorm in training mode couples the records of a batch: exchanging the other records moves
# what a record contributes. `dpnorm.check` measures it, and `dpnorm.convert` swaps the layers.

# %%
import matplotlib.pyplot as plt
import torch

import dpnorm

data = dpnorm.data.load("digits")
torch.manual_seed(0)
model = dpnorm.models.build("lenet")
report = dpnorm.check(model, data.public.x[:8])
print(report)

# %% [markdown]
# Train the network as it is, on public terms, and convert it without any data. The scale and shift
# of each GroupNorm are set from BatchNorm's running statistics, so that the function is kept.

# %%
trained = dpnorm.train(model, data, dpnorm.TrainConfig(epochs=10, lr=0.05))
print(f"BatchNorm: {trained.accuracy:.3f}")
kept = {}
for variant in ("frozen", "group", "layer"):
    for init in ("match", "reset"):
        converted = dpnorm.convert(trained.model, to=variant, init=init).model
        kept[variant, init] = dpnorm.training.accuracy(converted, data.test)
        print(f"{variant:8} {init:6} {kept[variant, init]:.3f}")

# %%
for init in ("match", "reset"):
    plt.plot([kept[v, init] for v in ("frozen", "group", "layer")], "o-", label=f"init={init}")
plt.axhline(trained.accuracy, color="0.5", linestyle="--", label="BatchNorm, as trained")
plt.xticks(range(3), ("frozen", "group", "layer"))
plt.ylim(0, 1.02)
plt.ylabel("accuracy on test records")
plt.legend()
plt.show()
assert kept["group", "match"] > kept["group", "reset"] + 0.05

# %% [markdown]
# In the converted network no record moves another, and it trains privately. Here it starts from
# fresh weights: the ones above were trained on the same records without privacy, and no epsilon of
# a later training would cover what they hold.

# %%
group = dpnorm.convert(model, to="group").model
print(dpnorm.check(group, data.public.x[:8]).summary())
config = dpnorm.TrainConfig(epochs=10, batch_size=128, lr=0.5, momentum=0.0)
private = dpnorm.train(group, data, config, dpnorm.PrivacyConfig(epsilon=3.0, delta=1e-4))
print(f"private: {private.accuracy:.3f}")
print(private.statement)
