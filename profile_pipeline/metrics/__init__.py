"""Counts of everything that is published, exact and kept from day to day; nothing else reads all profiles to draw a number.

Here: what is counted, when a count is kept, whether the counts agree, and the views under Adobe's names. How numbers
are shown belongs to the report; numbers of a single step for the Dagster UI to `runs`.
"""

from profile_pipeline.metrics.build import COUNTED, build_profile_facts
from profile_pipeline.metrics.fates import FATES, build_row_fates, unbalanced
from profile_pipeline.metrics.reconcile import disagreements

__all__ = ["COUNTED", "FATES", "build_profile_facts", "build_row_fates", "disagreements", "unbalanced"]
