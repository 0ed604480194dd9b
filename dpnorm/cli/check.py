"""dpnorm check."""

import sys
from typing import TYPE_CHECKING

import typer

from dpnorm.cli.target import build_target, random_inputs, shape_for

if TYPE_CHECKING:
    from dpnorm.detection import Report

_EXPLAINED = ("table", "markdown")


def check(
    targets: list[str] = typer.Argument(
        metavar="TARGET",
        help="Models: lenet, tv:resnet18, timm:NAME or package.module:factory.",
    ),
    input: str | None = typer.Option(
        None, metavar="SHAPE", help="Input shape, batch first: 4,3,224,224."
    ),
    num_classes: int = typer.Option(10, min=1, metavar="N", help="Columns of the output."),
    loss: str | None = typer.Option(
        None, metavar="NAME", help="Judge this loss too: cross-entropy."
    ),
    eval: bool = typer.Option(False, "--eval", help="Judge the models in evaluation mode."),
    seed: int = typer.Option(0, min=0, metavar="N", help="Of the random records."),
    format: str = typer.Option(
        "table", metavar="FORMAT", help="table, concise, json, sarif, markdown or github."
    ),
    select: str | None = typer.Option(
        None,
        metavar="CODES",
        help="Show only these findings: DPN101,DPN5. Verdict and exit code count all.",
    ),
    ignore: str | None = typer.Option(
        None,
        metavar="CODES",
        help="Do not show these findings. Verdict and exit code count all.",
    ),
    explain: bool = typer.Option(
        False, "--explain", help="Then print the page of each rule that was found."
    ),
) -> None:
    """Does each record's contribution to a training step belong to that record alone?

    Exit code 0: proven. 1: refuted or unproven. 2: bad usage. Of several targets, the worst.
    """
    from dpnorm.detection.rendering import (
        FORMS,
        colour_table,
        parse_codes,
        render_all,
        view_of,
    )
    from dpnorm.errors import DpnormError, InputError, unknown_name

    if format not in FORMS:
        raise unknown_name("format", format, FORMS)
    if loss not in (None, "cross-entropy"):
        raise unknown_name("loss", loss, ["cross-entropy"])
    if explain and format not in _EXPLAINED:
        raise InputError(f"--explain goes with --format {' or '.join(_EXPLAINED)}, not {format}")
    shown, hidden = parse_codes("--select", select), parse_codes("--ignore", ignore)

    views, failed = [], False
    for target in targets:
        try:
            report = _judge(target, input, num_classes, loss is not None, eval, seed)
        except DpnormError as error:
            if len(targets) == 1:
                raise
            failed = True  # the other targets still get their reports
            print(f"dpnorm: {target}: {' '.join(str(error).split())}", file=sys.stderr)
            continue
        views.append(view_of(report, select=shown, ignore=hidden, target=target))
    if format == "table" and sys.stdout.isatty():
        colour_table(views)
    elif views:
        print(render_all(views, format))
    if explain:
        _explain({item.code for view in views for item in view.findings})
    raise typer.Exit(2 if failed else int(not all(view.report.ok for view in views)))


def _judge(
    target: str, given: str | None, num_classes: int, with_loss: bool, evaluation: bool, seed: int
) -> "Report":
    from dpnorm.detection import check as judge

    shape = shape_for(target, given)
    model = build_target(target, shape, num_classes).train(not evaluation)
    inputs = random_inputs(shape, seed)
    if not with_loss:
        return judge(model, inputs, seed=seed)
    import torch
    import torch.nn.functional as F

    wanted = torch.arange(shape[0]) % num_classes
    return judge(model, inputs, targets=wanted, criterion=F.cross_entropy, seed=seed)


def _explain(codes: set[str]) -> None:
    from dpnorm.detection import rule

    for code in sorted(codes):
        print(f"\n{_wrapped(rule(code).page())}")


def _wrapped(page: str) -> str:
    """A page of Markdown at 80 columns; headings and code stay as they are."""
    import textwrap

    lines, in_code = [], False
    for line in page.rstrip().splitlines():
        in_code ^= line.startswith("```")
        whole = in_code or line.startswith(("#", "```")) or not line
        lines += [line] if whole else textwrap.wrap(line, 80, break_on_hyphens=False)
    return "\n".join(lines)
