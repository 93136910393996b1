"""Proposes a source from delivered files: `profile-pipeline sources infer`.

`dialect` and `files` read, `evidence` and `dates` look at values, `vocabulary` and `meaning` say what a column is,
`plan` (with `kind`, `fields`, `country`) fills the `draft` of a source, `render` writes YAML, `append` adds it to a
project. What two readings fit is asked, never guessed; a proposal never holds a delivered value.
"""

from profile_pipeline.infer.append import add_to_project
from profile_pipeline.infer.propose import Proposal, Question, Row, infer_source

__all__ = ["Proposal", "Question", "Row", "add_to_project", "infer_source"]
