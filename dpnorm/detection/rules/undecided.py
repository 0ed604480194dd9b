"""DPN9xx: what could be neither proven nor refuted."""

from dpnorm.detection.rules.registry import Rule, register

register(
    Rule(
        "DPN901",
        "an operator without a rule",
        "Which elements of its output depend on which of its input is not known, so they are taken "
        "to depend on all. That forbids a proof and is no refutation.",
        "torch.ops.my_library.my_operator(x)",
        "Use operators of torch, or report the operator's name to dpnorm.",
        "docs/limits.md",
    )
)
register(
    Rule(
        "DPN902",
        "mixed by a conservative rule, and no witness found",
        "The masks say that records may mix, and exchanging records moved nothing. The rule may "
        "say too much, or the probes may not excite the coupling. It fails closed.",
        "x + 0 * x.mean(0)  # mixes by its form, moves nothing",
        "Rewrite the place that the finding names so that dimension 0 is never reduced.",
        "docs/limits.md",
    )
)
