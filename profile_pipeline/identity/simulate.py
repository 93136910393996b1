"""What the rules of identity.yaml make of a few typed events: graphs, links and why links were cut.

`ours` is the pipeline itself on a throw-away warehouse: records, events, nodes, edges, clusters, profile ids and
relationships, with probabilistic matching off because identities are all there is. A line that states an
identifier that links (`link: true`, kind person) is a record; any other line is an event, which belongs to its
only holder, to whoever was identified on its device nearest in time, or to nobody. `newest_link` is Adobe's rule on
the same lines, which compares values as they are written.

Nothing of a project is read but its rules, and nothing is changed.
"""

from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from duckdb import DuckDBPyConnection

from profile_pipeline import profile_ids
from profile_pipeline.config.identity import IdentityRules, Namespace
from profile_pipeline.config.load import Config
from profile_pipeline.config.profiles import ProfileRules
from profile_pipeline.config.sources import Source
from profile_pipeline.identity.clusters import build_clusters
from profile_pipeline.identity.edges import build_edges
from profile_pipeline.identity.features import build_features
from profile_pipeline.identity.model import ensure_model
from profile_pipeline.identity.newest_link import Identity, Observation, newest_link
from profile_pipeline.identity.nodes import build_nodes
from profile_pipeline.identity.relationships import build_relationships
from profile_pipeline.identity.simulation_file import Line
from profile_pipeline.records import normalise, staging
from profile_pipeline.records.current import build_current
from profile_pipeline.records.events import build_events
from profile_pipeline.records.normalise import filled_query, identifier_query
from profile_pipeline.warehouse import connect, literal, replace_table, rows

RESOLVERS = ("ours", "newest_link")
SOURCE = "line"
"""The source of the throw-away warehouse; records are `line:000007`, by line of the file."""


@dataclass(frozen=True)
class Graph:
    """What ends up together: identities that are its own, identities it shares with others, lines of the file."""

    identities: list[str]
    shared: list[str]
    lines: list[int]


@dataclass(frozen=True)
class Tie:
    """A link, numbered by time, and why it was cut (empty: kept).

    Ours tie lines that state one identity (`by`), newest_link ties identities that one line states.
    """

    number: int
    left: str
    right: str
    by: str
    why: str


@dataclass(frozen=True)
class Simulation:
    """What one resolver makes of the lines. `relationships`: shared, merges nobody. `notes`: not taken in."""

    resolver: str
    graphs: list[Graph]
    links: list[Tie]
    relationships: list[str]
    notes: list[str]


def resolve(lines: list[Line], rules: IdentityRules, resolver: str, country: str = "") -> Simulation:
    """Resolve typed events; `country` reads phone numbers without a country code."""
    if resolver == "newest_link":
        return simulate_newest_link(lines, rules)
    return simulate_ours(lines, rules, country)


def simulate_newest_link(lines: list[Line], rules: IdentityRules) -> Simulation:
    """Adobe's rule. An identity is in one graph only, so lines that state it need not be: a link can be cut."""
    found = newest_link([Observation(line.at, line.identities) for line in lines], rules.namespaces)
    graphs = []
    for graph in found.graphs:
        inside = [line.number for line in lines if set(line.identities) <= set(graph)]
        graphs.append(Graph([_shown(each) for each in graph], [], inside))
    links = [
        Tie(n, _shown(link.left), _shown(link.right), "", link.why) for n, link in enumerate(found.links, 1)
    ]
    refused = {each.identities for each in found.refused}
    notes = [
        f"line {line.number}: refused, it states more of a namespace than `unique` allows"
        for line in lines
        if line.identities in refused
    ]
    return Simulation("newest_link", graphs, links, [], notes)


def _shown(identity: Identity) -> str:
    return f"{identity[0]}: {identity[1]}"


def simulate_ours(lines: list[Line], rules: IdentityRules, country: str = "") -> Simulation:
    """The pipeline's own stages on a throw-away warehouse."""
    config = _config(rules, country)
    with _resolved(lines, config) as con:
        stated = [Stated(*row) for row in rows(con, _stated_query())]
        links = _links(stated, config.namespaces, _generic(con))
        return Simulation("ours", _graphs(stated), links, _relationships(con), _notes(con))


def _config(rules: IdentityRules, country: str) -> Config:
    """The project's namespaces and limits, one source, no attributes, no matching, no rule of its own to merge by."""
    matching = rules.matching.model_copy(update={"enabled": False})
    source = {
        "kind": "event", "files": "*", "format": {"type": "jsonl"}, "columns": ["line"], "key": "line",
        "event": {"id": "line"}, "time": {"value": "at"}, "country": country,
    }  # fmt: skip
    return Config.model_construct(
        attributes={},
        sources={SOURCE: Source.model_validate(source)},
        identity=rules.model_copy(update={"matching": matching}),
        profiles=ProfileRules.model_validate({"default": "any", "policies": {"any": {}}}),
        suites={},
    )


@contextmanager
def _resolved(lines: list[Line], config: Config) -> Generator[DuckDBPyConnection]:
    with TemporaryDirectory() as folder, connect(Path(folder) / "simulation.duckdb", threads=1) as con:
        _stage(con, lines, config)
        build_current(con, config)
        build_events(con, config)
        build_nodes(con, config)
        build_features(con, config)
        ensure_model(con, config)
        build_edges(con, config)
        build_clusters(con, config)
        profile_ids.assign_profile_ids(con, config)
        build_relationships(con, config)
        yield con


def _stage(con: DuckDBPyConnection, lines: list[Line], config: Config) -> None:
    """Write records.line as staging would, with the pipeline's own normalisation of identifiers."""
    normalise.register(con)
    staging.create_tables(con)
    con.execute("create table raw.batches as select 1 as batch, timestamptz '2026-01-01' as as_of")
    con.execute(
        "create table raw.files as select 1 as file_id, 'line' as source, 1 as batch, 'loaded' as state"
    )
    stated = [(line.number, *identity) for line in lines for identity in line.identities]
    numbers, spaces, texts = (list(column) for column in zip(*stated, strict=True))
    replace_table(
        con,
        "temp.stated",
        "select unnest(?::bigint[]) as n, unnest(?::text[]) as namespace, unnest(?::text[]) as text",
        [numbers, spaces, texts],
    )
    replace_table(con, "temp.keyed", _keyed_query(config))
    replace_table(
        con,
        f"records.{SOURCE}",
        _staged_query(config),
        [[line.number for line in lines], [line.at for line in lines]],
    )


def _keyed_query(config: Config) -> str:
    """Grain: line and identifier as written; `value` is its key, empty for one that identifies nobody."""
    source = config.sources[SOURCE]
    parts = []
    for name, space in config.namespaces.items():
        filled = filled_query("text", tuple(space.blocked))
        key = identifier_query(space, source, "filled")
        parts.append(
            f"select n, namespace, {key} as value, text as raw from"
            f" (select *, {filled} as filled from stated where namespace = {literal(name)})"
        )
    return " union all ".join(parts)


def _staged_query(config: Config) -> str:
    """Grain: one row a line. Only a line with an identifier that links has a key of its own, and is a record."""
    linking = ", ".join(literal(name) for name, space in config.namespaces.items() if _links_people(space))
    return f"""
        with lines as (select unnest(?::bigint[]) as n, unnest(?::timestamptz[]) as moment),
        carried as (
            select n, list({{'namespace': namespace, 'value': value, 'raw': raw}} order by namespace, value)
                as identifiers, bool_or(namespace in ({linking or "null"})) as about
            from (select n, namespace, value, min(raw) as raw from keyed where value is not null group by all)
            group by n
        ), named as (
            select *, format('{{:06d}}', n) as id, if(about, id, null) as source_key from lines left join carried using (n)
        )
        select 1 as _file, n as _line, 1 as batch, moment as ingested_at, source_key, '{SOURCE}:' || source_key as record_key,
            moment as observed_at, 'source' as clock, false as deleted, '{SOURCE}:' || id as event_key, id as event_id,
            'event' as event_type, null::text as channel, 'UTC' as zone, null::json as payload,
            null::struct(none text) as raw, []::text[] as cleared, coalesce(identifiers, []) as identifiers,
            md5(id) as content_hash, null::text[] as reasons, null::text[] as doubtful
        from named"""


def _links_people(space: Namespace) -> bool:
    return space.kind == "person" and space.link


@dataclass(frozen=True)
class Stated:
    """An identity in a line, and where the line ended up. `own`: the line is a record of its own."""

    line: int
    profile: str
    own: bool
    pseudonymous: bool
    namespace: str
    value: str
    text: str


def _stated_query() -> str:
    """Grain: line and identity, in the order of time; `text` is the identity's first spelling."""
    return f"""
        with spelled as (select namespace, value, arg_min(raw, (n, raw)) as text from keyed group by all)
        select e._line, m.profile_id, coalesce(s.subject = e.record_key, false), s.attribution = 'pseudonymous',
            i.namespace, i.value, spelled.text
        from (select _line, event_key, record_key, occurred_at, unnest(identifiers) as i from records.events) e
        join records.event_subjects s using (event_key) join ({profile_ids.MEMBERS}) m on m.record_key = s.subject
        join spelled on spelled.namespace = i.namespace and spelled.value = i.value
        order by e.occurred_at, e._line, i.namespace, i.value"""


def _generic(con: DuckDBPyConnection) -> set[Identity]:
    return set(rows(con, "select namespace, value from identity.generic_values"))


def _graphs(stated: list[Stated]) -> list[Graph]:
    """One a profile, in the order of first lines. An identity is its own when no other person has it."""
    profiles = {each.profile: each for each in sorted(stated, key=lambda each: each.line, reverse=True)}
    people = {each.profile for each in stated if not each.pseudonymous}
    holders = defaultdict(set)
    for each in stated:
        holders[each.namespace, each.value].add(each.profile)
    graphs = []
    for profile in sorted(profiles, key=lambda profile: profiles[profile].line):
        mine = [each for each in stated if each.profile == profile]
        own: dict[bool, set[str]] = {True: set(), False: set()}
        for each in mine:
            others = holders[each.namespace, each.value] & people - {profile}
            own[not others].add(f"{each.namespace}: {each.text}")
        graphs.append(Graph(sorted(own[True]), sorted(own[False]), sorted({each.line for each in mine})))
    return graphs


def _links(stated: list[Stated], namespaces: dict[str, Namespace], generic: set[Identity]) -> list[Tie]:
    """A star a profile around the first line that states an identity; one cut link a further profile."""
    held = _unique_values(stated, namespaces)
    found = []
    by_identity = defaultdict(list)
    for each in stated:
        by_identity[each.namespace, each.value].append(each)
    for identity, carriers in by_identity.items():
        first: dict[str, Stated] = {}
        for each in carriers:
            if each.profile in first:
                if _ties(each, namespaces):
                    found.append((first[each.profile], each, ""))
                continue
            if first:
                hub = next(iter(first.values()))
                found.append((hub, each, _why(hub, each, held, namespaces, identity in generic)))
            first[each.profile] = each
    position = {each.line: n for n, each in enumerate(stated)}
    found.sort(key=lambda link: (position[link[1].line], position[link[0].line], link[0].namespace))
    return [
        Tie(n, f"line {a.line}", f"line {b.line}", f"{a.namespace}: {a.text}", why)
        for n, (a, b, why) in enumerate(found, 1)
    ]


def _ties(each: Stated, namespaces: dict[str, Namespace]) -> bool:
    """Whether an identity is what holds a line in its profile: it links, or the line is no record of its own."""
    return _links_people(namespaces[each.namespace]) or not each.own


Held = dict[str, dict[str, set[str]]]
"""Values of unique namespaces, by profile and namespace."""


def _unique_values(stated: list[Stated], namespaces: dict[str, Namespace]) -> Held:
    held: Held = defaultdict(lambda: defaultdict(set))
    for each in stated:
        if namespaces[each.namespace].unique:
            held[each.profile][each.namespace].add(each.value)
    return held


def _why(a: Stated, b: Stated, held: Held, namespaces: dict[str, Namespace], generic: bool) -> str:
    """Why two profiles that both state an identity are two."""
    space = namespaces[a.namespace]
    if a.pseudonymous or b.pseudonymous:
        return f"nobody was identified on this {space.kind} near in time"
    if space.kind != "person":
        return f"a {space.kind} is shared; it ties nobody to anybody"
    if not space.link:
        return "`link: false`; evidence only"
    if generic:
        return _suspended(a, b, held, namespaces)
    for name, values in sorted(held[a.profile].items(), key=lambda item: namespaces[item[0]].priority):
        together = len(values | held[b.profile][name])
        if together > (namespaces[name].unique or together):
            return f"one profile would hold {together} of {name} (unique: {namespaces[name].unique})"
    return "its holders are different people"


def _suspended(a: Stated, b: Stated, held: Held, namespaces: dict[str, Namespace]) -> str:
    """Why an identity of both ties nobody: it is contested by holders of a stronger one, or shared too widely."""
    for name in sorted(held[a.profile].keys() & held[b.profile].keys(), key=lambda n: namespaces[n].priority):
        unique = namespaces[name].unique
        together = len(held[a.profile][name] | held[b.profile][name])
        if unique and together > unique:
            return f"carried by {together} holders of {name} (unique: {unique}), so it ties nobody"
    return "shared by too many different people"


def _relationships(con: DuckDBPyConnection) -> list[str]:
    found = rows(
        con,
        """with spelled as (select namespace, value, arg_min(raw, (n, raw)) as text from keyed group by all)
        select distinct kind, namespace, text, profile_count from identity.relationships
        join spelled using (namespace, value) order by all""",
    )
    return [f"{kind} {namespace}: {text} ({n} profiles)" for kind, namespace, text, n in found]


def _notes(con: DuckDBPyConnection) -> list[str]:
    unread = rows(con, "select n, namespace from keyed where value is null order by all")
    return [
        f"line {n}: its {space} identifies nobody (placeholder, blocked or malformed)" for n, space in unread
    ]
