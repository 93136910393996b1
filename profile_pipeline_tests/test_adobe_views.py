"""SQL written for Adobe's dashboards runs on the published database and says what plain Python says.

The statements have the tables, columns, joins and functions of the documented widgets (profiles, audiences and destinations
insights). Only the prefix of the store and `dateadd` are translated; one widget mixes a date with a word, which DuckDB wants cast.
"""

import hashlib
import json
import statistics
import subprocess
import sys
from collections.abc import Generator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from duckdb import DuckDBPyConnection

from profile_pipeline.metrics.adobe_views import COLUMN_TEXTS, VIEWS, as_duckdb
from profile_pipeline.warehouse import columns_of, rows
from profile_pipeline_tests.tally import Counted

Q = "qsaccel.profile_agg."
FIRST, SECOND, NOW = (date(2026, month, 1) for month in (2, 3, 4))
LAST_DATE = f"""(select max(process_date) last_process_date, merge_policy_id from {Q}adwh_lkup_process_delta_log
    where process_name = 'FACT_TABLES_PROCESSING' and process_status = 'SUCCESSFUL' group by merge_policy_id)"""


def number(name: str) -> int:
    """The number of a policy, namespace, audience or destination."""
    return (
        int.from_bytes(hashlib.md5(name.encode(), usedforsecurity=False).digest()[8:], "little") % 2147483647
    )


POLICY = number("golden")


class Desk:
    """Where an analyst pastes a statement."""

    def __init__(self, con: DuckDBPyConnection, counted: Counted) -> None:
        self.con = con
        self.tallies = counted.tallies

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        return rows(self.con, as_duckdb(query))

    def of(self, table: str, day: date = NOW) -> dict[Any, Any]:
        """The tally of a table by its first column."""
        return {row[0]: row[1:] for row in self.tallies[day][table]}

    def on(self, day: date) -> dict[str, list[tuple[Any, ...]]]:
        """The tally that holds on a day."""
        return self.tallies[max(d for d in self.tallies if d <= day)]

    def total(self, day: date) -> int:
        return self.on(day)["snapshots"][0][0]


@pytest.fixture
def desk(counted: Counted) -> Generator[Desk]:
    with duckdb.connect(str(counted.database), read_only=True) as con:
        con.execute("set TimeZone = 'UTC'")
        yield Desk(con, counted)


# ---------------------------------------------------------------- profiles


@pytest.mark.parametrize(
    ("column", "place"),
    [("count_of_profiles", 0), ("count_of_Single_Identity_profiles", 3), ("count_of_Orphan_profiles", 4)],
)
def test_profile_count_single_identity_and_unsegmented(desk: Desk, column: str, place: int) -> None:
    found = desk.ask(f"""
        SELECT {Q}adwh_dim_merge_policies.merge_policy_name, sum({Q}adwh_fact_profile.{column}) CNT
        FROM {Q}adwh_fact_profile LEFT OUTER JOIN {Q}adwh_dim_merge_policies
        ON {Q}adwh_dim_merge_policies.merge_policy_id=adwh_fact_profile.merge_policy_id
        WHERE {Q}adwh_fact_profile.date_key='{NOW}' AND {Q}adwh_fact_profile.merge_policy_id = {POLICY}
        GROUP BY {Q}adwh_dim_merge_policies.merge_policy_name;""")
    assert found == [("golden", desk.tallies[NOW]["snapshots"][0][place])]


@pytest.mark.parametrize("days", [30, 90])
def test_profile_count_change_falls_back_to_the_earliest_day(desk: Desk, days: int) -> None:
    fact = f"{Q}adwh_fact_profile_by_trendlines"
    [(added,)] = desk.ask(f"""
        SELECT (sum(count_of_profiles) - sum(count_of_profiles_days_ago)) profiles_added FROM
        (SELECT sum({Q}adwh_fact_profile.count_of_profiles) count_of_profiles, 0 count_of_profiles_days_ago
            FROM {Q}adwh_fact_profile WHERE {Q}adwh_fact_profile.merge_policy_id = {POLICY}
            AND {Q}adwh_fact_profile.date_key = '{NOW}'
        UNION ALL SELECT 0 count_of_profiles, CASE WHEN sum(cntondatediff) =0 THEN sum(cntmin) ELSE sum(cntondatediff)
            END AS count_of_profiles_days_ago FROM
            (SELECT coalesce(sum({fact}.count_of_profiles), 0) cntondatediff, 0 cntmin FROM {fact}
                WHERE {fact}.merge_policy_id ={POLICY} AND {fact}.date_key =dateadd(DAY, - {days}, '{NOW}')
            UNION ALL SELECT 0 cntondatediff, sum({fact}.count_of_profiles) countMin FROM {fact}
                WHERE {fact}.merge_policy_id = {POLICY} AND {fact}.date_key =
                (SELECT min({fact}.date_key) col FROM {fact} WHERE {fact}.merge_policy_id ={POLICY}
                    AND {fact}.date_key >= dateadd(DAY, - {days}, '{NOW}') AND {fact}.count_of_profiles IS NOT NULL) )b) a;""")
    before = max(NOW - timedelta(days=days), FIRST)
    assert added == desk.total(NOW) - desk.total(before) != 0


def test_profile_count_trend_has_every_day(desk: Desk) -> None:
    found = desk.ask(f"""
        SELECT date_key, sum(count_of_profiles) AS count_of_profiles FROM {Q}adwh_fact_profile_by_trendlines x
        INNER JOIN {LAST_DATE} y ON x.merge_policy_id = y.merge_policy_id
        WHERE date_key >= dateadd(DAY, -365, y.last_process_date) AND x.merge_policy_id = {POLICY} GROUP BY date_key;""")
    days = [FIRST + timedelta(days=n) for n in range((NOW - FIRST).days + 1)]
    assert sorted(found) == [(day, desk.total(day)) for day in days]


def test_profiles_count_change_trend(desk: Desk) -> None:
    fact = f"{Q}adwh_fact_profile_by_trendlines"
    found = desk.ask(f"""
        SELECT date_key, profiles_count_change FROM
        (SELECT rn_num, date_key, (count_of_profiles-lag(count_of_profiles, 1, 0) over( ORDER BY date_key))profiles_count_change
        FROM (SELECT {fact}.date_key, sum({fact}.count_of_profiles) count_of_profiles,
            row_number() OVER ( ORDER BY {fact}.date_key) rn_num FROM {fact}
            WHERE {fact}.merge_policy_id = {POLICY} AND {fact}.date_key >=dateadd(DAY, - 30 -1, '{NOW}')
            GROUP BY {fact}.date_key)a)b WHERE rn_num > 1;""")
    assert {day: n for day, n in found if n} == {NOW: desk.total(NOW) - desk.total(SECOND)}
    assert min(found)[0] == SECOND + timedelta(days=1), "the first day has nothing to differ from"


def test_profiles_count_change_trend_by_identity(desk: Desk) -> None:
    fact, space = f"{Q}adwh_fact_profile_by_namespace_trendlines", f"{Q}adwh_dim_namespaces"
    found = desk.ask(f"""
        SELECT date_key, namespace_description, profiles_count_change FROM
        (SELECT rn_num, date_key, namespace_description, (count_of_profiles - lag(count_of_profiles, 1, 0)
            over(PARTITION BY namespace_description ORDER BY date_key)) profiles_count_change FROM
            (SELECT {fact}.date_key, {space}.namespace_description, sum({fact}.count_of_profiles) count_of_profiles,
                row_number() OVER (PARTITION BY {space}.namespace_description ORDER BY {fact}.date_key) rn_num FROM {fact}
                LEFT OUTER JOIN {space} ON {fact}.namespace_id = {space}.namespace_id
                AND {fact}.merge_policy_id = {space}.merge_policy_id
            WHERE {fact}.merge_policy_id = {POLICY} AND {fact}.namespace_id= {number("crm_id")}
                AND {fact}.date_key >= dateadd(DAY, - 30 -1, '{NOW}')
            GROUP BY {fact}.date_key, adwh_dim_namespaces.namespace_description)a)b WHERE rn_num > 1;""")
    change = desk.of("namespaces")["crm_id"][1] - desk.of("namespaces", SECOND)["crm_id"][1]
    assert [row for row in found if row[2]] == [(NOW, "crm_id", change)]


@pytest.mark.parametrize(
    ("column", "place"), [("count_of_profiles", 1), ("count_of_Single_Identity_profiles", 2)]
)
def test_profiles_by_identity(desk: Desk, column: str, place: int) -> None:
    fact, space = f"{Q}adwh_fact_profile_by_namespace_trendlines", f"{Q}adwh_dim_namespaces"
    found = desk.ask(f"""
        SELECT {space}.namespace_description, sum({fact}.{column}) {column} FROM {fact} LEFT OUTER JOIN {space}
        ON {fact}.namespace_id = {space}.namespace_id AND {fact}.merge_policy_id = {space}.merge_policy_id
        WHERE {fact}.merge_policy_id = {POLICY} AND {fact}.date_key = '{NOW}'
        GROUP BY {fact}.date_key, {fact}.merge_policy_id, {space}.namespace_description ORDER BY {column} DESC;""")
    assert dict(found) == {name: row[place] for name, row in desk.of("namespaces").items()}


def overlap_query(one: str, other: str, segment: str = "") -> str:
    """Identity overlap, of all profiles or of an audience."""
    kind = "_by_segment" if segment else ""
    only = f"AND t.segment_id = {number(segment)}" if segment else ""
    fact = f"{Q}adwh_fact_profile_overlap_of_namespace{kind} t"
    single = f"{Q}adwh_fact_profile_by{'_segment_and' if segment else ''}_namespace_trendlines t"
    space = f"{Q}adwh_dim_namespaces z ON t.namespace_id = z.namespace_id AND t.merge_policy_id = z.merge_policy_id"
    where = f"WHERE t.merge_policy_id = {POLICY} AND t.date_key = '{NOW}' {only}"
    return f"""
        SELECT Sum(overlap_col1) overlap_col1, Sum(overlap_col2) overlap_col2, coalesce(Sum(overlap_count), 0) overlap_count FROM
        (SELECT 0 overlap_col1, 0 overlap_col2, Sum(count_of_profiles) overlap_count FROM {fact} {where}
            AND t.overlap_id IN (SELECT a.overlap_id FROM
                (SELECT {Q}adwh_dim_overlap_namespaces.overlap_id overlap_id, count(*) cnt_num FROM {Q}adwh_dim_overlap_namespaces
                WHERE {Q}adwh_dim_overlap_namespaces.merge_policy_id = {POLICY}
                AND {Q}adwh_dim_overlap_namespaces.overlap_namespaces in ('{one}', '{other}')
                GROUP BY {Q}adwh_dim_overlap_namespaces.overlap_id)a WHERE a.cnt_num>1 )
        UNION ALL SELECT count_of_profiles overlap_col1, 0 overlap_col2, 0 overlap_count FROM {single} JOIN {space}
            {where} AND z.namespace_description = '{one}'
        UNION ALL SELECT 0 overlap_col1, count_of_profiles overlap_col2, 0 Overlap_count FROM {single} JOIN {space}
            {where} AND z.namespace_description = '{other}' )a;"""


@pytest.mark.parametrize("pair", [("email", "crm_id"), ("cookie", "loyalty_card"), ("phone", "device")])
def test_identity_overlap(desk: Desk, pair: tuple[str, str]) -> None:
    sets = [(set(names.split(",")), n) for names, (_, n, *_) in desk.of("namespace_overlaps").items()]
    one, other = pair
    assert desk.ask(overlap_query(one, other)) == [
        tuple(sum(n for names, n in sets if wanted <= names) for wanted in ({one}, {other}, {one, other}))
    ]


# ---------------------------------------------------------------- audiences


def test_number_and_size_of_audiences(desk: Desk) -> None:
    fact, segments = f"{Q}adwh_fact_profile_by_segment_trendlines", f"{Q}adwh_dim_segments"
    sizes = {name: row[0] for name, row in desk.of("audiences").items() if row[0]}
    assert desk.ask(f"""
        SELECT count(DISTINCT a.segment_id) count_of_segments FROM {fact} a JOIN {LAST_DATE} b
        ON a.merge_policy_id= b.merge_policy_id AND a.date_key = b.last_process_date
        WHERE a.merge_policy_id= {POLICY};""") == [(len(sizes),)]
    found = desk.ask(f"""
        SELECT {fact}.date_key, {Q}adwh_dim_merge_policies.merge_policy_name, {segments}.segment, {segments}.segment_name,
            sum({fact}.count_of_profiles)count_of_profiles FROM {fact}
        LEFT OUTER JOIN {segments} ON {fact}.segment_id = {segments}.segment_id
        LEFT OUTER JOIN {Q}adwh_dim_merge_policies ON {fact}.merge_policy_id=adwh_dim_merge_policies.merge_policy_id
        WHERE {fact}.date_key = '{NOW}' AND {fact}.merge_policy_id= {POLICY}
        GROUP BY {fact}.date_key, {Q}adwh_dim_merge_policies.merge_policy_name, {segments}.segment, {segments}.segment_name
        ORDER BY count_of_profiles DESC LIMIT 20;""")
    top = sorted(sizes.values(), reverse=True)[:20]
    assert [row[4] for row in found] == top
    assert all(sizes[row[3]] == row[4] for row in found)
    assert desk.ask(f"""
        SELECT sum( {fact}.count_of_profiles ) count_of_profiles FROM {fact}
        LEFT OUTER JOIN {segments} ON {fact}.segment_id = {segments}.segment_id
        WHERE {fact}.segment_id = {number("loyal_gold")} AND {fact}.merge_policy_id = {POLICY}
        AND {fact}.date_key = '{NOW}';""") == [(sizes["loyal_gold"],)]


def test_audience_size_trends(desk: Desk) -> None:
    fact = f"{Q}adwh_fact_profile_by_segment_trendlines"
    now, before = (desk.of("audiences", day)["reachable_by_email"][0] for day in (NOW, SECOND))
    found = desk.ask(f"""
        SELECT date_key, sum(count_of_profiles) AS audience_size FROM {fact} x
        INNER JOIN {LAST_DATE} y ON x.merge_policy_id = y.merge_policy_id
        WHERE date_key >= dateadd(DAY, -30, y.last_process_date) AND x.segment_id = {number("reachable_by_email")}
        GROUP BY date_key, segment_id;""")
    assert len(found) == 31
    assert (dict(found)[NOW], dict(found)[NOW - timedelta(days=1)]) == (now, before)
    changes = desk.ask(f"""
        SELECT date_key, Profiles_added FROM (SELECT rn_num, date_key,
            (count_of_profiles-lag(count_of_profiles, 1, 0) over( ORDER BY date_key))Profiles_added FROM
            (SELECT date_key, sum(x.count_of_profiles)count_of_profiles, row_number() OVER ( ORDER BY date_key) rn_num
            FROM {fact} x INNER JOIN {LAST_DATE} y ON x.merge_policy_id = y.merge_policy_id
            WHERE segment_id = {number("reachable_by_email")} AND x.date_key >= dateadd(DAY, -30 -1, y.last_process_date)
            GROUP BY x.date_key) a)b WHERE rn_num > 1;""")
    assert dict(changes)[NOW] == now - before
    assert sum(n != 0 for _, n in changes) <= 1


def test_audience_by_identity_now_and_over_time(desk: Desk) -> None:
    fact, space = f"{Q}adwh_fact_profile_by_segment_and_namespace_trendlines", f"{Q}adwh_dim_namespaces"
    expected = {
        n: count for a, n, count, _ in desk.tallies[NOW]["audience_namespaces"] if a == "reachable_by_email"
    }
    found = desk.ask(f"""
        SELECT {space}.namespace_description, sum({fact}.count_of_profiles) count_of_profiles FROM {fact}
        LEFT OUTER JOIN {space} ON {fact}.namespace_id = {space}.namespace_id AND {fact}.merge_policy_id = {space}.merge_policy_id
        WHERE {fact}.segment_id = {number("reachable_by_email")} AND {fact}.merge_policy_id = {POLICY}
        AND {fact}.date_key = '{NOW}' GROUP BY {space}.namespace_description ORDER BY count_of_profiles DESC;""")
    assert dict(found) == expected
    trend = desk.ask(f"""
        SELECT sum(count_of_profiles) AS identities, date_key FROM {fact} x
        INNER JOIN {LAST_DATE} y ON x.merge_policy_id = y.merge_policy_id
        INNER JOIN {space} z ON x.namespace_id = z.namespace_id AND x.merge_policy_id = z.merge_policy_id
        WHERE x.date_key >= dateadd(DAY, -30, y.last_process_date) AND x.segment_id = {number("reachable_by_email")}
        AND z.namespace_description = 'crm_id' GROUP BY date_key;""")
    assert {day: n for n, day in trend}[NOW] == expected["crm_id"]


def test_identity_overlap_within_an_audience(desk: Desk) -> None:
    sets = [
        (set(s.split(",")), n)
        for a, s, _, n in desk.tallies[NOW]["audience_namespace_overlaps"]
        if a == "reachable_by_email"
    ]
    assert desk.ask(overlap_query("crm_id", "phone", "reachable_by_email")) == [
        tuple(
            sum(n for s, n in sets if wanted <= s) for wanted in ({"crm_id"}, {"phone"}, {"crm_id", "phone"})
        )
    ]


def test_audience_overlap_and_its_report(desk: Desk) -> None:
    fact, sizes = f"{Q}adwh_fact_profile_overlap_of_segments", f"{Q}adwh_fact_profile_by_segment_trendlines"
    segments = f"{Q}adwh_dim_segments"
    members = {name: row[0] for name, row in desk.of("audiences").items()}
    pairs = {
        (a, b): (n, percent)
        for a, b, n, percent in desk.tallies[NOW]["audience_overlaps"]
        if members[a] and members[b]
    }
    (one, other), (shared, _) = max(pairs.items(), key=lambda item: item[1][0])
    size = f"""FROM {sizes} LEFT JOIN {segments} ON {sizes}.segment_Id = {segments}.segment_Id
        WHERE {sizes}.merge_policy_id = {POLICY} AND {sizes}.date_key = '{NOW}' AND {segments}.segment_Id"""
    assert desk.ask(f"""
        SELECT Sum(overlap_col1) overlap_col1, Sum(overlap_col2) overlap_col2, Sum(overlap_count) Overlap_count FROM
        (SELECT 0 overlap_col1, 0 overlap_col2, sum(count_of_overlap)Overlap_count FROM {fact}
            WHERE {fact}.merge_policy_id = {POLICY} AND {fact}.date_key = '{NOW}'
            AND (({fact}.segment1={number(other)} AND {fact}.segment2={number(one)})
                OR ({fact}.segment1={number(one)} AND {fact}.segment2={number(other)}))
        UNION ALL SELECT sum(count_of_profiles) overlap_col1, 0 overlap_col2, 0 overlap_count {size} = {number(one)}
        UNION ALL SELECT 0 overlap_col1, sum(count_of_profiles) overlap_col2, 0 Overlap_count {size} = {number(other)} ) a;
        """) == [(members[one], members[other], shared)]
    half = f"""(SELECT sum(count_of_profiles) {{0}}_segment_audience_count, adwh_dim_segments.segment_name {{0}}_segment_name,
        adwh_fact_profile_by_segment_trendlines.merge_policy_id, adwh_fact_profile_by_segment_trendlines.segment_Id {{1}}
        FROM {sizes} JOIN {segments} ON {segments}.segment_id = {sizes}.segment_Id
        WHERE {sizes}.merge_policy_id = {POLICY} AND {sizes}.date_key = '{NOW}'
        GROUP BY {segments}.segment_name, {sizes}.merge_policy_id, {sizes}.segment_id)"""
    both = """max(source_segment_audience_count) + max(overlap_segment_audience_count) - max(overlap_audience_count)"""
    found = desk.ask(f"""
        SELECT source_segment_name, source_segment_id, overlap_segment_name, overlap_segment_id,
            max(source_segment_audience_count) source_segment_audience_count,
            max(overlap_segment_audience_count) overlap_segment_audience_count, max(overlap_audience_count) overlap_audience_count,
            CASE WHEN ({both}) > 0 THEN (cast(max(overlap_audience_count) AS DECIMAL(18, 2)) / cast(({both}) AS DECIMAL(18, 2)))
                * 100::DECIMAL(9, 2) ELSE 100.00 END overlapping_percentage
        FROM (SELECT adwh_fact_profile_overlap_of_segments.Segment1 source_segment_id,
                adwh_fact_profile_overlap_of_segments.Segment2 overlap_segment_id, Sum(count_of_overlap) overlap_audience_count
            FROM {fact} WHERE {fact}.merge_policy_id = {POLICY} AND {fact}.date_key = '{NOW}'
            GROUP BY {fact}.Segment2 , {fact}.Segment1) a
        INNER JOIN {half.format("source", "segment1")} b ON a.source_segment_id = b.segment1
        INNER JOIN {half.format("overlap", "segment2")} c ON a.overlap_segment_id = c.segment2
        GROUP BY source_segment_name, source_segment_id, overlap_segment_name, overlap_segment_id
        ORDER BY overlapping_percentage DESC LIMIT 5;""")
    assert [float(row[7]) for row in found] == pytest.approx(
        sorted((p for _, p in pairs.values()), reverse=True)[:5], abs=0.01
    )
    assert all(pairs[row[0], row[2]][0] == row[6] for row in found)


# ---------------------------------------------------------------- destinations

BRIDGE = f"{Q}adwh_dim_br_segment_destinations"
DESTINATION = f"{Q}adwh_dim_destination"
NEWEST = f"""(SELECT MAX(process_date) FROM {Q}adwh_lkup_process_delta_log
    WHERE process_name = 'FACT_TABLES_PROCESSING' AND process_status = 'SUCCESSFUL' )"""


def test_mapped_and_unmapped_audiences(desk: Desk) -> None:
    sizes = [name for name, row in desk.of("audiences").items() if row[0]]
    mapped = len({"win_back"} & set(sizes))
    assert desk.ask(f"""
        SELECT COUNT(DISTINCT (y.segment_id)) AS count_mapped_segments,
            COUNT(DISTINCT (x.segment_id)) - COUNT(DISTINCT (y.segment_id)) AS count_unmapped_segments,
            COUNT(DISTINCT (x.segment_id)) AS total_segments FROM {Q}adwh_fact_profile_by_segment_trendlines x
        LEFT JOIN {BRIDGE} y ON x.segment_id = y.segment_id
        INNER JOIN {LAST_DATE} z ON x.merge_policy_id = z.merge_policy_id AND x.date_key = z.last_process_date
        WHERE x.merge_policy_id = {POLICY};""") == [(mapped, len(sizes) - mapped, len(sizes))]


def test_counts_and_status_of_destinations(desk: Desk) -> None:
    here = number("handover")
    assert desk.ask(f"SELECT count(destination_id) AS total_number_of_destinations FROM {DESTINATION};") == [
        (2,)
    ]
    assert (
        desk.ask(f"""SELECT COUNT(CASE WHEN destination_status='enabled' THEN 1 END) AS count_of_active_destinations,
        COUNT(CASE WHEN destination_status='disabled' THEN 1 END) AS count_of_inactive_destinations FROM {DESTINATION};""")
        == [(1, 1)]
    )
    assert desk.ask(f"""SELECT destination_platform_name AS Destination_Platform_Name,
        COUNT(destination_id) AS Active_Destinations_Count
        FROM {DESTINATION} a INNER JOIN {Q}adwh_dim_destination_platform b ON a.destination_platform_id = b.destination_platform_id
        WHERE destination_status='enabled' GROUP BY destination_platform_name
        ORDER BY Active_Destinations_Count DESC LIMIT 20;""") == [("local", 1)]
    for count in (
        f"SELECT COUNT(segment_id) AS Activated_Audiences_Count FROM {BRIDGE} WHERE {NEWEST} BETWEEN start_date AND end_date"
        f" AND destination_id = {here};",
        f"SELECT count(segment_id) AS Activated_Audiences_Count FROM {BRIDGE} WHERE {NEWEST} BETWEEN start_date AND end_date;",
        f"SELECT COUNT(segment_id) AS mapped_audiences_count FROM {BRIDGE} WHERE destination_id = {here};",
    ):
        assert desk.ask(count) == [(1,)]


def test_most_used_and_recent_destinations(desk: Desk) -> None:
    here = number("handover")
    assert desk.ask(f"""
        SELECT {DESTINATION}.destination_name, {DESTINATION}.destination_id, {DESTINATION}.destination,
            count(DISTINCT {BRIDGE}.segment_id) segment_count FROM {DESTINATION}
        JOIN {BRIDGE} ON {DESTINATION}.destination_id = {BRIDGE}.destination_id
        WHERE {DESTINATION}.destination_name IS NOT NULL GROUP BY {DESTINATION}.destination_name, {DESTINATION}.destination,
            {DESTINATION}.destination_id ORDER BY segment_count DESC LIMIT 20;""") == [
        ("handover", here, "handover", 1)
    ]
    assert [
        row[0]
        for row in desk.ask(f"""SELECT DISTINCT destination, destination_name, create_time FROM {DESTINATION}
        WHERE destination_status = 'enabled' ORDER BY create_time DESC LIMIT 20;""")
    ] == ["handover"]
    recent = f"""FROM {BRIDGE} a INNER JOIN {Q}adwh_dim_segments b ON a.segment_id = b.segment_id
        INNER JOIN {DESTINATION} c ON a.destination_id = c.destination_id"""
    [(name, segment, where, at)] = (
        desk.ask(f"""SELECT segment_name, segment, destination_name, a.create_time create_time {recent}
        ORDER BY create_time DESC, segment LIMIT 20;""")
    )
    assert (name, segment, where, at.date()) == ("win_back", "win_back", "handover", SECOND)
    assert [
        row[4]
        for row in desk.ask(f"""SELECT c.destination_name, c.destination, c.destination_id, b.segment_name, b.segment,
        b.segment_id, a.create_time activated {recent} WHERE c.destination_id={here}
        ORDER BY a.create_time DESC, a.segment_id LIMIT 20;""")
    ] == ["win_back"]


def test_common_audiences_of_two_destinations(desk: Desk) -> None:
    side = f"""(SELECT b.destination_name, b.destination, b.destination_id, a.segment_id FROM {BRIDGE} a
        INNER JOIN {DESTINATION} b ON a.destination_id=b.destination_id WHERE b.destination_id={number("handover")})"""
    names = "k.destination_name1, k.destination_name2, b.segment_name, b.segment, b.segment_id"
    found = desk.ask(f"""
        SELECT {names}, sum(a.count_of_profiles) AS profile_count FROM
        (SELECT i.destination_name AS destination_name1, j.destination_name AS destination_name2, i.segment_id
            FROM {side} AS i INNER JOIN {side} AS j ON i.segment_id=j.segment_id) AS k
        INNER JOIN {Q}adwh_fact_profile_by_segment a ON a.segment_id = k.segment_id
        INNER JOIN {Q}adwh_dim_segments b ON b.segment_id = k.segment_id
        INNER JOIN {LAST_DATE} c ON a.merge_policy_id = c.merge_policy_id WHERE a.date_key = c.last_process_date
        GROUP BY {names} ORDER BY profile_count DESC LIMIT 20;""")
    size = desk.of("audiences")["win_back"][0]
    assert [row[5] for row in found] == ([size] if size else [])


def test_size_trend_and_health_of_a_mapped_audience(desk: Desk) -> None:
    here, fact = number("handover"), f"{Q}adwh_fact_profile_by_segment_trendlines"
    sizes = [
        n for day in range(30, -1, -1)
        if (n := {a: row[0] for a, *row in desk.on(NOW - timedelta(days=day))["audiences"]}["win_back"])
    ]  # fmt: skip
    trend = desk.ask(f"""
        SELECT d.destination_name, d.destination, d.destination_id, b.segment_name, b.segment, c.segment_id, a.date_key,
            sum(a.count_of_profiles) AS profile_count FROM {fact} a
        INNER JOIN {Q}adwh_dim_segments b ON a.segment_id = b.segment_id INNER JOIN {BRIDGE} c ON a.segment_id = c.segment_id
        INNER JOIN {DESTINATION} d ON c.destination_id = d.destination_id
        INNER JOIN {LAST_DATE} f ON a.merge_policy_id = f.merge_policy_id
        WHERE a.date_key >= dateadd(DAY, -30-1, f.last_process_date) AND d.destination_id = {here}
        AND c.segment_id = {number("win_back")} GROUP BY d.destination_name, d.destination, d.destination_id, b.segment_name,
            b.segment, c.segment_id, a.date_key;""")
    assert [row[7] for row in sorted(trend, key=lambda row: row[6])][-len(sizes) :] == sizes
    health = desk.ask(f"""
        SELECT destination_name, SEGMENT, segment_id, segment_name, avg_profile_count, latest_profile_count, stddev_profile_count,
            profile_count_z_factor FROM
        (SELECT b.destination_name, f.segment_id, c.segment_name, c.segment, f.avg_profile_count, f.latest_profile_count,
            f.stddev_profile_count, CASE WHEN stddev_profile_count = 0 THEN 0
            ELSE(f.latest_profile_count - f.avg_profile_count)/f.stddev_profile_count END AS profile_count_z_factor FROM
            (SELECT segment_id, avg(profile_count) AS avg_profile_count,
                sum(CASE WHEN last_process_date = date_key THEN profile_count ELSE 0 END) AS latest_profile_count,
                stdevp(profile_count) AS stddev_profile_count FROM
                (SELECT x.date_key, x.segment_id, d.last_process_date, sum(x.count_of_profiles) AS profile_count FROM {fact} x
                INNER JOIN {LAST_DATE} d ON x.merge_policy_id = d.merge_policy_id
                WHERE x.date_key >= dateadd (DAY, -30, d.last_process_date)
                GROUP BY x.date_key, x.segment_id, d.last_process_date) AS t GROUP BY segment_id) AS f
        INNER JOIN {Q}adwh_dim_segments c ON f.segment_id = c.segment_id INNER JOIN {BRIDGE} a ON a.segment_id = c.segment_id
        INNER JOIN {DESTINATION} b ON a.destination_id = b.destination_id WHERE b.destination_id = {here}) AS m
        WHERE abs(m.profile_count_z_factor) >= 0 ORDER BY m.latest_profile_count DESC LIMIT 20;""")
    spread = statistics.pstdev(sizes)
    assert [(row[1], row[5]) for row in health] == [("win_back", sizes[-1])]
    assert float(health[0][7]) == pytest.approx(
        (sizes[-1] - statistics.mean(sizes)) / spread if spread else 0
    )


def test_scheduled_activations(desk: Desk) -> None:
    found = desk.ask(
        f"""
        SELECT p.destination_platform , p.destination_platform_name AS platform , d.destination_name , d.destination ,
            br.start_date , CASE WHEN br.end_date = '9999-12-31' THEN 'Ongoing' ELSE br.end_date END AS end_date
        FROM {BRIDGE} br JOIN {DESTINATION} d ON br.destination_id = d.destination_id
        JOIN {Q}adwh_dim_destination_platform p ON d.destination_platform_id = p.destination_platform_id
        JOIN (SELECT {NEWEST} AS last_process_date) lpd ON lpd.last_process_date BETWEEN br.start_date AND br.end_date
        AND br.segment_id = {number("win_back")};"""
    )
    assert found == [("local", "local", "handover", "handover", SECOND, "Ongoing")]


# ---------------------------------------------------------------- the views themselves


def test_every_column_of_every_view_is_explained_and_none_besides(desk: Desk) -> None:
    assert {column for view in VIEWS for column in columns_of(desk.con, view)} == set(COLUMN_TEXTS)


def test_an_older_client_runs_them(counted: Counted) -> None:
    cli = Path(sys.executable).with_name("duckdb")
    if not cli.exists():
        pytest.skip("the package duckdb-cli is not installed")
    for view in VIEWS:
        query = f"select count(*) as n from {view}"
        done = subprocess.run(
            [cli, "-readonly", "-json", counted.database, query], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)[0]["n"] > 0, view


@pytest.mark.parametrize(
    ("query", "translated"),
    [
        (
            "x >= dateadd(DAY, -30 -1, y.last)",
            "x >= (cast(y.last as date) + to_days(cast( -30 -1 as integer)))",
        ),
        (
            "dateadd (day, - 30, '2026-01-01')",
            "(cast('2026-01-01' as date) + to_days(cast( - 30 as integer)))",
        ),
        ("select qsaccel.profile_agg.t.a from qsaccel.profile_agg.t", "select t.a from t"),
    ],
)
def test_what_is_translated(query: str, translated: str) -> None:
    assert as_duckdb(query) == translated
