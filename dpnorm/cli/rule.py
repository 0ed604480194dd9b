"""dpnorm rule."""

import typer


def rule(code: str | None = typer.Argument(None, help="A finding's code, such as DPN101.")) -> None:
    """Explain one finding code, or list all of them."""
    from dpnorm.detection import rule as find
    from dpnorm.detection import rules

    if code is None:
        for entry in rules().values():
            print(f"{entry.code}  {entry.title}")
    else:
        print(find(code.upper()).page(), end="")
