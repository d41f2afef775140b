"""What every experiment shares as a command: its errors in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from pipeline.errors import PipelineError


@contextmanager
def telling(name: str) -> Iterator[None]:
    """Have a PipelineError end the experiment `name` with one line and exit code 1."""
    try:
        yield
    except PipelineError as error:
        typer.echo(f"{name}: {error}", err=True)
        raise typer.Exit(1) from None
