"""DPN4xx: safe as it is, and easily broken."""

from dpnorm.detection.rules.registry import Rule, register

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
