"""A benchmark as a command: its table on stdout, `--help`, one line for a wrong argument."""

from collections.abc import Callable
from functools import wraps

import typer


def command(main: Callable[..., object]) -> None:
    """Run `main`, whose parameters are the command's, and print what it gives."""

    @wraps(main)
    def shown(*args: object, **kwargs: object) -> None:
        typer.echo(main(*args, **kwargs))

    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(shown)
    app()
