"""What every request needs: the live generation, who may come in, what was decided, and the audit file."""

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from profile_pipeline.config.project import Project
from profile_pipeline.serve.audit import Audit
from profile_pipeline.serve.questions import Decided
from profile_pipeline.serve.security import Gate
from profile_pipeline.serve.shelf import NothingPublishedError, Published, Shelf


@dataclass(frozen=True)
class Desk:
    """One running server."""

    project: Project
    shelf: Shelf
    decided: Decided
    audit: Audit
    gate: Gate

    def common(self, published: Published) -> dict[str, Any]:
        """What the frame of every page shows."""
        return {
            "generation": published.number,
            "as_of": published.manifest["as_of"],
            "form_token": self.gate.form_token,
            "kinds": defaultdict(str, {n: a.type for n, a in published.config.attributes.items()}),
        }


def desk(project: Project, gate: Gate, who: str) -> Desk:
    """The desk of a project, its generation opened; `who` is written into the audit file and beside decisions."""
    shelf = Shelf(project)
    with suppress(NothingPublishedError):
        shelf.live()
    return Desk(project, shelf, Decided(project), Audit(project.state, who), gate)
