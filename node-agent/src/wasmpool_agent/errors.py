"""Errors that end a command with one line for the person who gave it.

Exception
+-- UserError         a file, a field or an option is wrong: which, what was given, what is allowed
"""


class UserError(Exception):
    """Printed on one line, without a traceback; the command ends with status 2."""


def one_line(error: BaseException) -> str:
    """The message without line breaks, however the parser that made it formatted it."""
    return " ".join(str(error).split())
