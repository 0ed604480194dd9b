"""Who may be trained privately: what check proves, and more only where it is allowed."""

from typing import Literal

from dpnorm.detection import UNDECIDED, Report, Verdict
from dpnorm.errors import RefusedError, unknown_name

Allow = Literal["unproven", "refuted"] | None
ALLOWED = ("unproven", "refuted")


def require_allowed(allow: Allow) -> None:
    """Raises an InputError for what `allow` cannot be."""
    if not (allow is None or allow in ALLOWED):
        raise unknown_name("allow", allow, ALLOWED)


def require_admitted(report: Report, allow: Allow) -> None:
    """Refuses a model that is not proven, unless it is allowed all the same.

    Raises:
        InputError: `allow` is none of its values.
        RefusedError: with the worst finding and its remedy.
    """
    require_allowed(allow)
    allowed = {None: [Verdict.PROVEN], "unproven": [Verdict.PROVEN, Verdict.UNPROVEN]}
    if report.verdict in allowed.get(allow, list(Verdict)):
        return
    doubts = [f for f in report.findings if f.witness is not None or f.code in UNDECIDED]
    worst = max(doubts, key=lambda f: f.witness or 0.0)
    hint = (
        "" if report.verdict == Verdict.REFUTED else " To train it all the same: allow='unproven'."
    )
    raise RefusedError(
        f"refused: {report.model} is {report.summary()}; {worst.path or 'the model'} "
        f"({worst.code}) {worst.message}. {worst.remedy}{hint}"
    )
