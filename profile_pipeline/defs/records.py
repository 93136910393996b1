"""Assets of the records stage: validated rows of each source, quarantine, current records, events."""

from functools import partial

import dagster as dg
from duckdb import DuckDBPyConnection

from profile_pipeline import laws, runs
from profile_pipeline.config.load import Config
from profile_pipeline.defs import checks
from profile_pipeline.defs.tables import key_of, table_step
from profile_pipeline.records import current, events, staging

EVENTS = "records.events"


def assets(config: Config) -> list[dg.AssetsDefinition]:
    """One validated table a source, then what all sources share."""
    staged = [f"records.{name}" for name in config.sources]
    return [
        *(_source(config, name) for name in config.sources),
        table_step(
            config,
            {
                "records.current": "The state of every source record now: cleaned, typed, later rows over earlier ones.",
                "records.identifiers": "Every identifier of every current record, normalised, with its raw spelling.",
            },
            partial(_current, config=config),
            deps=staged,
            numbers=runs.clock_numbers,
        ),
        table_step(
            config,
            {
                EVENTS: "Every event once, in UTC, with its identifiers and payload.",
                "records.event_subjects": "Whom each event belongs to: the person it names, the one signed in on the"
                " device nearest in time, or the device itself.",
                "records.expired_events": "Events older than their source keeps them, without what they said.",
            },
            partial(_events, config=config),
            deps=["records.current", *(f"records.{name}" for name in config.event_sources)],
            numbers=runs.event_numbers,
            checks=[
                checks.spec(key_of(EVENTS), "deliveries_agree", "an event that came again says the same")
            ],
            results=_events_results,
        ),
        table_step(
            config,
            {"records.quarantine": "Rows refused with a reason; they can be repaired and replayed."},
            partial(_quarantine, config=config),
            deps=staged,
            numbers=runs.quarantine_numbers,
            memberships_wait=False,
        ),
    ]


def _source(config: Config, name: str) -> dg.AssetsDefinition:
    key = key_of(f"records.{name}")
    source = config.sources[name]
    expected = staging.expected_checks(config, name)
    guards = [
        checks.spec(key, "error_share", "not too many rows of a delivery are refused", blocking=True),
        checks.spec(key, "drift", "fields are filled about as often as before"),
        checks.spec(key, "own_clock", "rows have a time of their own that is not in the future"),
    ]
    guards += [checks.spec(key, guard, text, blocking=True) for guard, text in laws.guards_of(source).items()]
    return table_step(
        config,
        {
            f"records.{name}": f"{source.description or name} Mapped, normalised and validated; refused rows keep their reasons."
        },
        partial(_stage, config=config, name=name),
        deps=[f"raw.{name}"],
        kinds=("greatexpectations", "duckdb"),
        owner=source.owner,
        numbers=partial(runs.validation_numbers, name=name),
        checks=[*checks.specs(key, expected), *guards],
        results=partial(_results, key=key, config=config, name=name),
    )


def _results(
    con: DuckDBPyConnection, *, key: dg.AssetKey, config: Config, name: str
) -> list[dg.AssetCheckResult]:
    limit = config.sources[name].guards.max_drift
    moved = staging.drift(con, name, limit)
    shares = staging.clock_shares(con, name)
    known = laws.standing_checks(con, config, name)
    return [
        *(checks.result(key, check) for check in known),
        checks.fact(
            key, "drift", passed=not moved, critical=False, fields=len(moved),
            why="; ".join(f"{field}: filled {before:.0%} before, {now:.0%} now" for field, before, now in moved),
        ),
        checks.fact(
            key, "own_clock", passed=laws.clock_fits(config.sources[name], shares), critical=False,
            why="; ".join(f"{text.replace('_', ' ')}: {share:.1%}" for text, share in shares.items()), **shares,
        ),
    ]  # fmt: skip


def _stage(con: DuckDBPyConnection, *, config: Config, name: str) -> None:
    staging.stage_source(con, config, name)


def _current(con: DuckDBPyConnection, *, config: Config) -> None:
    current.build_current(con, config)


def _events(con: DuckDBPyConnection, *, config: Config) -> None:
    events.build_events(con, config)


def _events_results(con: DuckDBPyConnection) -> list[dg.AssetCheckResult]:
    found = events.corrected(con)
    counted = ", ".join(f"{count:,} of {name}" for name, count in found.items())
    why = (
        f"delivered again with other content: {counted}; of each the earliest, then by content, counts;"
        " give corrections an id of their own (docs/timeline.md)"
    )
    key = key_of(EVENTS)
    return [
        checks.fact(
            key, "deliveries_agree", passed=not found, critical=False, why=why if found else "", events=sum(found.values())
        )
    ]  # fmt: skip


def _quarantine(con: DuckDBPyConnection, *, config: Config) -> None:
    current.build_quarantine(con, config)
