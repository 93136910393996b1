"""What another merge policy would show: a sample of profiles with reasons, and counts over all of them.

Both sides are merged by the pipeline's own queries over the candidates of the last run, in a transaction that is
rolled back: nothing stays. A side that the last run merged by the same rules is not merged again. Values that
stewards pinned win under every policy and so never differ.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline import audiences
from profile_pipeline.config.cross_check import unknown
from profile_pipeline.config.load import Config
from profile_pipeline.config.policy_file import is_file, read_policy
from profile_pipeline.config.profiles import Policy
from profile_pipeline.errors import PipelineError
from profile_pipeline.profiles import lineage, pins
from profile_pipeline.profiles.lists import list_columns
from profile_pipeline.profiles.policy_versions import in_use, mark_of
from profile_pipeline.profiles.reasons import Reason, reasons
from profile_pipeline.profiles.unified import FACT_COLUMNS, unified_query
from profile_pipeline.warehouse import (
    count,
    literal,
    replace_table,
    rolled_back,
    rows,
    scalar,
    scrubbed,
    table_exists,
)

BEFORE, AFTER = "trial:before", "trial:after"
"""Names of the two sides while they are tried; no policy can be called so."""
FACTS = ", ".join(("profile_id", *FACT_COLUMNS))
"""What the last run knew of profiles whatever the policy."""
SAMPLED = 1_000
"""Profiles that are merged to find those a preview shows."""
TABLES = {BEFORE: "temp.profiles_before", AFTER: "temp.profiles_after"}
MEMBERS = {BEFORE: "temp.members_before", AFTER: "temp.members_after"}


@dataclass(frozen=True)
class Side:
    """A policy under the name that people know it by. `built`: the policy of the last run that had the same rules."""

    label: str
    policy: Policy
    built: str | None = None


@dataclass(frozen=True)
class FieldChange:
    """Profiles in which a field would show something else: another value, nothing any more, a value for the first time."""

    field: str
    to_another: int
    to_nothing: int
    from_nothing: int

    @property
    def profiles(self) -> int:
        """Profiles in which the field changes."""
        return self.to_another + self.to_nothing + self.from_nothing


@dataclass(frozen=True)
class AudienceChange:
    """Members of an audience under both sides as default policy."""

    audience: str
    before: int
    after: int
    entering: int
    leaving: int


@dataclass(frozen=True)
class Difference:
    """Counts over all profiles; `fields` that change only, most first; `audiences` all, by name."""

    before: str
    after: str
    profiles: int
    changed: int
    fields: tuple[FieldChange, ...]
    audiences: tuple[AudienceChange, ...]


@dataclass(frozen=True)
class ChangedField:
    """A field of one profile on both sides, each with the winner, the losers and the rule."""

    field: str
    before: Reason | None
    after: Reason | None


@dataclass(frozen=True)
class ChangedProfile:
    """A profile and the fields that would show something else."""

    profile_id: str
    fields: tuple[ChangedField, ...]


@dataclass(frozen=True)
class Preview:
    """`shown` are the first changed profiles of those looked at."""

    before: str
    after: str
    looked_at: int
    changed: int
    shown: tuple[ChangedProfile, ...]


# ---------------------------------------------------------------- sides


def as_published(con: DuckDBPyConnection, config: Config, text: str) -> Side:
    """The side to compare with: a policy as the last run applied it, else as the rules say it, or that of a file."""
    built = in_use(con)
    if text in built:
        label = text if _same(config, text, built[text]) else f"{text} as of the last run"
        return Side(label, built[text], text)
    return as_written(con, config, text)


def as_written(con: DuckDBPyConnection, config: Config, text: str) -> Side:
    """A policy as the rules say it now, or that of a file; raises PipelineError."""
    if is_file(text):
        return _known(con, Side(text, read_policy(Path(text), config)))
    if text not in config.profiles.policies:
        raise PipelineError(unknown("profiles.yaml", "policy", text, config.profiles.policies))
    return _known(con, Side(text, config.profiles.policies[text]))


def _same(config: Config, name: str, policy: Policy) -> bool:
    written = config.profiles.policies.get(name)
    return written is not None and mark_of(written) == mark_of(policy)


def _known(con: DuckDBPyConnection, side: Side) -> Side:
    """The side with the policy by whose like the last run made profiles, if there is one."""
    mark = mark_of(side.policy)
    built = next((name for name, policy in in_use(con).items() if mark_of(policy) == mark), None)
    return replace(side, built=built)


# ---------------------------------------------------------------- over all profiles


def difference(con: DuckDBPyConnection, config: Config, before: Side, after: Side) -> Difference:
    """What showing profiles by `after` instead of `before` alters. Writes nothing. Raises PipelineError before the first run."""
    _check_built(con)
    sides = {BEFORE: before, AFTER: after}
    with rolled_back(con):
        trial = _trial(config, sides)
        for name, side in sides.items():
            _show(con, trial, name, side, only_winners=True)
        changed, fields = _changed_fields(con, trial)
        return Difference(
            before.label,
            after.label,
            count(con, TABLES[AFTER]),
            changed,
            tuple(sorted(fields, key=lambda found: (-found.profiles, found.field))),
            tuple(_changed_audiences(con, config)),
        )


def _check_built(con: DuckDBPyConnection) -> None:
    if not all(table_exists(con, f"profiles.{name}") for name in ("candidates", "lineage", "unified")):
        raise PipelineError("no profiles yet; `profile-pipeline run` makes the first ones")


def _trial(config: Config, sides: Mapping[str, Side]) -> Config:
    """The rules with the two sides as their only policies."""
    policies = {name: side.policy for name, side in sides.items()}
    rules = config.profiles.model_copy(update={"default": AFTER, "policies": policies})
    return config.model_copy(update={"profiles": rules})


def _show(con: DuckDBPyConnection, trial: Config, name: str, side: Side, *, only_winners: bool) -> None:
    """Write the profiles of a side into its trial table."""
    if side.built:
        replace_table(con, TABLES[name], f"from {_built_table(con, side.built)}")
        return
    _merge(con, trial, name, side.label, only_winners=only_winners)
    replace_table(con, "temp.profile_facts", f"select {FACTS} from profiles.unified")
    replace_table(con, TABLES[name], unified_query(trial, name))


def _built_table(con: DuckDBPyConnection, policy: str) -> str:
    """Where the last run put the profiles of a policy: which one is the default may have changed in the rules."""
    default = scalar(con, "select policy from profiles.unified limit 1")
    return "profiles.unified" if default in (policy, None) else f"profiles.unified_{policy}"


def _merge(con: DuckDBPyConnection, trial: Config, name: str, label: str, *, only_winners: bool) -> None:
    """Add the lineage of a side, under its trial name, to that of the last run."""
    policy = trial.profiles.policies[name]
    kept = " where won" if only_winners else ""
    for unit in lineage.units(trial, policy):
        query = lineage.lineage_query(trial, name, unit)
        try:
            con.execute(f"insert into profiles.lineage by name select * from ({query}){kept}")
        except duckdb.ConversionException as error:
            raise PipelineError(
                f"{label}: an expression of {', '.join(unit.fields)} does not work: {scrubbed(error)}; use try_cast in it"
            ) from None
    pins.put_first(con, name, policy.version)


# ---------------------------------------------------------------- counts


def _changed_fields(con: DuckDBPyConnection, trial: Config) -> tuple[int, list[FieldChange]]:
    """Profiles that change, and how each field that changes does."""
    fields = list(trial.attributes)
    counts = "".join(f", {_counted(trial, field)}" for field in fields)
    anything = " or ".join(_differs(trial, field) for field in fields) or "false"
    [(changed, *numbers)] = rows(
        con,
        f"""select count(*) filter ({anything}){counts}
        from {TABLES[BEFORE]} b join {TABLES[AFTER]} a using (profile_id)""",
    )
    found = [FieldChange(field, *numbers[3 * i : 3 * i + 3]) for i, field in enumerate(fields)]
    return changed, [change for change in found if change.profiles]


def _differs(trial: Config, field: str) -> str:
    before, after = _shown(trial, field)
    return f"{before} is distinct from {after}"


def _counted(trial: Config, field: str) -> str:
    before, after = _shown(trial, field)
    return f"""count(*) filter ({before} <> {after}),
        count(*) filter ({before} is not null and {after} is null),
        count(*) filter ({before} is null and {after} is not null)"""


def _shown(trial: Config, field: str) -> tuple[str, str]:
    """What each side shows of a field, comparable: a list where either keeps one; NULL is nothing."""
    column = f"{field}_all"
    lists = [column in list_columns(trial, side) for side in TABLES]
    if not any(lists):
        return f"b.{field}", f"a.{field}"
    one = "if({0}.{1} is null, null, [{0}.{1}::text])"
    before, after = (
        f"nullif({side}.{column}, [])" if kept else one.format(side, field)
        for side, kept in zip("ba", lists, strict=True)
    )
    return before, after


def _changed_audiences(con: DuckDBPyConnection, config: Config) -> Generator[AudienceChange]:
    """Members under each side; conditions name profiles.unified, so that is what each side becomes for the while."""
    if not config.audiences.audiences:
        return
    for name, table in TABLES.items():
        con.execute(f"create or replace table profiles.unified as from {table}")
        audiences.evaluate(con, config, MEMBERS[name])
    for audience in sorted(config.audiences.audiences):
        [(before, after, both)] = rows(
            con,
            f"""select count(b.profile_id), count(a.profile_id), count(*) filter (b.profile_id = a.profile_id)
            from (from {MEMBERS[BEFORE]} where audience = $1) b
            full join (from {MEMBERS[AFTER]} where audience = $1) a using (profile_id)""",
            [audience],
        )
        yield AudienceChange(audience, before, after, after - both, before - both)


# ---------------------------------------------------------------- some profiles, with reasons


def preview(
    con: DuckDBPyConnection,
    config: Config,
    before: Side,
    after: Side,
    *,
    profiles: int = 10,
    profile_id: str | None = None,
) -> Preview:
    """The first changed profiles of a sample, or one profile, with winners, losers and rules. Writes nothing.

    The sample is the same at every call: profiles of several records in the order of a hash.
    """
    _check_built(con)
    sides = {BEFORE: before, AFTER: after}
    with rolled_back(con):
        replace_table(con, "temp.sample", _sample_query(profile_id))
        con.execute(
            "create or replace table profiles.candidates as from profiles.candidates semi join temp.sample using (profile_id)"
        )
        con.execute(
            "create or replace table profiles.unified as from profiles.unified semi join temp.sample using (profile_id)"
        )
        trial = _trial(config, sides)
        for name, side in sides.items():
            _show(con, trial, name, Side(side.label, side.policy), only_winners=False)
        changed = _changed_by_profile(con, trial)
        shown = [
            ChangedProfile(found, tuple(_explained(con, found, fields)))
            for found, fields in list(changed.items())[:profiles]
        ]
        return Preview(before.label, after.label, count(con, "temp.sample"), len(changed), tuple(shown))


def _sample_query(profile_id: str | None) -> str:
    if profile_id:
        return f"select {literal(profile_id)} as profile_id"
    return f"""select profile_id from profiles.candidates where not pinned
        group by profile_id having count(distinct record_key) > 1 order by hash(profile_id), profile_id limit {SAMPLED}"""


def _changed_by_profile(con: DuckDBPyConnection, trial: Config) -> dict[str, list[str]]:
    differing = ", ".join(
        f"if({_differs(trial, field)}, {literal(field)}, null)" for field in trial.attributes
    )
    found = rows(
        con,
        f"""select profile_id, list_filter([{differing}]::text[], lambda f: f is not null) as fields
        from {TABLES[BEFORE]} b join {TABLES[AFTER]} a using (profile_id)
        where len(fields) > 0 order by hash(profile_id), profile_id""",
    )
    return dict(found)


def _explained(con: DuckDBPyConnection, profile_id: str, fields: Sequence[str]) -> Generator[ChangedField]:
    sides = {
        name: {reason.field: reason for reason in reasons(con, profile_id, name)} for name in (BEFORE, AFTER)
    }
    for field in fields:
        yield ChangedField(field, sides[BEFORE].get(field), sides[AFTER].get(field))
