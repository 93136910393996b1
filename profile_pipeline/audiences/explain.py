"""Why a profile is in an audience or not, what the rules as they are now would change, and how audiences overlap."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.audiences.asked import fields_named
from profile_pipeline.audiences.build import NAME
from profile_pipeline.audiences.evaluate import evaluate, evaluated_query, types_of, write_facts
from profile_pipeline.audiences.leaves import Leaf, audience_column, leaves_of
from profile_pipeline.clock import clock
from profile_pipeline.computed.preview import by_rules_of_now
from profile_pipeline.config.audience_check import referred
from profile_pipeline.config.cross_check import unknown
from profile_pipeline.config.load import Config
from profile_pipeline.errors import PipelineError
from profile_pipeline.warehouse import (
    literal,
    records_of,
    replace_table,
    rolled_back,
    rows,
    scrubbed,
    table_exists,
)


@dataclass(frozen=True)
class Part:
    """One condition of an audience: where it is in the rules, what it asks, whether it holds, and what it saw."""

    path: str
    condition: str
    holds: bool
    seen: str | None
    negated: bool


@dataclass(frozen=True)
class Why:
    """Whether a profile is in an audience by the rules as they are now; `member`: whether the last run put it there."""

    audience: str
    profile_id: str
    inside: bool
    member: bool
    parts: tuple[Part, ...]

    @property
    def failing(self) -> tuple[Part, ...]:
        """The conditions that speak against it."""
        return tuple(part for part in self.parts if part.holds == part.negated)


@dataclass(frozen=True)
class Trial:
    """What an audience would be by the rules as they are now, against the last run.

    `problem`: why it cannot be told, in one line; then its numbers of now are 0.
    """

    audience: str
    members: int
    now: int
    entering: int
    leaving: int
    problem: str = ""


def required(config: Config, name: str) -> None:
    """Raises PipelineError when there is no such audience."""
    if name not in config.audiences.audiences:
        raise PipelineError(unknown("audiences.yaml", "audience", name, config.audiences.audiences))


def _check_built(con: DuckDBPyConnection) -> None:
    if not table_exists(con, NAME):
        raise PipelineError("no audiences yet; `profile-pipeline run` makes the first ones")


def why(con: DuckDBPyConnection, config: Config, name: str, profile_id: str) -> Why:
    """Every condition of an audience for one profile, computed attributes by the rules of now too. Writes nothing.

    Only this audience and those it names are evaluated. Raises PipelineError for one that does not work.
    """
    required(config, name)
    _check_built(con)
    alone, whose = only(config, name), f"(select {literal(profile_id)} as profile_id)"
    try:
        with by_rules_of_now(con, alone, fields_named(alone), whose):
            [found] = why_each(con, alone, [name], profile_id)
    except duckdb.Error as error:
        raise PipelineError(f"audiences.yaml: audiences.{name} does not work: {scrubbed(error)}") from None
    return found


def why_each(con: DuckDBPyConnection, config: Config, names: Sequence[str], profile_id: str) -> list[Why]:
    """Every condition of these audiences for one profile, in one look at its events. Writes nothing."""
    _check_built(con)
    with rolled_back(con):
        replace_table(con, "temp.whose", f"select {literal(profile_id)} as profile_id")
        as_of, types = clock(con), types_of(con)
        write_facts(con, config, as_of, "temp.whose")
        found = {name: leaves_of(config, types, name, as_of) for name in names}
        columns = [column for name, asked in found.items() for column in _answer_columns(name, asked)]
        query = evaluated_query(con, config, as_of, "temp.whose")
        answers = rows(con, f"select {', '.join(columns)} from ({query})")
    if not answers:
        raise PipelineError("no active profile has this id; `profile-pipeline lookup` finds one")
    held = f"select audience from {NAME} where profile_id = ? and exited_at is null"
    member = {name for (name,) in rows(con, held, [profile_id])}
    values = iter(answers[0])
    return [
        Why(
            name,
            profile_id,
            next(values),
            name in member,
            tuple(Part(leaf.path, leaf.text, next(values), next(values), leaf.negated) for leaf in asked),
        )
        for name, asked in found.items()
    ]


def _answer_columns(name: str, asked: Sequence[Leaf]) -> list[str]:
    return [
        audience_column(name),
        *(column for leaf in asked for column in (leaf.holds, f"try({leaf.seen})")),
    ]


def preview(con: DuckDBPyConnection, config: Config) -> list[Trial]:
    """Exact counts of every audience by the rules as they are now, against the last run. Writes nothing.

    Audiences that do not work have a problem instead, and so have those that name them.
    """
    _check_built(con)
    try:
        return _tried(con, config)[0]
    except PipelineError:
        problems = {
            name: line for name in config.audiences.audiences if (line := _problem(con, config, name))
        }
    trials = _tried(con, _keeping(config, config.audiences.audiences.keys() - problems))[0]
    found = {trial.audience: trial for trial in trials}
    for name, line in problems.items():
        members = found[name].members if name in found else 0
        found[name] = Trial(name, members, 0, 0, 0, line)
    return [found[name] for name in config.audiences.audiences | found]


def _problem(con: DuckDBPyConnection, config: Config, name: str) -> str:
    """Why an audience does not work, or an empty text."""
    try:
        _tried(con, only(config, name))
    except PipelineError as error:
        return str(error)
    return ""


def _tried(
    con: DuckDBPyConnection, config: Config, moves_of: str = ""
) -> tuple[list[Trial], list[tuple[str, str]]]:
    """Every audience against the last run, and who enters or leaves one of them, computed attributes by the rules of now."""
    try:
        with by_rules_of_now(con, config, fields_named(config)):
            evaluate(con, config, "temp.trial")
            return _trials(con, config), rows(con, _moved_query(), [moves_of]) if moves_of else []
    finally:
        con.execute("drop table if exists temp.trial")


def _trials(con: DuckDBPyConnection, config: Config) -> list[Trial]:
    """temp.trial against the last run."""
    found = rows(con, _compared_query())
    counts = {name: numbers for name, *numbers in found}
    names = [
        *config.audiences.audiences,
        *(name for name in counts if name not in config.audiences.audiences),
    ]
    return [Trial(name, *counts.get(name, (0, 0, 0, 0))) for name in names]


def preview_one(con: DuckDBPyConnection, config: Config, name: str) -> tuple[Trial, dict[str, list[str]]]:
    """The counts of one audience, and who would enter and leave it, by profile id. Writes nothing.

    Only this audience and those it names are evaluated.
    """
    required(config, name)
    _check_built(con)
    trials, moved = _tried(con, only(config, name), name)
    [trial] = [trial for trial in trials if trial.audience == name]
    return trial, {what: [who for whose, who in moved if whose == what] for what in ("entering", "leaving")}


def only(config: Config, name: str) -> Config:
    """The same rules with one audience and those it names, directly or not."""
    audiences, needed = config.audiences.audiences, [name]
    for each in needed:
        needed += [other for other in referred(audiences[each]) if other not in needed]
    return _keeping(config, needed)


def _keeping(config: Config, names: Collection[str]) -> Config:
    """The same rules with these audiences."""
    kept = {name: audience for name, audience in config.audiences.audiences.items() if name in names}
    return config.model_copy(update={"audiences": config.audiences.model_copy(update={"audiences": kept})})


def _moved_query() -> str:
    """Grain: one row a profile that would enter or leave an audience."""
    return f"""
        select if(m.profile_id is null, 'entering', 'leaving'), profile_id
        from (from {NAME} where exited_at is null) m full join temp.trial t using (audience, profile_id)
        where audience = ? and (m.profile_id is null or t.profile_id is null) order by profile_id"""


def _compared_query() -> str:
    """Grain: audience."""
    return f"""
        select audience, count(m.profile_id), count(t.profile_id), count(*) filter (m.profile_id is null),
            count(*) filter (t.profile_id is null)
        from (from {NAME} where exited_at is null) m full join temp.trial t using (audience, profile_id)
        group by audience order by audience"""


def overlap(con: DuckDBPyConnection, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Members that two audiences share, the largest share first; `names`: only pairs of these."""
    _check_built(con)
    only = f"and audience in ({', '.join(map(literal, names))})" if names else ""
    members = f"(select audience, profile_id from {NAME} where exited_at is null {only})"
    return records_of(
        con,
        f"""with members as {members}, sizes as (select audience, count(*) as n from members group by 1)
        select l.audience as audience, r.audience as other, any_value(a.n) as members, any_value(b.n) as other_members,
            count(*) as shared, round(count(*) / (any_value(a.n) + any_value(b.n) - count(*)), 4) as jaccard
        from members l join members r on l.profile_id = r.profile_id and l.audience < r.audience
        join sizes a on a.audience = l.audience join sizes b on b.audience = r.audience
        group by 1, 2 order by jaccard desc, 1, 2""",
    )


def members(con: DuckDBPyConnection, config: Config, name: str, limit: int) -> list[dict[str, Any]]:
    """Who is in an audience, the newest first."""
    required(config, name)
    _check_built(con)
    return records_of(
        con,
        f"""select profile_id, entered_at, entry_reason from {NAME} where audience = ? and exited_at is null
        order by entered_at desc, profile_id limit {limit}""",
        [name],
    )
