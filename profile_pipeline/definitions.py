"""The Dagster code location: the graph of the current project."""

import dagster as dg

from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import current_project
from profile_pipeline.defs.graph import build_definitions


@dg.definitions
def defs() -> dg.Definitions:
    """Everything Dagster shows and runs for the project that the working folder or environment names."""
    project = current_project()
    return build_definitions(load_config(project.rules), project)
