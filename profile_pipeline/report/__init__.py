"""The report: one HTML page in every generation that says whether its profiles can be trusted, and shows why.

It reads the published tables of the generation it belongs to, runs no script and loads nothing, so it can be mailed. Facts are
read (`reading`) into plain numbers (`facts`), judged by stated rules (`verdict`) and shown (`page`, `pictures`). Working figures
out does not belong here: that is the metrics stage.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPORT = "report.html"
TEMPLATES = Path(__file__).parent / "templates"


def write_report(
    folder: Path, manifest: Mapping[str, Any], before: tuple[Path, Mapping[str, Any]] | None, temporary: Path
) -> Path:
    """Write the page into the folder of a generation whose tables are complete.

    `before` is the generation that it replaces, its folder and manifest; spill goes to `temporary`.
    """
    from profile_pipeline.report.page import report_page
    from profile_pipeline.report.reading import read_facts, reading

    earlier, earlier_manifest = before or (None, None)
    with reading(folder, earlier, temporary) as con:
        facts = read_facts(con, manifest, earlier_manifest)
    path = folder / REPORT
    path.write_text(report_page(facts), encoding="utf-8", newline="\n")
    return path


def template_version() -> str:
    """A hash of the page's templates: with others, the same tables make another page."""
    digest = hashlib.sha256()
    for path in sorted(path for path in TEMPLATES.rglob("*") if path.is_file()):
        digest.update(path.relative_to(TEMPLATES).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
