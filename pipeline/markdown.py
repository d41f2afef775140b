"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 0) -> str:
    """A table in Markdown, its column `left` to the left, the others to the right."""
    lines = [header, ["---" if n == left else "---:" for n in range(len(header))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
