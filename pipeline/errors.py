"""The one error type for what a user can mend."""


class PipelineError(Exception):
    """Something the user can mend: says what, where, what was found, and what to do.

    A stage prints it as one line and exits with status 1, without a traceback.
    """
