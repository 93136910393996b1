"""Which rows a shipment has, in which columns, and why other rows stay: consent, no person, no identifier.

The published generation is attached as `generation`; nothing else is read. Consent is that of the person's profile
under the default policy.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.config.sharing import Destination, Shipment
from profile_pipeline.config.sharing_check import MEMBER_COLUMNS, consents, in_the_clear
from profile_pipeline.config.wording import suggestion
from profile_pipeline.dictionary import PERSONAL
from profile_pipeline.errors import PipelineError
from profile_pipeline.publish import DATABASE, Generation
from profile_pipeline.sharing import hashing
from profile_pipeline.warehouse import columns_of, literal, quote, replace_table, rows

NO_PROFILE, PSEUDONYMOUS, NO_CONSENT, NO_IDENTIFIER, DUPLICATE = (
    "no_profile", "pseudonymous", "no_consent", "no_identifier", "duplicate",
)  # fmt: skip
"""Why a row stays, in the order in which it is asked."""


@dataclass(frozen=True)
class Column:
    """A column of the files: its name here, its name there, the expression over the rows, and how it is hashed."""

    source: str
    name: str
    query: str
    hashed: str = ""


@dataclass(frozen=True)
class Selection:
    """What a shipment asks of a generation."""

    config: Config
    live: Generation
    where: str
    destination: Destination
    shipment: Shipment

    @cached_property
    def consents(self) -> list[str]:
        """Consent fields that must be true."""
        return consents(self.config, self.destination, self.shipment)

    @cached_property
    def described(self) -> dict[str, dict[str, Any]]:
        """The generation's dictionary by table."""
        tables = json.loads((self.live.folder / "dictionary.json").read_text(encoding="utf-8"))
        return {table["name"]: table for table in tables}

    @property
    def of_profiles(self) -> bool:
        """Whether rows are profiles, one a profile."""
        return bool(self.shipment.audience) or self.shipment.is_profiles

    @property
    def table(self) -> str:
        """The published table whose rows leave."""
        return self.shipment.table or "profiles"


def attach(con: DuckDBPyConnection, live: Generation) -> None:
    """Make the tables of a generation readable as `generation.<table>`."""
    con.execute(f"attach {literal(live.folder / DATABASE)} as generation (read_only)")


def select_rows(con: DuckDBPyConnection, selection: Selection) -> tuple[list[Column], dict[str, int]]:
    """Write scratch.outgoing, in order; its columns and how many rows stay for which reason.

    Besides c0, c1, ... it has `_key` (of the row), `_who` (profile) and `_hash` (of what leaves).
    """
    _require_consents(con, selection)
    columns = columns_for(con, selection)
    offered = _offered_query(con, selection, columns)
    counted = dict(rows(con, f"select _reason, count(*) from ({offered}) group by 1"))
    excluded = {reason: counted.get(reason, 0) for reason in reasons_of(con, selection)}
    listed = ", ".join(f"c{n}" for n in range(len(columns)))
    con.execute("set preserve_insertion_order = true")
    replace_table(
        con,
        "scratch.outgoing",
        f"select _key, _who, hash({listed}) as _hash, {listed} from ({offered}) where _reason is null order by _order, _key",
    )
    con.execute("set preserve_insertion_order = false")
    return columns, excluded


def _require_consents(con: DuckDBPyConnection, selection: Selection) -> None:
    known = columns_of(con, "generation.profiles")
    if unknown := next((field for field in selection.consents if field not in known), None):
        raise _not_yet(selection, selection.where, unknown)


def _not_yet(selection: Selection, where: str, name: str) -> PipelineError:
    """The rules are ahead of the generation."""
    number = selection.live.number
    return PipelineError(
        f"{where}: generation {number} has no values of `{name}` yet; `profile-pipeline run` first"
    )


def columns_for(con: DuckDBPyConnection, selection: Selection) -> list[Column]:
    """The columns that leave; by default all that the table has, without those that would undo hashing."""
    shipment = selection.shipment
    own = _own_columns(con, selection)
    clear = _in_the_clear(selection)
    names = shipment.columns or _by_default(selection, [name for name in own if name not in clear])
    if wrong := next((name for name in names if name in clear), None):
        raise PipelineError(
            f"{selection.where}.columns: `{wrong}` holds identifiers in the clear, and this destination hashes them; remove it"
        )
    return [_column(selection, own, name) for name in names]


def _by_default(selection: Selection, names: list[str]) -> list[str]:
    if selection.shipment.audience:
        return ["profile_id", *MEMBER_COLUMNS]
    # the parts of a struct are columns already
    return [name for name in names if not (selection.of_profiles and name in selection.config.structs)]


def _in_the_clear(selection: Selection) -> set[str]:
    """Columns that hold identifiers in the clear and are not hashed themselves, where the destination hashes any."""
    if not selection.destination.hash:
        return set()
    hidden = in_the_clear(selection.config, selection.destination) if selection.of_profiles else PERSONAL
    return set(hidden) - set(selection.destination.hash.columns)


def _own_columns(con: DuckDBPyConnection, selection: Selection) -> dict[str, str]:
    """Name to expression of everything that can be a column."""
    if selection.table not in selection.described:
        known = list(selection.described)
        fix = suggestion(selection.table, known, "see dictionary.md")
        raise PipelineError(f"{selection.where}.table: `{selection.table}` is not published; {fix}")
    own = {name: f"p.{quote(name)}" for name in columns_of(con, f"generation.{selection.table}")}
    if not selection.of_profiles:
        return own
    spaces = {name: f"p.identity_map[{literal(name)}][1]" for name in selection.config.namespaces}
    published = columns_of(con, "generation.computed_attributes")
    computed = {
        name: f"c.{quote(name)}" for name in selection.config.computed.attributes if name in published
    }
    member = {name: f"m.{name}" for name in MEMBER_COLUMNS} if selection.shipment.audience else {}
    return {**own, **{k: v for k, v in {**member, **spaces, **computed}.items() if k not in own}}


def _column(selection: Selection, own: dict[str, str], name: str) -> Column:
    if name not in own:
        ahead = {*selection.config.attributes, *selection.config.computed.attributes}
        if selection.of_profiles and name in ahead:
            raise _not_yet(selection, f"{selection.where}.columns", name)
        fix = suggestion(name, own, "see dictionary.md")
        raise PipelineError(f"{selection.where}.columns: `{selection.table}` has no column `{name}`; {fix}")
    rules = selection.destination.hash
    hashed = rules.method if rules and {name, name.removesuffix("_all")} & set(rules.columns) else ""
    query = hashing.hashed_query(own[name], hashed, is_list=name.endswith("_all")) if hashed else own[name]
    return Column(name, selection.shipment.rename.get(name, name), query, hashed)


def _offered_query(con: DuckDBPyConnection, selection: Selection, columns: list[Column]) -> str:
    """Grain: a row of the table (or a member), with the reason for which it stays, if any."""
    own, shipment = _own_columns(con, selection), selection.shipment
    wanted = ", ".join(f"{column.query} as c{n}" for n, column in enumerate(columns))
    person = selection.of_profiles or "profile_id" in own
    offered = f"""
        select {_key(selection)} as _key, {_order(selection)} as _order, {_who(selection, own)} as _who, {wanted},
            {_reason(selection, own)} as _reason from {_from(selection, person=person)}"""
    if not shipment.one_per:
        return offered
    alike = ", ".join(own[name] for name in shipment.one_per)
    seen = "d.last_observed_at desc nulls last, " if person else ""
    place = f"partition by _reason, {alike} order by {seen}{_key(selection)}"
    return f"""
        select * replace (if(_reason is null and _place > 1, {literal(DUPLICATE)}, _reason) as _reason)
        from ({offered.replace(" as _reason from ", f" as _reason, row_number() over ({place}) as _place from ", 1)})"""


def _key(selection: Selection) -> str:
    if selection.of_profiles:
        return "p.profile_id::uuid"
    return f"md5(to_json({_order(selection)})::text)::uuid"


def _order(selection: Selection) -> str:
    """Rows leave in the order of the grain."""
    if selection.of_profiles:
        return "null"
    return f"row({', '.join(f'p.{quote(name)}' for name in _grain(selection))})"


def _grain(selection: Selection) -> list[str]:
    return selection.described[selection.table]["grain"].split(", ")


def _who(selection: Selection, own: dict[str, str]) -> str:
    if selection.of_profiles:
        return "p.profile_id::uuid"
    return "try_cast(coalesce(d.profile_id, p.profile_id) as uuid)" if "profile_id" in own else "null::uuid"


def _from(selection: Selection, *, person: bool) -> str:
    joins = [f"generation.{selection.table} p"]
    if selection.shipment.audience:
        joins.append(
            "join (select * from generation.audience_membership where exited_at is null"
            f" and audience = {literal(selection.shipment.audience)}) m on m.profile_id = p.profile_id"
        )
    if selection.of_profiles:
        joins.append("left join generation.computed_attributes c on c.profile_id = p.profile_id")
        joins.append("left join generation.profiles d on d.profile_id = p.profile_id")
    elif person:
        joins.append("left join generation.profile_redirects r on r.profile_id = p.profile_id")
        joins.append("left join generation.profiles d on d.profile_id = coalesce(r.successor, p.profile_id)")
    return " ".join(joins)


def _reason(selection: Selection, own: dict[str, str]) -> str:
    """Why a row stays, or null."""
    whens = " ".join(f"when {test} then {literal(reason)}" for reason, test in _tests(selection, own).items())
    return f"case {whens} end" if whens else "null::text"


def _tests(selection: Selection, own: dict[str, str]) -> dict[str, str]:
    """Reasons for which rows of a shipment can stay, in order, with their conditions."""
    asked, all_kinds, shipment = selection.consents, selection.shipment.pseudonymous, selection.shipment
    tests = {}
    if not selection.of_profiles and "profile_id" not in own:
        _refuse_unasked(selection)
    else:
        consent = " and ".join(f"coalesce(d.{quote(field)}::boolean, false)" for field in asked)
        tests = {
            NO_PROFILE: "d.profile_id is null"
            if not selection.of_profiles and (asked or not all_kinds)
            else "",
            PSEUDONYMOUS: "d.kind = 'pseudonymous'" if not all_kinds else "",
            NO_CONSENT: f"not ({consent})" if asked else "",
        }
    needed = [own[_column(selection, own, name).source] for name in (*shipment.require, *shipment.one_per)]
    tests[NO_IDENTIFIER] = " or ".join(f"{query} is null" for query in needed)
    return {reason: test for reason, test in tests.items() if test}


def reasons_of(con: DuckDBPyConnection, selection: Selection) -> list[str]:
    """Reasons for which rows of a shipment can stay, in the order in which they are asked."""
    found = list(_tests(selection, _own_columns(con, selection)))
    return [*found, DUPLICATE] if selection.shipment.one_per else found


def _refuse_unasked(selection: Selection) -> None:
    """Personal rows that name no profile: nobody's consent could be asked."""
    columns = selection.described[selection.table]["columns"]
    if selection.consents and any(column["personal"] for column in columns):
        raise PipelineError(
            f"{selection.where}: `{selection.table}` is personal and names no profile whose consent could be asked;"
            " give it a `purpose:` that needs none, or leave it out"
        )
