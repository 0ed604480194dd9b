"""dpnorm why."""

from pathlib import Path

import typer

from dpnorm.errors import InputError, unknown_name


def why(
    topic: str | None = typer.Argument(None, help="A topic; without one all are listed."),
    plots: Path | None = typer.Option(
        None, metavar="DIR", help="Write the topic's plots into this folder."
    ),
    format: str = typer.Option("text", metavar="FORMAT", help="text, markdown or html."),
) -> None:
    """Answer a question about normalization and DP-SGD by an experiment that runs now.

    Exit code 0: the experiment shows what the answer says; 1: it does not.
    """
    from dpnorm.explain import FORMS, answer, topics

    if format not in FORMS:
        raise unknown_name("format", format, FORMS)
    if topic is None and plots is not None:
        raise InputError("--plots needs a topic: name one of those that `dpnorm why` lists")
    if topic is None:
        known = topics()
        width = max(map(len, known))
        for name, question in known.items():
            print(f"{name:{width}}  {question}")
        return
    found = answer(topic)
    saved = found.save_plots(plots) if plots is not None else {}
    print(found.render(format, plots=saved), end="")
    if not found.holds:
        raise typer.Exit(1)
