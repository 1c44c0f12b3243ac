"""The exceptions that a user is meant to read; the command line prints them as one line, without a traceback."""


class UserError(Exception):
    """Something the user can put right: bad input, missing data, a full disk. Exit code 2.

    The message is one line that says what was wrong and what to do.
    """


class RunFailed(Exception):
    """A run that cannot give a result: the loss became NaN or exploded, the model broke the metric. Exit code 1."""
