"""The one exception users see: a single line that names the place and the fix, never a personal value."""


class PipelineError(Exception):
    """Something the user can mend. The message is one line: file, row or key, and the fix."""


class BusyError(PipelineError):
    """Another run holds the project's lock; scripts see exit code 75 (EX_TEMPFAIL)."""
