"""What `profile-pipeline check` finds: mistakes in rules and data contracts, each in one line with its fix.

A module a kind of mistake; `project` puts them together. Nothing here writes, and no customer value is quoted.
"""

from profile_pipeline.check.problem import Problem
from profile_pipeline.check.project import check_project

__all__ = ["Problem", "check_project"]
