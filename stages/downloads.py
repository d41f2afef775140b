"""Progress of a download, on stderr."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from pipeline.datasets.download import Progress


@contextmanager
def download_progress(url: str, seconds: float = 10) -> Iterator["Progress"]:
    """Shows a download: a bar on a terminal, else a line every so many seconds."""
    from tqdm import tqdm

    shown = time.monotonic()
    with tqdm(desc=url, unit="B", unit_scale=True, disable=None) as bar:

        def show(done: int, total: int | None) -> None:
            nonlocal shown
            bar.total = total
            bar.update(done - bar.n)
            if bar.disable and (done == total or time.monotonic() - shown >= seconds):
                shown = time.monotonic()
                of_total = f" of {total / 1e6:.1f}" if total else ""
                typer.echo(f"{url}: {done / 1e6:.1f}{of_total} MB", err=True)

        yield show
