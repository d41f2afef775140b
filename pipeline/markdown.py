"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, its first column to the left, the others to the right."""
    lines = [header, ["---", *["---:" for _ in header[1:]]], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
