"""dpnorm why."""

import typer

from dpnorm.errors import DpnormError


def why(topic: str | None = typer.Argument(None, help="A topic.")) -> None:
    """Runnable answers about normalization and DP-SGD (not in this version)."""
    raise DpnormError("why: the runnable answers are not part of this version")
