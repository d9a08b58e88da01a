"""The errors a user can mend: each names the argument, what it got, what is allowed and what to do."""


class InputError(ValueError):
    """Input that cannot be used as given: an argument, a file, a model id. One line; the command line exits with 2."""
