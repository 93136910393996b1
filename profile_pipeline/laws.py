"""The properties that hold after every run, as queries that count what breaks them (zero is good).

They are blocking checks in the Dagster UI, so that a user's own run proves them on the user's own data.
"""

import json

from duckdb import DuckDBPyConnection

from profile_pipeline import quality
from profile_pipeline.config.expectations import Expectation
from profile_pipeline.config.load import Config
from profile_pipeline.config.sources import Source
from profile_pipeline.identity.clusters import limits
from profile_pipeline.profile_ids import MEMBERS, final_redirects_query, pending
from profile_pipeline.profiles.unified import table_of
from profile_pipeline.records import staging
from profile_pipeline.records.staging import Check
from profile_pipeline.warehouse import built, facts, fingerprint, literal, mark_built, quote, rows, scalar


def standing_checks(con: DuckDBPyConnection, config: Config, source: str) -> list[Check]:
    """Every check of a source, those without rows to judge included."""
    known = staging.checks(con, source)
    expected = {
        e.label: Check(e.label, e.severity, True, 0, 0, e.notes)
        for e in staging.expected_checks(config, source)
    }
    guards = ["error_share", *guards_of(config.sources[source])]
    expected |= {name: Check(name, "critical", True, 0, 0, "") for name in guards}
    return [known.get(name, check) for name, check in expected.items()]


def all_checks(con: DuckDBPyConnection, config: Config) -> list[tuple[str, Check]]:
    """Every expectation of every source and table, with the table; suites of tables as they were last judged."""
    found = [(name, check) for name in config.sources for check in standing_checks(con, config, name)]
    judged = {table: facts(con, f"checks:{table}").get("outcomes", "[]") for table in sorted(config.suites)}
    return found + [(table, Check(*values)) for table, kept in judged.items() for values in json.loads(kept)]


LARGEST_CLOCK_FALLBACK = 0.05
"""Share of a source's rows that may count from when they came in before somebody should look at its clock."""


def clock_fits(source: Source, shares: dict[str, float]) -> bool:
    """Whether few rows fall back to the ingestion clock; a source that declares no time has no other."""
    return source.time is None or sum(shares.values()) <= LARGEST_CLOCK_FALLBACK


def guards_of(source: Source) -> dict[str, str]:
    """The critical checks of whole deliveries that a source's own declaration asks for, with what they say."""
    found = {}
    if source.delivery == "full":
        found["volume"] = "a full delivery is not far smaller than the last"
    if source.guards.min_rows:
        found["min_rows"] = f"at least {source.guards.min_rows:,} usable rows are there"
    return found


def broken_limits(con: DuckDBPyConnection, config: Config) -> int:
    """Clusters that hold more identifiers of a namespace, or records of a source, than allowed."""
    total = 0
    for kind, limit in limits(config).items():
        if kind.startswith("source:"):
            held = (
                "select cluster_key, record_key as value from identity.clusters join identity.nodes using (record_key)"
                f" where source = {literal(kind.removeprefix('source:'))}"
            )
        else:
            held = (
                "select cluster_key, value from identity.identifiers join identity.clusters using (record_key)"
                f" where namespace = {literal(kind)} and (namespace, value) not in"
                " (select (namespace, value) from identity.generic_values)"
            )
        total += scalar(
            con,
            f"select count(*) from (select cluster_key from ({held}) group by 1 having count(distinct value) > {limit}"
            f" and count(distinct value) > {_largest_single(kind)})",
        )
    return total


def joined_against_decisions(con: DuckDBPyConnection) -> int:
    """Pairs that a steward has decided are not one person, yet stand in one cluster."""
    return scalar(
        con,
        """select count(*) from identity.edges e
        join identity.clusters l on l.record_key = e.left_key join identity.clusters r on r.record_key = e.right_key
        where e.type = 'decision' and not e.accepted and l.cluster_key = r.cluster_key""",
    )


def _largest_single(kind: str) -> str:
    """One row that carries several values by itself breaks a limit at its source: reported there, not here."""
    if kind.startswith("source:"):
        return "0"
    return (
        "(select coalesce(max(n), 0) from (select count(*) as n from identity.identifiers"
        f" where namespace = {literal(kind)} group by record_key))"
    )


def ledger_problems(con: DuckDBPyConnection) -> dict[str, int]:
    """Rows that break the laws of the profile id ledger, by check name.

    While a change waits for approval, records without an id are no broken law: `churn_within_limits` says why.
    """
    return {
        "one_profile_a_record": 0 if pending(con) else _record_problems(con),
        "redirects_end": scalar(
            con,
            f"""select count(*) from ({final_redirects_query()}) f left join identity.registry r
                on r.profile_id = f.successor and r.status in ('active', 'erased') where r.profile_id is null""",
        ),
    }


def _record_problems(con: DuckDBPyConnection) -> int:
    """Nodes without exactly one active profile; counted only where there may be any."""
    active = f"({MEMBERS}) semi join (from identity.registry where status = 'active') using (profile_id)"
    if _marks(con, "identity.nodes", "record_key") == _marks(con, active, "record_key"):
        return 0
    return scalar(
        con,
        f"""select count(*) from (
            select n.record_key from identity.nodes n left join ({MEMBERS}) m using (record_key)
            left join identity.registry r on r.profile_id = m.profile_id and r.status = 'active'
            group by 1 having count(r.profile_id) <> 1)""",
    )


def profile_problems(con: DuckDBPyConnection, config: Config) -> dict[str, int]:
    """Rows that break the laws of unified profiles, by check name, over all policies."""
    policies = list(config.profiles.policies)
    active = _marks(con, f"(select distinct profile_id from ({MEMBERS}))")
    return {
        "one_row_a_profile": sum(_row_problems(con, table_of(config, p), active) for p in policies),
        "locked_groups": sum(_group_problems(con, config, p) for p in policies),
        "lineage_names_every_value": _lineage_problems(con, config),
    }


def _marks(con: DuckDBPyConnection, table: str, key: str = "profile_id") -> tuple[int, int | None]:
    """Rows and the sum of the hashes of their keys: alike for the same keys as often, in whatever order."""
    [found] = rows(con, f"select count(*), sum(hash({key})::hugeint) from {table}")
    return found


def _row_problems(con: DuckDBPyConnection, table: str, active: tuple[int, int | None]) -> int:
    """Profiles without exactly one row, and rows without a profile; counted only where there are any."""
    if _marks(con, table) == active:
        return 0
    return scalar(
        con,
        f"""select count(*) from (select distinct profile_id from ({MEMBERS})) m
        full join (select profile_id, count(*) as n from {table} group by 1) u using (profile_id)
        where n is distinct from 1 or m.profile_id is null""",
    )


def _group_problems(con: DuckDBPyConnection, config: Config, policy: str) -> int:
    broken = 0
    locked = [group for group in config.profiles.policies[policy].groups.values() if not group.fill]
    for group in locked:
        fields = ", ".join(literal(field) for field in group.fields)
        broken += scalar(
            con,
            "select count(*) from (select profile_id from profiles.lineage where won and policy = ? and rule <> 'pin'"
            f" and field in ({fields}) group by 1 having count(distinct record_key) > 1)",
            [policy],
        )
    return broken


WINNERS = "profiles.lineage where won and rank = 1 and value is not null"
"""What is shown, with the value that gives it."""


def _lineage_problems(con: DuckDBPyConnection, config: Config) -> int:
    """Values shown without exactly one winner that gives them, and winners that are not shown, over all policies.

    Sums of hashes of profile and field tell whether there are any: a grouping of all winners takes ten times as long.
    """
    won = {
        policy: tuple(marks)
        for policy, *marks in rows(
            con, f"select policy, count(*), sum(hash(profile_id, field)::hugeint) from {WINNERS} group by 1"
        )
    }
    return sum(
        _unexplained(con, config, policy)
        for policy in config.profiles.policies
        if won.get(policy, (0, 0)) != _shown(con, config, policy)
    )


def _shown(con: DuckDBPyConnection, config: Config, policy: str) -> tuple[int, int]:
    """Number of values that a policy shows, and the sum of the hashes of their profiles and fields."""
    count = " + ".join(f"count({quote(field)})" for field in config.attributes) or "0"
    hashes = " + ".join(
        f"if({quote(field)} is null, 0::hugeint, hash(profile_id, {literal(field)})::hugeint)"
        for field in config.attributes
    )
    [found] = rows(
        con, f"select {count}, coalesce(sum({hashes or '0::hugeint'}), 0) from {table_of(config, policy)}"
    )
    return found


def _unexplained(con: DuckDBPyConnection, config: Config, policy: str) -> int:
    table = table_of(config, policy)
    shown = " union all ".join(
        f"select profile_id, {literal(field)} as field from {table} where {quote(field)} is not null"
        for field in config.attributes
    )
    return scalar(
        con,
        f"""select count(*) from ({shown}) s full join (
            select profile_id, field, count(*) as n from {WINNERS} and policy = ? group by 1, 2) w using (profile_id, field)
        where w.n is distinct from 1 or s.profile_id is null""",
        [policy],
    )


def table_suite(config: Config, table: str) -> list[Expectation]:
    """The declared expectations of a table that is not a source's."""
    suite = config.suites.get(table)
    return list(suite.expectations) if suite else []


def table_checks(con: DuckDBPyConnection, config: Config, table: str) -> list[Check]:
    """Outcomes of a table's suite, kept until the table or the suite changes: the library is slow to load."""
    suite = table_suite(config, table)
    if not suite:
        return []
    name, mark = f"checks:{table}", fingerprint(built(con, table), [item.model_dump() for item in suite])
    if built(con, name) != mark:
        outcomes = quality.validate(con, table, suite)
        kept = [[o.name, o.severity, o.success, o.evaluated, o.failed, o.notes] for o in outcomes]
        mark_built(con, name, mark, {"outcomes": json.dumps(kept)})
    return [Check(*values) for values in json.loads(facts(con, name)["outcomes"])]
