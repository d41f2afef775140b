"""The one error type for what a user can mend."""


class PipelineError(Exception):
    r"""Something the user can mend: says what, where, what was found, and what to do.

    A stage prints it as one line and exits with status 1, without a traceback: line ends and
    control characters, which come in with values from files, are shown as escapes.

    Attributes:
        fault: the message without `mending`, what to do, which depends on who asked for it.

    Example:
        >>> print(PipelineError("expected a number, found 1\n2"))
        expected a number, found 1\n2
    """

    def __init__(self, fault: str, mending: str = "") -> None:
        self.fault = fault
        message = f"{fault} {mending}" if mending else fault
        shown = (c if c.isprintable() else repr(c)[1:-1] for c in message)
        super().__init__("".join(shown))
