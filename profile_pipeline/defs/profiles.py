"""Assets of the profiles stage: candidates, lineage, unified profiles, identifiers, timeline and computed attributes."""

from functools import partial

import dagster as dg
from duckdb import DuckDBPyConnection

from profile_pipeline import laws, runs
from profile_pipeline.computed.build import build_computed, filled
from profile_pipeline.config.load import Config
from profile_pipeline.defs import checks
from profile_pipeline.defs.tables import key_of, table_step
from profile_pipeline.profiles import candidates, lineage, policy_versions, timeline, unified

MEMBERSHIP = "identity.membership"
VERSIONS, RAISED = key_of("profiles.policy_versions"), "version_raised"


def assets(config: Config) -> list[dg.AssetsDefinition]:
    """Merge policies made visible as data."""
    return [
        table_step(
            config,
            {
                "profiles.candidates": "Every value that every record offers to its profile, explicit clears included.",
                "profiles.pinned_values": "Values that stewards pinned and that hold now, before every rule.",
            },
            lambda con: candidates.build_candidates(con, config),
            deps=["records.current", MEMBERSHIP],
            numbers=runs.pin_numbers,
        ),
        table_step(
            config,
            {
                "profiles.lineage": "Every candidate ranked under every merge policy, with the rule that decided.",
                "profiles.policy_versions": "What every version of every merge policy said.",
            },
            partial(_build_lineage, config=config),
            deps=["profiles.candidates"],
            numbers=partial(runs.policy_numbers, policy=config.profiles.default),
            checks=[checks.spec(VERSIONS, RAISED, "a policy that changed has another version")],
            results=partial(_version_results, config=config),
        ),
        table_step(
            config,
            {
                "profiles.identifiers": "Every identifier of every profile, with its raw spellings.",
                "profiles.events": "The timeline: every event once, with its profile.",
            },
            lambda con: timeline.build_timeline(con, config),
            deps=[MEMBERSHIP, "identity.identifiers", "records.events", "records.event_subjects"],
        ),
        _unified(config),
        table_step(
            config,
            {"profiles.computed": "What the rules make of the events and records of each profile."},
            lambda con: build_computed(con, config),
            deps=["profiles.unified", "profiles.events", "records.current"],
            numbers=lambda con: filled(con, config),
        ),
    ]


def _build_lineage(con: DuckDBPyConnection, *, config: Config) -> None:
    lineage.build_lineage(con, config)
    policy_versions.note_versions(con, config)


def _version_results(con: DuckDBPyConnection, *, config: Config) -> list[dg.AssetCheckResult]:
    found = policy_versions.unraised(con, config)
    return [
        checks.fact(
            VERSIONS,
            RAISED,
            passed=not found,
            critical=False,
            why="; ".join(each.words for each in found),
            policies=len(config.profiles.policies),
            changed_without_version=len(found),
        )
    ]


def _unified(config: Config) -> dg.AssetsDefinition:
    tables = {
        unified.table_of(config, name): _about(name, policy.description)
        for name, policy in config.profiles.policies.items()
    }
    ordered = {"profiles.unified": tables.pop("profiles.unified"), **tables}
    key = key_of("profiles.unified")
    held = {
        "one_row_a_profile": "every active profile has exactly one row under every policy",
        "locked_groups": "the fields of a group come from one record",
        "lineage_names_every_value": "every value shown has a winner in the lineage that gives it",
    }
    return table_step(
        config,
        ordered,
        lambda con: unified.build_unified(con, config),
        deps=["profiles.lineage", "profiles.identifiers", "profiles.events"],
        numbers=runs.profile_numbers,
        checks=[
            *(checks.spec(key, name, text, blocking=True) for name, text in held.items()),
            *checks.specs(key, laws.table_suite(config, "profiles.unified")),
        ],
        results=partial(_results, key=key, config=config),
    )


def _about(name: str, description: str) -> str:
    return f"One row a profile under merge policy `{name}`. {description}"


def _results(con: DuckDBPyConnection, *, key: dg.AssetKey, config: Config) -> list[dg.AssetCheckResult]:
    return [
        *(
            checks.fact(key, name, passed=not n, critical=True, rows=n)
            for name, n in laws.profile_problems(con, config).items()
        ),
        *(checks.result(key, check) for check in laws.table_checks(con, config, "profiles.unified")),
    ]
