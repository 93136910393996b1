"""Matching: settings, blocking, training, scores and clusters, on small made-up populations."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from duckdb import DuckDBPyConnection
from hypothesis import given, settings
from hypothesis import strategies as st
from splink import DuckDBAPI, Linker

from profile_pipeline.config.identity import IdentityRules
from profile_pipeline.config.load import Config
from profile_pipeline.config.sources import Attribute, Source
from profile_pipeline.identity import blocking, comparisons, components, edges, mixture, training
from profile_pipeline.identity.clusters import build_clusters, published_quality
from profile_pipeline.identity.edges import build_edges, scored_totals
from profile_pipeline.identity.features import build_features
from profile_pipeline.identity.linker import frequency_fields, load_frequencies, scoring_query
from profile_pipeline.identity.model import active_model, ensure_model
from profile_pipeline.identity.refine import Bounds, Component, refine
from profile_pipeline.identity.scoring import Scorer
from profile_pipeline.warehouse import columns_of, connect, database_name, facts, rows, scratch

TYPES = {
    "given": "given_name", "family": "family_name", "born": "birth_date", "mail": "email", "tel": "phone",
    "road": "street_address", "code": "postcode", "sex": "gender",
}  # fmt: skip
GIVEN = (
    "alice", "bob", "clara", "david", "emma", "frank", "grace", "henry", "irene", "jack", "kate", "liam", "mona",
    "noah", "olga", "peter",
)  # fmt: skip
FAMILY = (
    "adams", "baker", "clark", "dixon", "evans", "foster", "green", "hughes", "irving", "jones", "khan", "lewis",
    "moore", "nolan", "owens", "price",
)  # fmt: skip
Person = dict[str, str | None]


def config(
    types: dict[str, str] | None = None, sources: tuple[str, ...] = ("crm",), **matching: Any
) -> Config:
    types = types or TYPES
    source = {
        "kind": "record", "files": "x", "format": {"type": "csv"}, "columns": list(types), "key": "id",
        "attributes": {name: name for name in types},
    }  # fmt: skip
    attributes: dict[str, Any] = {
        n: {"type": t, "match": True if t == "category" else None} for n, t in types.items()
    }
    return Config.model_construct(
        attributes={n: Attribute.model_validate(a) for n, a in attributes.items()},
        sources={name: Source.model_validate(source) for name in sources},
        identity=IdentityRules.model_validate({"matching": matching}),
    )


def population(households: int, seed: int = 1) -> dict[str, Person]:
    """Two people a household with one address, phone and mostly family name; one to three records a person.

    Keys are `crm:<person>.<record>`.
    """
    draw = random.Random(seed)
    found: dict[str, Person] = {}
    for home in range(households):
        family, code = draw.choice(FAMILY) + draw.choice("abcdefgh"), f"ZZ{home:04d}"
        for member, given_name in enumerate(draw.sample(GIVEN, 2)):
            person: Person = {
                "given": given_name, "family": family, "tel": f"+4420{home:08d}", "code": code,
                "born": f"{draw.randint(1940, 2005)}-{draw.randint(1, 12):02d}-{draw.randint(1, 28):02d}",
                "mail": f"{given_name}.{family}{home}@mail.test" if draw.random() < 0.7 else None,
                "road": f"{home} {draw.choice(FAMILY)} road", "sex": draw.choice("fm"),
            }  # fmt: skip
            for copy in range(draw.choice([1, 2, 2, 3])):
                found[f"crm:{2 * home + member:05d}.{copy}"] = flawed(person, draw) if copy else dict(person)
    return found


def flawed(person: Person, draw: random.Random) -> Person:
    copy = dict(person)
    name = draw.choice(["given", "family"])
    if draw.random() < 0.3:
        copy[name] = f"{copy[name]}x"
    for field in draw.sample(["born", "mail", "tel", "road"], draw.choice([0, 1, 1, 2])):
        copy[field] = None
    return copy


@contextmanager
def warehouse(path: Path, people: dict[str, Person], rules: Config) -> Iterator[DuckDBPyConnection]:
    with connect(path, memory="1GiB", threads=2) as con:
        columns = "".join(f", {name} text" for name in rules.attributes)
        con.execute(f"create table records.current (record_key text, node ubigint, source text{columns})")
        con.execute("create table raw.batches (batch integer, as_of timestamptz)")
        con.execute(
            "create table identity.identifiers (record_key text, source text, namespace text, value text,"
            " value_key ubigint, node ubigint)"
        )
        con.execute("create table identity.subject_identifiers as from identity.identifiers")
        con.execute("create table identity.generic_values (namespace text, value text, reason text)")
        marks = ", ".join("?" for _ in range(len(rules.attributes) + 1))
        values = [[k, k, k.split(":")[0], *(p.get(n) for n in rules.attributes)] for k, p in people.items()]
        if values:
            con.executemany(f"insert into records.current values (?, hash(?), {marks})", values)
        con.execute(
            "create table identity.nodes as select record_key, source, 'record' as kind, node"
            " from records.current"
        )
        yield con


def match(con: DuckDBPyConnection, rules: Config) -> None:
    build_features(con, rules)
    ensure_model(con, rules)
    build_edges(con, rules)
    build_clusters(con, rules)


def everything(con: DuckDBPyConnection) -> tuple[Any, ...]:
    model = active_model(con)
    assert model
    return (
        model.model_id,
        model.settings,
        rows(con, "select * from identity.edges order by all"),
        rows(con, "select * from identity.clusters order by all"),
        rows(con, "select * from identity.cut_links order by all"),
    )


def found_f1(con: DuckDBPyConnection) -> float:
    by_cluster, by_person = defaultdict(list), defaultdict(list)
    for key, cluster in rows(con, "select record_key, cluster_key from identity.clusters"):
        by_cluster[cluster].append(key)
        by_person[key.rsplit(".", 1)[0]].append(key)
    found, true = (
        {frozenset(pair) for group in groups.values() for pair in combinations(group, 2)}
        for groups in (by_cluster, by_person)
    )
    return 2 * len(found & true) / (len(found) + len(true))


# --- settings -------------------------------------------------------------------------------------------------


def names(wanted: dict[str, Any]) -> list[str]:
    return [c["output_column_name"] for c in wanted["comparisons"]]


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ({"a": "given_name", "b": "birth_date"}, ["given", "birth_date"]),
        ({"a": "full_name"}, ["given", "family"]),
        ({"a": "street_address", "b": "postcode", "c": "city"}, ["address"]),
        ({"a": "email", "b": "phone", "c": "number", "d": "text"}, ["email", "phone"]),
        ({"a": "category", "b": "national_id"}, ["national_id", "x_a"]),
    ],
)
def test_one_comparison_a_concept(types, expected):
    assert names(comparisons.settings(config(types))) == expected


def test_starting_shares_are_shares_and_the_last_level_is_different():
    for comparison in comparisons.settings(config())["comparisons"]:
        missing, *levels = comparison["comparison_levels"]
        assert missing["is_null_level"]
        assert levels[-1]["sql_condition"] == "ELSE"
        for share in ("m_probability", "u_probability"):
            assert sum(level[share] for level in levels) == pytest.approx(1, abs=0.02)
            assert all(0 < level[share] < 1 for level in levels)


def test_sources_are_compared_only_where_there_are_several():
    assert "sources" not in names(comparisons.settings(config()))
    assert names(comparisons.settings(config(sources=("crm", "shop"))))[-1] == "sources"


def test_own_settings_replace_derived_ones():
    wanted = comparisons.settings(config(settings={"comparisons": [], "linker_uid": "own"}))
    assert (wanted["comparisons"], wanted["linker_uid"]) == ([], "own")
    assert wanted["blocking_rules_to_generate_predictions"]


def test_blocking_rules_need_their_fields_and_lose_refinements_without():
    rules = {rule.name: rule for rule in blocking.usable_rules({"given", "family", "birth_date", "x_job"})}
    assert {"names", "birth_date_family", "x_job_family"} <= rules.keys()
    assert rules.keys().isdisjoint({"email", "local_part", "phone", "postcode_family", "birth_date_postcode"})
    assert rules["names"].refine == ("birth_date",)
    assert blocking.usable_rules({"gender"}) == []


# --- blocking -------------------------------------------------------------------------------------------------


def blocks(con: DuckDBPyConnection, rules: Config) -> tuple[dict[str, Counter[int]], dict[str, int]]:
    """Size of every block in use by rule, and how many records the caps left out of each rule."""
    build_features(con, rules)
    wanted = blocking.project_rules(rules)
    found: dict[str, Counter[int]] = {rule.name: Counter() for rule in wanted}
    dropped: Counter[str] = Counter()
    with scratch(con) as work:
        work.execute(f"create view features as select * from {database_name(con)}.identity.features")
        caps = blocking.weak_caps(work, wanted, rules.identity.matching.max_block, "features")
        blocking.write_all_keys(work, wanted, caps, "features")
        for number, key in rows(work, "select rule, key from keys"):
            if key is None:
                dropped[wanted[number].name] += 1
            else:
                found[wanted[number].name][key] += 1
    return found, dict(dropped)


def test_missing_values_never_meet(tmp_path):
    people: dict[str, Person] = {f"crm:{i}": dict.fromkeys(TYPES) for i in range(50)}
    people["crm:0"] = {**people["crm:0"], "given": "alice", "family": ""}
    with warehouse(tmp_path / "w.duckdb", people, config()) as con:
        found, capped = blocks(con, config())
    assert len(found) > 10
    assert not any(found.values())
    assert capped == {}


def test_too_large_blocks_are_refined_then_reported_and_left(tmp_path):
    same = {"given": "ann", "family": "lee"}
    people: dict[str, Person] = {
        f"crm:{i}": {**dict.fromkeys(TYPES), **same, "born": f"1980-01-{i % 2 + 1:02d}"} for i in range(60)
    }
    with warehouse(tmp_path / "w.duckdb", people, config()) as con:
        found, capped = blocks(con, config(max_block=40))
        assert sorted(found["names"].values()) == [30, 30], "refined by birth date"
        assert all(size <= 40 for sizes in found.values() for size in sizes.values())
        found, capped = blocks(con, config(max_block=20))
    assert not found["names"]
    assert capped["names"] == 60


def test_a_weak_rule_keeps_its_smallest_blocks_within_its_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(blocking, "FREE_PAIRS", 10)
    monkeypatch.setattr(blocking, "WEAK_PAIRS", 0)
    dates = ["1980-01-01"] * 4 + ["1980-01-02"] * 6
    people: dict[str, Person] = {
        f"crm:{i}": {**dict.fromkeys(TYPES), "born": date} for i, date in enumerate(dates)
    }
    with warehouse(tmp_path / "w.duckdb", people, config()) as con:
        found, capped = blocks(con, config())
    assert list(found["birth_date"].values()) == [4], "4 records make 6 pairs, 6 would make 15 more"
    assert capped["birth_date"] == 6


def test_forms_of_address_say_nothing(tmp_path):
    types = {"whole": "full_name"}
    people: dict[str, Person] = {
        "crm:1": {"whole": "sir john smith baronet"},
        "crm:2": {"whole": "john smith"},
    }
    with warehouse(tmp_path / "w.duckdb", people, config(types)) as con:
        build_features(con, config(types))
        assert rows(con, "select distinct given, family from identity.features") == [("john", "smith")]


# --- training -------------------------------------------------------------------------------------------------


def test_the_mixture_finds_back_what_made_the_data():
    random_state = np.random.default_rng(5)
    matches = [np.array([0.1, 0.1, 0.8]), np.array([0.1, 0.9]), np.array([0.05, 0.95]), np.array([0.2, 0.8])]
    strangers = [np.array([0.989, 0.01, 0.001]), *(np.array([1 - u, u]) for u in (0.001, 0.001, 0.002))]
    household = [*strangers[:2], np.array([0.1, 0.9]), np.array([0.3, 0.7])]
    drawn = [(matches, 4000), (household, 6000), (strangers, 300_000)]
    pairs = np.concatenate(
        [
            np.stack([random_state.choice(len(share), n, p=share) for share in shares], axis=1)
            for shares, n in drawn
        ]
    )
    patterns, counts = np.unique(pairs, axis=0, return_counts=True)
    overall = [np.bincount(column) / len(pairs) for column in pairs.T]
    evidence = mixture.Evidence(
        patterns=patterns, counts=counts.astype(float), overall=overall, smallest=[u / 64 for u in overall],
        start=[np.array([0.2, 0.2, 0.6]), *(np.array([0.3, 0.7]) for _ in range(3))],
        shared=[False, False, True, True], pairs=len(pairs), records=3000,
    )  # fmt: skip
    found = mixture.fit(evidence)
    assert found.match_share * len(pairs) == pytest.approx(4000, rel=0.1)
    assert found.household_share * len(pairs) == pytest.approx(6000, rel=0.2)
    for learned, truth in zip(found.matches, matches, strict=True):
        assert learned == pytest.approx(truth, abs=0.04)


def test_random_pairs_are_different_records_and_each_pair_once(tmp_path):
    with warehouse(tmp_path / "w.duckdb", population(10), config()) as con, scratch(con) as work:
        build_features(con, config())
        work.execute(f"create view features as select * from {database_name(con)}.identity.features")
        training._random_pairs(work)
        found = rows(work, "select join_key_l, join_key_r from random_pairs")
        [(records,)] = rows(work, "select count(*) from features")
    assert all(left < right for left, right in found)
    assert len(found) == len(set(found)) == records * ((records - 1) // 2)


def test_no_level_speaks_more_for_a_match_than_being_the_same():
    """In few records nobody has a name one letter from another's by chance: that made a typing error proof."""
    wanted = {
        "comparisons": [
            c for c in comparisons.settings(config())["comparisons"] if c["output_column_name"] == "given"
        ]
    }
    levels = len(training._levels(wanted["comparisons"][0]))
    matches, strangers = np.full(levels, 0.01), np.full(levels, 1e-5)
    matches[[0, -1]], strangers[[0, -1]] = (0.1, 0.8), (0.97, 0.02)
    trained = training._with_shares(wanted, [matches], [strangers], 0.001)
    bits = [training.log2_factor(level) for level in training._levels(trained["comparisons"][0])]
    assert bits[-1] == pytest.approx(np.log2(40), abs=1e-3)
    assert max(bits) <= bits[-1] + 1e-3
    assert bits[0] == pytest.approx(np.log2(0.1 / 0.97), abs=1e-3)


def test_training_on_a_sample_changes_little(tmp_path):
    people = population(120)
    with warehouse(tmp_path / "w.duckdb", people, config()) as con:
        build_features(con, config())
        ensure_model(con, config())
        whole = active_model(con)
        ensure_model(con, config(max_training_pairs=10_000), retrain=True)
        part = active_model(con)
    assert whole
    assert part
    assert whole.manifest["records"] == part.manifest["records"] == len(people)
    assert part.manifest["expected_matches"] == pytest.approx(whole.manifest["expected_matches"], rel=0.3)


@pytest.mark.parametrize(("households", "least"), [(14, 0.85), (100, 0.95)])
def test_people_are_found_and_households_kept_apart(tmp_path, households, least):
    people = population(households)
    with warehouse(tmp_path / "w.duckdb", people, config()) as con:
        match(con, config())
        assert found_f1(con) >= least
        noted = facts(con, "identity.edges")
    assert noted["threshold"] >= 0
    assert noted["expected_precision"] >= 0.95


@pytest.mark.parametrize("records", [0, 1, 3])
def test_next_to_nothing_trains_too(tmp_path, records):
    people = dict(list(population(3).items())[:records])
    with warehouse(tmp_path / "w.duckdb", people, config()) as con:
        match(con, config())
        assert rows(con, "select count(*) from identity.clusters") == [(records,)]


def test_the_same_records_in_any_order_give_the_same_everything(tmp_path):
    people = list(population(40).items())
    found = []
    for turn in range(3):
        with warehouse(tmp_path / f"w{turn}.duckdb", dict(people), config()) as con:
            match(con, config())
            found.append(everything(con))
        if turn:  # the first two runs are identical, the third has its rows shuffled
            random.Random(3).shuffle(people)
    assert found[0] == found[1]
    random.Random(4).shuffle(people)
    with warehouse(tmp_path / "shuffled.duckdb", dict(people), config()) as con:
        match(con, config())
        assert everything(con) == found[0] == found[2]


def test_a_score_depends_on_the_two_records_only(tmp_path):
    people, others = population(50), population(15, seed=9)
    others = {key.replace("crm:", "crm:9"): person for key, person in others.items()}
    query = "select left_key, right_key, match_weight from identity.edges where not closure"
    with warehouse(tmp_path / "w.duckdb", people, config()) as con:
        match(con, config())
        before = {row[:2]: row[2] for row in rows(con, query)}
        marks = ", ".join("?" for _ in range(len(TYPES) + 1))
        con.executemany(
            f"insert into records.current values (?, hash(?), {marks})",
            [[key, key, "crm", *(person[n] for n in TYPES)] for key, person in others.items()],
        )
        con.execute(
            """insert into identity.nodes select record_key, 'crm', 'record', hash(record_key)
            from records.current anti join identity.nodes using (record_key)"""
        )
        con.execute("delete from state.built where name <> 'identity.model'")
        build_features(con, config())
        build_edges(con, config())
        after = {row[:2]: row[2] for row in rows(con, query)}
    common = before.keys() & after.keys()
    assert len(common) > 0.9 * len(before)
    assert {pair: before[pair] for pair in common} == pytest.approx({pair: after[pair] for pair in common})


def test_kept_blocking_keys_read_as_they_were():
    given = [(0, 5, 5, 1), (0, 5, 77, 2), (3, 9, None, 3)]
    with duckdb.connect() as con:
        con.execute(f"create table keys {blocking.KEYS}; create table kept {blocking.KEPT}")
        con.executemany("insert into keys values (?, ?, ?, ?)", given)
        con.execute(f"insert into kept (rule, base, finer, unique_id) {blocking.kept_query('keys')}")
        assert rows(con, "select rule, base, key, unique_id from kept order by unique_id") == given
        assert rows(con, "select finer from kept order by unique_id") == [(None,), (77,), (0,)]


def splink_weights(work: DuckDBPyConnection, model_settings: dict[str, Any]) -> dict[tuple[int, int], float]:
    """Match weights of `pairs`, by Splink's own prediction over the records and frequencies at hand."""
    api = DuckDBAPI(connection=work)
    linker = Linker(api.register(work.table("features")), model_settings, log_level=40)
    tables = linker.table_management
    for field in frequency_fields(model_settings):
        tables.register_term_frequency_lookup(api.register(work.table(f"frozen_{field}")), field)
    tables.register_blocked_pairs_for_predict(api.register(work.table("pairs")))
    found = linker.inference.predict(warning_mode="never").physical_name
    return {
        (a, b): w for a, b, w in rows(work, f"select unique_id_l, unique_id_r, match_weight from {found}")
    }


def test_the_kept_query_scores_as_splink_does(tmp_path):
    with warehouse(tmp_path / "w.duckdb", population(40), config()) as con:
        match(con, config())
        model = active_model(con)
        assert model
        with scratch(con) as work:
            work.execute(f"create table features as from {database_name(con)}.identity.features")
            load_frequencies(work, model.settings, model.model_id, database_name(con))
            work.execute(
                """create table pairs as
                select 0::smallint as match_key, a.unique_id as join_key_l, b.unique_id as join_key_r
                from features a join features b on a.unique_id < b.unique_id"""
            )
            query = scoring_query(model.settings, columns_of(work, "features"))
            Scorer(work, query, model.settings, None).score("pairs", "scored")
            kept = {
                (a, b): w for a, b, w in rows(work, "select join_key_l, join_key_r, match_weight from scored")
            }
            assert kept == pytest.approx(splink_weights(work, model.settings), abs=1e-9)
            assert len(kept) > 1000


def test_splink_is_asked_once_for_a_model(tmp_path, monkeypatch):
    asked = []

    def counted(*arguments: Any) -> str:
        asked.append(arguments)
        return scoring_query(*arguments)

    monkeypatch.setattr(edges, "scoring_query", counted)
    with warehouse(tmp_path / "w.duckdb", population(20), config()) as con:
        match(con, config())
        for version, times in (("5", 1), ("5", 1), ("6", 2)):
            monkeypatch.setattr(edges, "splink_version", lambda known=version: known)
            con.execute("delete from state.built where name = 'identity.edges'")
            build_edges(con, config())
            assert len(asked) == times + 1  # once under the version that is installed


def test_a_clean_source_is_noticed(tmp_path):
    """Two sources without duplicates inside: a pair inside one is weaker evidence than a pair across."""
    draw = random.Random(2)
    both = config(sources=("crm", "shop"))
    first = {k: p for k, p in population(100).items() if k.endswith(".0")}
    people = first | {k.replace("crm", "shop"): flawed(p, draw) for k, p in first.items()}
    with warehouse(tmp_path / "w.duckdb", people, both) as con:
        match(con, both)
        model = active_model(con)
    assert model
    levels = {
        level["label_for_charts"]: level["m_probability"] / level["u_probability"]
        for level in model.settings["comparisons"][-1]["comparison_levels"][1:]
    }
    assert levels["both crm"] < 0.2 < 1.5 < levels["different"]


# --- components and refinement --------------------------------------------------------------------------------

weights = st.dictionaries(
    st.tuples(st.integers(0, 7), st.integers(0, 7)).filter(lambda p: p[0] < p[1]),
    st.integers(-12, 20),
    max_size=20,
)


def one_component(
    scores: dict[tuple[int, int], int], strong=(), values=None, nodes=range(8), apart=()
) -> Component:
    listed = [(a, b, float(w), w >= 0) for (a, b), w in scores.items()]
    return Component(list(nodes), set(nodes), list(strong), list(apart), listed, values or {})


@settings(max_examples=200, deadline=None)
@given(weights, st.integers(1, 8), st.randoms(use_true_random=False))
def test_pieces_lie_inside_components_and_are_small_unless_strong(scores, most, shuffle):
    links = [(a, b, w) for (a, b), w in scores.items() if w >= 0]
    left, right, weight = (
        np.array([link[k] for link in links], dtype=t) for k, t in ((0, int), (1, int), (2, float))
    )
    whole = components.connected(left, right, 8)
    parts = components.pieces(left, right, weight, 8, most)
    assert all(whole[i] == whole[j] for i in range(8) for j in range(8) if parts[i] == parts[j])
    assert max(Counter(parts.tolist()).values()) <= most, "no link here is as strong as STRONGEST"
    if most == 8:
        assert Counter(Counter(parts.tolist()).values()) == Counter(Counter(whole.tolist()).values())
    order = list(range(len(links)))
    shuffle.shuffle(order)
    again = components.pieces(left[order], right[order], weight[order], 8, most)
    assert [again[i] == again[j] for i in range(8) for j in range(8)] == [
        parts[i] == parts[j] for i in range(8) for j in range(8)
    ]


@settings(max_examples=200, deadline=None)
@given(
    weights, st.lists(st.sampled_from([(0, 1), (2, 5), (3, 4)]), unique=True), st.integers(1, 8), st.randoms()
)
def test_refinement_keeps_every_limit_and_ignores_order(scores, strong, size, shuffle):
    values = {n: [("card", str(n % 3)), ("source:crm", str(n))] for n in range(6)}
    bounds = Bounds({"card": 2, "source:crm": 3}, size, -2.0)
    component = one_component(scores, strong, values)
    groups, cut = refine(component, bounds)
    assert sorted(n for group in groups for n in group) == list(range(8))
    for group in groups:
        assert len(group) <= size
        for kind, most in bounds.values.items():
            assert len({v for n in group for k, v in values.get(n, []) if k == kind}) <= most
    apart = {(a, b) for a, b, _ in cut}
    links = {*strong, *(pair for pair, w in scores.items() if w >= 0)}
    where = {n: i for i, group in enumerate(groups) for n in group}
    assert apart == {(a, b) for a, b in links if where[a] != where[b]}
    shuffled = one_component(dict(shuffle.sample(list(scores.items()), len(scores))), strong, values)
    assert sorted(refine(shuffled, bounds)[0]) == sorted(groups)


UNLIMITED = Bounds({}, 100, -2.0)


def test_a_chain_does_not_hold_against_the_evidence():
    chain = {(0, 1): 9, (2, 3): 9, (1, 2): 1, (0, 2): -8, (0, 3): -8, (1, 3): -8}
    groups, cut = refine(one_component(chain, nodes=range(4)), UNLIMITED)
    assert sorted(groups) == [[0, 1], [2, 3]]
    assert cut == [(1, 2, "other records of both contradict it")]


def test_a_chain_holds_when_the_rest_agrees():
    groups, cut = refine(one_component({(0, 1): 9, (1, 2): 5, (0, 2): -1}, nodes=range(3)), UNLIMITED)
    assert groups == [[0, 1, 2]]
    assert cut == []


def test_nodes_that_are_never_scored_do_not_speak_against_a_link():
    component = one_component({(0, 1): 2}, strong=[(0, n) for n in range(2, 8)])
    component.scorable.difference_update(range(2, 8))
    assert refine(component, UNLIMITED)[0] == [list(range(8))]


def test_a_strong_identifier_outweighs_scores_but_no_limit():
    component = one_component({(0, 1): -9}, strong=[(0, 1)], nodes=range(2))
    assert refine(component, UNLIMITED)[0] == [[0, 1]]
    held = one_component({}, strong=[(0, 1)], values={n: [("card", str(n))] for n in (0, 1)}, nodes=range(2))
    groups, cut = refine(held, Bounds({"card": 1}, 100, -2.0))
    assert groups == [[0], [1]]
    assert cut == [(0, 1, "a limit of identity.yaml")]


@settings(max_examples=100, deadline=None)
@given(weights, weights)
def test_refinement_is_local(here, there):
    """What happens elsewhere does not change this part (the case of Splink pull request 3031)."""
    moved = {(a + 8, b + 8): w for (a, b), w in there.items()}
    alone = refine(one_component(here), UNLIMITED)[0]
    together = refine(one_component({**here, **moved}, nodes=range(16)), UNLIMITED)[0]
    assert sorted(alone) == sorted(group for group in together if group[0] < 8)


@st.composite
def one_edit_apart(draw: st.DrawFn) -> tuple[str, str]:
    text = draw(st.text("abc019", min_size=1, max_size=16))
    at, letter = draw(st.integers(0, len(text) - 1)), draw(st.sampled_from("abc019"))
    swapped = text[:at] + text[at : at + 2][::-1] + text[at + 2 :]
    edits = [
        text[:at] + letter + text[at:],
        text[:at] + text[at + 1 :],
        text[:at] + letter + text[at + 1 :],
        swapped,
    ]
    other = draw(st.sampled_from(edits))
    return draw(st.sampled_from([(text, other), (other, text)]))


@settings(max_examples=300, deadline=None)
@given(one_edit_apart(), st.sampled_from([(3, 3), (8, 4)]))
def test_the_cheap_guard_before_edit_distances_lets_every_single_edit_pass(pair, ends):
    condition = comparisons._one_end("x", *ends)
    [(passes,)] = duckdb.execute(
        f"select {condition} from (select ? as x_l, ? as x_r)", list(pair)
    ).fetchall()
    assert passes


EDGE = st.tuples(
    st.sampled_from("abc"),
    st.sampled_from("xyz"),
    st.sampled_from(["probabilistic", "deterministic"]),
    st.floats(0.01, 1),
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(EDGE, max_size=8, unique_by=lambda e: e[:3]),
    st.sets(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"))),
)
def test_published_quality_is_that_of_the_scored_links_that_were_not_cut(edges, cut):
    with duckdb.connect() as con:
        con.execute(
            """create schema identity;
            create table identity.edges
                (left_key text, right_key text, type text, match_probability double, accepted boolean);
            create table identity.cut_links (left_key text, right_key text, cut_probability double)"""
        )
        for edge in edges:
            con.execute("insert into identity.edges values (?, ?, ?, ?, ?)", edge)
        weighed = {(a, b): p for a, b, kind, p, accepted in edges if kind == "probabilistic" and accepted}
        for pair in cut:
            con.execute("insert into identity.cut_links values (?, ?, ?)", [*pair, weighed.get(pair)])
        found = published_quality(con, scored_totals(con))
    scored = [
        (p, accepted and (a, b) not in cut) for a, b, kind, p, accepted in edges if kind == "probabilistic"
    ]
    held = [p for p, holds in scored if holds]
    assert found["expected_precision"] == (pytest.approx(sum(held) / len(held)) if held else None)
    recall = sum(held) / sum(p for p, _ in scored) if held else None
    assert found["expected_recall_of_candidates"] == (pytest.approx(recall) if held else None)
