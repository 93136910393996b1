"""What a project's sources make of one text that somebody types: the value of a field, read as a delivery is."""

from collections.abc import Sequence
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.config.sources import FileFormat, Source
from profile_pipeline.errors import PipelineError
from profile_pipeline.records import normalise
from profile_pipeline.warehouse import rows


def readers(config: Config, source: str | None) -> list[Source]:
    """Every way in which the sources (or one of them) read text: they differ in country and date formats."""
    if source is not None:
        return [config.record_sources[source]]
    found = {
        (s.country, *s.dates): s for s in [*config.record_sources.values(), *config.sources.values()][::-1]
    }
    return list(found.values())[::-1] or [_plain_source()]


def _plain_source() -> Source:
    return Source(kind="record", files="*", format=FileFormat(type="csv"), columns=["v"], key="v")


def read_text(con: DuckDBPyConnection, config: Config, ways: Sequence[Source], field: str, text: str) -> Any:  # noqa: ANN401
    """The normalised value of a field, in the steps of `records.mapping`; None for what is missing or no value.

    Raises PipelineError for text that the sources would read differently. Needs `normalise.register`.
    """
    attribute = config.attributes[field]
    folded = normalise.folded_query("v") if attribute.type in normalise.FOLDED else "v"
    found = []
    for way in ways:
        [(value,)] = rows(
            con,
            f"""with filled as (
                select {normalise.filled_query("v", tuple(attribute.placeholders))} as v from (select ?::text as v)
            ), folded as (select {folded} as v from filled)
            select {normalise.value_query(attribute, way, "v")} from folded""",
            [text],
        )
        if value is not None and value not in found:
            found.append(value)
    if len(found) > 1:
        raise PipelineError(
            f"the sources read this {field} differently; write a date as YYYY-MM-DD and a phone number with its"
            " country code, or name the source with --source"
        )
    return found[0] if found else None
