"""What ends a command early: an error the user can act on, and a request to stop."""


class UserError(Exception):
    """A mistake in what the user gave: one line that says what is wrong, where, and what to do.

    The command line prints it without a traceback (unless `--debug`) and exits with code 2.
    """


class Stopped(KeyboardInterrupt):
    """The run was told to end (SIGTERM) and has saved its last step; all its processes have."""
