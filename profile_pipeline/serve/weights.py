"""What each comparison adds to the scored links of a profile: asked of the matching model in the warehouse.

Only when somebody asks, and under the project's lock, as `profile-pipeline explain` does.
"""

from collections.abc import Sequence
from typing import Any

from profile_pipeline.config.project import Project
from profile_pipeline.errors import PipelineError
from profile_pipeline.explain.links import Pair, pair_of, scores_of
from profile_pipeline.identity.weights import Score
from profile_pipeline.warehouse import connect, records_of, run_lock

MOST_SCORED = 200
"""Links of most weight that are scored in parts."""


def scores(project: Project, links: Sequence[dict[str, Any]]) -> dict[Pair, Score]:
    """Scores in parts of scored links by pair. Raises BusyError while a run is at work."""
    pairs = [pair_of(link) for link in links if link["type"] == "probabilistic"][:MOST_SCORED]
    if not project.database.exists():
        raise PipelineError("the warehouse of these profiles is not here; ask where they are made")
    with run_lock(project.state), connect(project.database) as con:
        edges = records_of(
            con,
            """select left_key, right_key, type, model_id from identity.edges
            where type = 'probabilistic' and (left_key, right_key) in (select unnest(?::text[]), unnest(?::text[]))""",
            [[left for left, _ in pairs], [right for _, right in pairs]],
        )
        return scores_of(con, edges)
