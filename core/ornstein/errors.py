"""The one exception that means: the person, not the program, has to change something."""


class UserError(Exception):
    """A mistake a user can mend. The message says in one line what is wrong and what to do; the command line prints it
    and exits with 2."""
