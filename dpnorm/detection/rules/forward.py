"""DPN1xx: records that are coupled in the forward pass."""

from dpnorm.detection.rules.registry import Rule, register

_WHY_COUPLING = (
    "DP-SGD clips each record's gradient to a norm C and adds noise scaled to C, because adding "
    "or removing one record then moves the clipped sum by at most C. "
)

register(
    Rule(
        "DPN101",
        "batch statistics in a BatchNorm-family layer",
        _WHY_COUPLING
        + "A BatchNorm that uses batch statistics normalizes every record with the mean and "
        "variance of all of them: one record moves the activations, and so the gradients, of all "
        "others, and the sum moves by more than C. Its running statistics are written from the "
        "data as well, without noise.",
        "nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8))  # in training mode",
        "Convert the layer: dpnorm.convert(model, to='group').",
        "Ioffe and Szegedy, arXiv 1502.03167; Yu et al., arXiv 2102.12677",
    )
)
register(
    Rule(
        "DPN103",
        "records exchanged, permuted or mixed",
        _WHY_COUPLING
        + "A forward pass that shuffles, rolls or mixes the records gives a row the values of "
        "another record: the loss of one row then depends on two records.",
        "def forward(self, x):\n    return 0.7 * x + 0.3 * x[torch.randperm(len(x))]  # mixup",
        "Mix only within a record (several views of it), or mix public records in.",
        "Abadi et al., arXiv 1607.00133",
    )
)
register(
    Rule(
        "DPN104",
        "depends on the number of records",
        _WHY_COUPLING
        + "Where a record's output is scaled or shifted by the number of records in the batch, "
        "adding one moves what all others contribute.",
        "def forward(self, x):\n    return x / len(x)",
        "Divide by a constant, such as the expected batch size.",
        "Abadi et al., arXiv 1607.00133",
    )
)
register(
    Rule(
        "DPN105",
        "control flow on values of several records",
        _WHY_COUPLING
        + "A Python branch, loop, shape or number that comes from the records decides what happens "
        "to all of them. What Python does with the value cannot be followed, so even a use that "
        "concerns one record alone cannot be proven.",
        "if x.abs().max() > 10:\n    x = x / 10",
        "Decide record by record with tensor operators (torch.where), or by constants.",
        "docs/limits.md",
    )
)
register(
    Rule(
        "DPN102",
        "a reduction across records, written by hand or functional",
        _WHY_COUPLING
        + "A forward pass that averages, sums or normalizes along the record axis makes one "
        "record's output depend on the others, and no converter can exchange a layer for it.",
        "def forward(self, x):\n    return x - x.mean(0)",
        "Rewrite the forward pass so that dimension 0 is never reduced, for example with the mean "
        "over a record's own features.",
        "Abadi et al., arXiv 1607.00133",
    )
)
