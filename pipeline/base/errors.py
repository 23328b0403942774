"""The one kind of error that is the input's fault and not the program's."""


class InputError(Exception):
    """Something read from outside is not what it should be.

    The message is one line that names the file and the line or record, what was expected and what to do.
    The command line prints it without a traceback and exits with status 1.
    """


class SourceError(InputError):
    """A data set, an image, a video, a camera or a stream that does not give what it should."""


class TooManyPixelsError(SourceError):
    """An image of more pixels than are read."""


class TooNarrowError(SourceError):
    """An image whose longer side is too many times its shorter one."""
