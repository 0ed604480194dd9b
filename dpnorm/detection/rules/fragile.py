"""DPN4xx: safe as it is, and easily broken."""

from dpnorm.detection.rules.registry import Rule, register

register(
    Rule(
        "DPN402",
        "safe on this sample, coupled where a target is ignored",
        "The loss divides by the number of targets that are not ignored. On these targets it is "
        "the batch size; where padding or a missing label is ignored it depends on the records.",
        "nn.CrossEntropyLoss(ignore_index=0)",
        "Divide by a constant: reduction='sum' with loss_reduction='sum'.",
        "docs/limits.md",
    )
)
register(
    Rule(
        "DPN401",
        "safe now, coupled after .train()",
        "A BatchNorm in evaluation mode normalizes with constants. One call of model.train() "
        "makes it couple all records again, and Opacus does not notice when its parameters are "
        "frozen.",
        "model.bn1.eval()  # and later, in the training loop: model.train()",
        "Convert the layer to one that has no other mode: dpnorm.convert(model, to='frozen').",
        "Ioffe and Szegedy, arXiv 1502.03167",
    )
)
