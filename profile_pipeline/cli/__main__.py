"""`python -m profile_pipeline.cli`: the same as the command `profile-pipeline`."""

from profile_pipeline.cli import app

app()
