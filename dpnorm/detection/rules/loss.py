"""DPN3xx: losses that couple records."""

from dpnorm.detection.rules.registry import Rule, register

register(
    Rule(
        "DPN301",
        "the loss couples records",
        "Opacus takes the loss to be a mean (or sum) of per-record losses. Where the loss of one "
        "record depends on the others, so does its gradient, and clipping each gradient no longer "
        "bounds what one record does to their sum.",
        "F.cross_entropy(output, targets, weight=class_weights)  # divides by the batch's weights",
        "Use a loss that is a plain mean or sum over records of a function of each record.",
        "Abadi et al., arXiv 1607.00133",
    )
)
