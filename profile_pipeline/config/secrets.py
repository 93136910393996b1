"""Secrets, read from the environment when they are needed and kept nowhere."""

import os

from profile_pipeline.errors import PipelineError


def secret(name: str, where: str) -> str:
    """The value of an environment variable that a rule file names; `where` is the place of its name in the rules."""
    value = os.environ.get(name, "")
    if not value:
        raise PipelineError(f"{where}: the environment variable {name} is not set; set it where runs start")
    return value
