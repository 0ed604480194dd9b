"""What a ROC curve says at its best threshold, and which low FPRs a group can resolve."""

import math

from dpnorm.leakage.ranking import Roc


def advantage(curve: Roc) -> float:
    """The membership advantage max (TPR - FPR) over all thresholds.

    Yeom et al. (arXiv 1709.01604) define TPR - FPR for one attack; the best threshold is chosen
    here on the targets it is judged on, so that null scores of n members and n non-members have
    about 0.63 sqrt(2 / n), not 0.
    """
    return float((curve.tpr - curve.fpr).max())


def balanced_accuracy(curve: Roc) -> float:
    """The balanced accuracy max (TPR + 1 - FPR) / 2 over all thresholds: (1 + advantage) / 2."""
    return (1 + advantage(curve)) / 2


def needed_others(fpr: float) -> int:
    """The fewest non-members that can show an FPR of `fpr`: 1 / fpr, rounded up.

    >>> needed_others(0.001), needed_others(0.3)
    (1000, 4)
    """
    return math.ceil(1 / fpr - 1e-9)
