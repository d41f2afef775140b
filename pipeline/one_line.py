"""Text of users' own, as lines and tables for people take it."""

import re

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # also what ends a line or a paragraph


def one_line(text: str) -> str:
    r"""The text with a space in the place of each control character.

    Example:
        >>> one_line("one\ntwo")
        'one two'
    """
    return CONTROL.sub(" ", text)
