"""Audiences: sets of profiles by rule, with entry and exit.

`leaves` turns conditions into words and SQL, `sequences` those about events in order, `evaluate` finds the members of all
audiences at once, `build` keeps their stays, `external` reads delivered lists, `explain` says why a profile is in or out
and what new rules would change. Nothing here writes to profiles.
"""

from profile_pipeline.audiences.build import EXIT, TABLE, build_audiences, sizes
from profile_pipeline.audiences.evaluate import evaluate

__all__ = ["EXIT", "TABLE", "build_audiences", "evaluate", "sizes"]
