"""The error a user can act on."""


class UserError(Exception):
    """A mistake in what the user gave: one line that says what is wrong, where, and what to do.

    The command line prints it without a traceback (unless `--debug`) and exits with code 2.
    """
