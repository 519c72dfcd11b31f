"""The one exception that a user's mistake raises."""


class UserError(Exception):
    """Something the user can put right; the message says what was wrong, what is allowed and what to do.

    Stage scripts print the message without a traceback and exit with code 2.
    """


class GateError(Exception):
    """A model that is measured and not good enough (``--fail-under``); exit code 1."""
