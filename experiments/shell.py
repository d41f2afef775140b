"""What every experiment shares as a command: how its options are read, its errors in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from pipeline.errors import PipelineError
from pipeline.threads import sleep_when_idle


def experiment_app() -> typer.Typer:
    """A typer application set up the way every stage is.

    Also says how torch's threads wait, which must be said before torch is loaded.
    """
    sleep_when_idle()
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@contextmanager
def telling(name: str) -> Iterator[None]:
    """Have a PipelineError end the experiment `name` with one line and exit code 1."""
    try:
        yield
    except PipelineError as error:
        typer.echo(f"{name}: {error}", err=True)
        raise typer.Exit(1) from None
