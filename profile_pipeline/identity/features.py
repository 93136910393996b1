"""Splink's input: one row a record, with the match fields that follow from the semantic types.

A record is computed again when the nodes step has noted it, and only then; generic values are missing here, so a
value that becomes generic changes the records that carry it.
"""

import pyarrow as pa
from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.identity import changes
from profile_pipeline.identity.fields import FIELDS, IDENTIFYING, match_fields
from profile_pipeline.identity.generic import CONTESTED
from profile_pipeline.records import normalise
from profile_pipeline.warehouse import (
    built,
    continues,
    fingerprint,
    last_full,
    literal,
    mark_built,
    quote,
    replace_plain,
    replace_table,
    rows_where,
    transaction,
    upstream,
)

TITLES = (
    "mr", "mrs", "ms", "miss", "mx", "dr", "prof", "professor", "sir", "dame", "lord", "lady", "rev", "reverend",
    "hon", "capt", "captain", "col", "colonel", "maj",
)  # fmt: skip
SUFFIXES = (
    "jr",
    "sr",
    "junior",
    "senior",
    "ii",
    "iii",
    "iv",
    "esq",
    "bt",
    "baronet",
    "phd",
    "md",
    "obe",
    "mbe",
    "cbe",
)


PLAIN_FEATURES = {
    "record_key", "street", "birth_date", "email", "phone", "postcode", "national_id", "given", "family",
    "email_local", "email_digits",
}  # fmt: skip
"""Match fields whose values are long or repeat little."""
FIRST_SIGN = 0x4E00
"""From here on Unicode has more than 20,000 letters in a row, none of which combines with its neighbours."""


def build_features(con: DuckDBPyConnection, config: Config) -> None:
    """Bring identity.features up to date with records.current and the generic values."""
    limiting = config.identity.clustering.never_differ
    base = fingerprint(
        match_fields(config),
        limiting,
        _sources(config),
        _types(config),
        normalise.VERSION,
        last_full(con, "identity.nodes"),
    )
    mark = fingerprint(upstream(con, ["records.current", "identity.generic_values"]), base)
    if built(con, "identity.features") == mark:
        return
    whole = not continues(con, "identity.features", base)
    con.execute(changes.TABLE)
    with transaction(con):
        replace_table(con, "temp.suspended", suspended_query(config))
        replace_table(con, "temp.changed", changes.noted_query("features") + (" limit 0" if whole else ""))
        con.execute(
            f"create or replace temp view inputs as {inputs_query(config, _matched(config, whole=whole))}"
        )
        if whole:
            _write_nicknames(con)
            replace_plain(con, "identity.features", features_query(config), PLAIN_FEATURES)
        else:
            con.execute("delete from identity.features where unique_id in (from temp.changed)")
            con.execute(f"insert into identity.features by name {features_query(config)}")
        con.execute("drop view inputs; drop table suspended; drop table changed")
        changes.forget(con, "features")
        full = mark if whole else last_full(con, "identity.features")
        mark_built(con, "identity.features", mark, {"base": base, "full": full})


def _sources(config: Config) -> list[str]:
    return sorted(name for name, source in config.record_sources.items() if source.matching)


def _types(config: Config) -> dict[str, str]:
    return {name: attribute.type for name, attribute in config.attributes.items()}


def suspended_query(config: Config) -> str:
    """Grain: one row a semantic type and value that identifies nobody."""
    kinds = {name: space.type for name, space in config.namespaces.items()} | {
        name: kind for name, kind in _types(config).items() if kind in IDENTIFYING
    }
    cases = " ".join(f"when {literal(name)} then {literal(kind)}" for name, kind in kinds.items())
    kind = f"case namespace {cases} end" if cases else "null::text"
    blocked = [
        f"({literal(space.type)}, {literal(value)})"
        for space in config.namespaces.values()
        for value in space.blocked
    ]
    known = f"select {kind} as type, value from identity.generic_values where reason <> {literal(CONTESTED)}"
    return known + (
        f" union all select * from (values {', '.join(blocked)}) t(type, value)" if blocked else ""
    )


def inputs_query(config: Config, records: str) -> str:
    """Grain: one row a record of the relation `records`: what its match fields are made of. Needs temp.suspended."""
    kinds = _types(config)
    columns = sorted(
        {field for fields in match_fields(config).values() for field in fields}
        | set(config.identity.clustering.never_differ)
    )
    chosen = ["record_key", "source", *(_unsuspended(name, kinds[name]) for name in columns)]
    return f"select {', '.join(chosen)} from {records}"


def _matched(config: Config, *, whole: bool) -> str:
    """The relation of the records that are compared: all, or those in temp.changed."""
    sources = ", ".join(map(literal, _sources(config))) or "null"
    matched = f"source in ({sources})"
    if whole:
        return f"(from records.current where {matched})"
    return f"({rows_where('records.current', f'{matched} and node in (from temp.changed)')})"


def _unsuspended(name: str, kind: str) -> str:
    if kind not in IDENTIFYING:
        return quote(name)
    suspended = f"select value from temp.suspended where type = {literal(kind)}"
    return f"if({quote(name)} in ({suspended}), null, {quote(name)}) as {quote(name)}"


def features_query(config: Config) -> str:
    """Grain: one row a matched record of temp.inputs. Needs identity.nicknames."""
    fields = match_fields(config)
    value = {name: f"coalesce({', '.join(map(quote, names))})" for name, names in fields.items()}
    names = {n: value.get(n, "null::text") for n in ("given", "family", "full")}
    others = "".join(
        f", {value.get(n, 'null::text')} as {n}"
        for n in FIELDS
        if n not in {"given", "family", "street", "full"}
    )
    extra = "".join(f", {value[n]}::text as {n}" for n in fields if n.startswith("x_"))
    street = (
        f"nullif(concat_ws(' ', {value.get('house', 'null::text')}, {value.get('street', 'null::text')}), '')"
    )
    if "street" not in fields:
        street = "null::text"
    return f"""
        with cleaned as (
            select record_key, source, {_without(names["given"], TITLES)} as own_given,
                {_without(names["family"], SUFFIXES)} as own_family,
                {_without(names["full"], (*TITLES, *SUFFIXES))} as whole, lower({street}) as street{others}{extra}
            from temp.inputs
        ), named as (
            select * exclude (own_given, own_family, whole),
                coalesce(own_given, if(contains(whole, ' '), split_part(whole, ' ', 1), null)) as given,
                coalesce(own_family, split_part(whole, ' ', -1)) as family,
            from cleaned
        )
        select hash(record_key) as unique_id, named.*, split_part(email, '@', 1) as email_local,
            regexp_replace(email_local, '[^0-9]+', '', 'g') as email_digits, formal_names
        from named left join identity.nicknames on nickname = split_part(given, ' ', 1)"""


def _without(name: str, words: tuple[str, ...]) -> str:
    """A name without forms of address, which say nothing about who it is."""
    listed = ", ".join(literal(word) for word in words)
    kept = f"list_filter(string_split({name}, ' '), lambda w: w not in ({listed}))"
    # names of one word are most of them: only the others are taken apart
    alone = f"if({name} in ({listed}), null, {name})"
    return f"if(contains({name}, ' '), nullif(array_to_string({kept}, ' '), ''), {alone})"


def _write_nicknames(con: DuckDBPyConnection) -> None:
    """identity.nicknames: the formal names a given name may stand for, itself included (nicknames are many to many).

    Kept, so that all features are made of the same ones, and a small change need not load the data set.
    Names outside the data set stand for themselves only and have no row: equality says all about them.
    """
    con.register("nickname_table", _nicknames())
    replace_table(con, "identity.nicknames", "select * from nickname_table")
    con.unregister("nickname_table")


def _nicknames() -> pa.Table:
    """One sign for each formal name: a short text goes through the joins of scoring much faster than a list of names."""
    names = {name: {name, *formal} for name, formal in normalise.formal_names().items()}
    formal_names = sorted({formal for found in names.values() for formal in found})
    for formal in formal_names:
        names.setdefault(formal, {formal})
    sign = {formal: chr(FIRST_SIGN + n) for n, formal in enumerate(formal_names)}
    signs = ["".join(sorted(sign[formal] for formal in found)) for found in names.values()]
    return pa.table({"nickname": list(names), "formal_names": signs})
