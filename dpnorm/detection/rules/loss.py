"""DPN3xx: losses that couple records."""

from dpnorm.detection.rules.registry import Rule, register

register(
    Rule(
        "DPN302",
        "normalized by a data-dependent count or weight",
        "The loss of a record is divided by a number that depends on the other records: the sum of "
        "the class weights of the batch, the number of targets that are not ignored, the number of "
        "tokens. The gradient of each record is scaled by it.",
        "F.cross_entropy(output, targets, ignore_index=0)  # where some targets are 0",
        "Divide by a constant: reduction='sum' with loss_reduction='sum', or per-record means.",
        "Abadi et al., arXiv 1607.00133",
    )
)
register(
    Rule(
        "DPN303",
        "the reduction and loss_reduction disagree",
        "Opacus multiplies the gradients of a mean loss by the batch size. Told 'mean' of a loss "
        "that sums, or 'sum' of one that averages, it scales every gradient by the number of "
        "records before it clips.",
        "criterion = nn.CrossEntropyLoss(reduction='sum')  # with loss_reduction='mean'",
        "Pass the loss_reduction that the criterion has, to check and to the engine.",
        "Opacus 1.6.0, grad_sample/grad_sample_module.py",
    )
)
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
