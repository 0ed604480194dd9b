"""dpnorm check."""

import typer

from dpnorm.cli.target import build_target, random_inputs, shape_for


def check(
    target: str = typer.Argument(
        help="A model: lenet, tv:resnet18, timm:NAME or package.module:factory."
    ),
    input: str | None = typer.Option(None, help="Input shape, batch first: 4,3,224,224."),
    num_classes: int = typer.Option(10, min=1, help="Columns of the output."),
    loss: str | None = typer.Option(None, help="Judge this loss too: cross-entropy."),
    format: str = typer.Option("table", help="table, concise, json, markdown or github."),
    eval: bool = typer.Option(False, "--eval", help="Judge the model in evaluation mode."),
    seed: int = typer.Option(0, min=0, help="Of the random records."),
) -> None:
    """Does each record's contribution to a training step belong to that record alone?

    Exit code 0: proven. 1: refuted or unproven. 2: bad usage.
    """
    from dpnorm.detection import check as judge
    from dpnorm.detection.rendering import FORMS
    from dpnorm.errors import unknown_name

    if format not in FORMS:
        raise unknown_name("format", format, FORMS)
    if loss not in (None, "cross-entropy"):
        raise unknown_name("loss", loss, ["cross-entropy"])
    shape = shape_for(target, input)
    model = build_target(target, shape, num_classes).train(not eval)
    inputs = random_inputs(shape, seed)
    if loss is None:
        report = judge(model, inputs, seed=seed)
    else:
        import torch
        import torch.nn.functional as F

        targets = torch.arange(shape[0]) % num_classes
        report = judge(model, inputs, targets=targets, criterion=F.cross_entropy, seed=seed)
    print(report.render(format))
    raise typer.Exit(0 if report.ok else 1)
