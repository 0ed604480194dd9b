"""The `dpnorm` command."""

import sys

import typer

from dpnorm.cli.attack import attack
from dpnorm.cli.audit import audit
from dpnorm.cli.bench import bench
from dpnorm.cli.check import check
from dpnorm.cli.convert import convert
from dpnorm.cli.pool import pool
from dpnorm.cli.rule import rule
from dpnorm.cli.train import train
from dpnorm.cli.why import why

app = typer.Typer(
    name="dpnorm",
    help="Find what breaks DP-SGD's per-sample gradient bounds, convert it, train, and measure "
    "accuracy, epsilon and leakage.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(check)
app.command()(convert)
app.command()(train)
app.command()(pool)
app.command()(attack)
app.command()(audit)
app.add_typer(bench, name="bench")
app.command()(rule)
app.command()(why)


def _version(wanted: bool) -> None:
    if wanted:
        from dpnorm import __version__

        print(f"dpnorm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


def main() -> None:
    """Runs the command line; a user's mistake is one line on stderr and exit code 2.

    Of processes that torchrun started together, the first one says it.
    """
    from dpnorm.cli.processes import is_first
    from dpnorm.errors import DpnormError

    try:
        app()
    except DpnormError as error:
        if is_first():
            print(f"dpnorm: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("dpnorm: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
