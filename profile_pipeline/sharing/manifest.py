"""The manifest of a delivery: enough to check what arrived without asking us.

It names no person and no time of ours, so that the same delivery, made again after an interruption, has the same bytes.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.sharing.files import File, Naming
from profile_pipeline.sharing.query import Column, Selection
from profile_pipeline.warehouse import columns_of

MANIFEST, SUCCESS = "manifest.json", "_SUCCESS"
ABOUT_RUN = ("generation", "as_of", "batch", "revision", "model", "policies", "default_policy", "checks")
"""What the manifest of the generation says and a receiver may know."""


def about(
    con: DuckDBPyConnection, selection: Selection, naming: Naming, columns: Sequence[Column], query: str
) -> dict[str, Any]:
    """Everything but the numbers: what is delivered, from which state of the profiles, in which columns."""
    shipment = selection.shipment
    hashed = {column.name: column.hashed for column in columns if column.hashed}
    types = {name: kind for name, kind in columns_of(con, f"({query})").items() if name != "_row"}
    return {
        "destination": naming.destination,
        "shipment": naming.shipment,
        "delivery": naming.delivery,
        "audience": shipment.audience,
        "table": selection.table,
        "purpose": shipment.purpose or selection.destination.purpose or "default",
        "consent": selection.consents,
        **{key: selection.live.manifest.get(key) for key in ABOUT_RUN},
        "format": {"type": shipment.format.type, "compression": shipment.format.packing},
        "schema": [
            {"name": name, "type": kind, **({"hash": hashed[name]} if name in hashed else {})}
            for name, kind in types.items()
        ],
    }


def write_manifest(folder: Path, content: dict[str, Any], files: Sequence[File]) -> Path:
    """Write manifest.json beside the files it lists."""
    path = folder / MANIFEST
    entries = {"rows": sum(file.rows for file in files), "bytes": sum(file.bytes for file in files)}
    whole = {**content, **entries, "files": [file.as_entry() for file in files]}
    path.write_text(json.dumps(whole, indent=1, default=str, ensure_ascii=False) + "\n", encoding="utf-8")
    path.chmod(0o600)
    return path
