"""Who looked at which profile, when and why: one JSON line each, only ever appended. No values of profiles."""

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from profile_pipeline.errors import PipelineError

FILE = "views.jsonl"
LONGEST = 200
"""Characters of a reason that are kept."""


@dataclass(frozen=True)
class Audit:
    """The audit file of a project, `state/views.jsonl`; `who` is who runs the pages."""

    folder: Path
    who: str

    def note(self, action: str, profile_ids: list[str], why: str = "", **more: str) -> None:
        """Append a row a profile, before it is shown. Raises PipelineError when that cannot be: nothing is shown then."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        same = {"at": at, "who": self.who, "action": action, "why": why[:LONGEST], **more}
        lines = "".join(
            json.dumps({**same, "profile_id": profile_id}, ensure_ascii=True) + "\n"
            for profile_id in profile_ids
        )
        if lines:
            self._append(lines.encode())

    def _append(self, lines: bytes) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self.folder / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(handle, lines)  # one write: rows of two processes do not mix
            finally:
                os.close(handle)
        except OSError:
            raise PipelineError(
                f"state/{FILE} cannot be written, and nothing is shown without a row in it; see to disk and rights"
            ) from None
