"""One run as a whole: what is prepared before it, the numbers each stage shows, and the summary at its end.

Numbers are counts and shares only, under the same keys at every run, so that Dagster plots them over time.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline import charts, laws, profile_ids, publish
from profile_pipeline.config.load import Config
from profile_pipeline.config.project import Project
from profile_pipeline.errors import PipelineError
from profile_pipeline.identity import clusters, edges, model_charts, relationships
from profile_pipeline.identity.model import active_model
from profile_pipeline.identity.model_report import figures, recall_lost
from profile_pipeline.identity.refine import LIMIT_BROKEN
from profile_pipeline.profiles import lineage
from profile_pipeline.raw import ledger
from profile_pipeline.warehouse import count, facts, literal, rows, scalar, table_exists, transaction

Numbers = dict[str, Any]


def moment(text: str) -> datetime:
    """An ISO time that counts as now; UTC where it names no zone. Raises PipelineError for anything else."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise PipelineError("--as-of: not an ISO time; write it like 2026-04-02T18:00:00+01:00") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def forget_derived(con: DuckDBPyConnection) -> None:
    """Let every derived table be computed afresh; profile ids and models persist."""
    with transaction(con):
        con.execute("delete from state.built")
        if table_exists(con, "records.loads"):
            con.execute("update records.loads set rules = ''")


def require_deliveries(con: DuckDBPyConnection, project: Project) -> None:
    """Raise while not a single file has ever been delivered."""
    if not count(con, "raw.files"):
        raise PipelineError(
            f"no deliveries yet: put files that match `files:` of sources.yaml into {project.data / 'sources'}"
        )


def refused_files(con: DuckDBPyConnection, source: str | None = None) -> list[str]:
    """Files (of one source, or of all) that could not be read and are still there, each with its reason and the way out."""
    found = rows(
        con,
        "select name, reason from raw.files where state = 'refused' and source = coalesce(?, source) order by name",
        [source],
    )
    return [
        f"{name}: {reason}" + ("" if reason == ledger.VANISHED else ", or take the file away")
        for name, reason in found
    ]


def with_threshold(config: Config, threshold: float | None) -> Config:
    """The same rules with another threshold for links."""
    if threshold is None:
        return config
    matching = config.identity.matching.model_copy(update={"threshold": threshold})
    return config.model_copy(update={"identity": config.identity.model_copy(update={"matching": matching})})


def source_numbers(con: DuckDBPyConnection, name: str) -> Numbers:
    """Files and rows of a source by what became of them."""
    found = rows(
        con,
        "select count(*) filter (state = 'loaded'), count(*) filter (state = 'refused'),"
        " count(*) filter (state = 'duplicate'), coalesce(sum(rejected_count), 0) from raw.files where source = ?",
        [name],
    )[0]
    return dict(
        zip(
            ("files_loaded", "files_refused", "files_repeated", "lines_rejected"),
            map(int, found),
            strict=True,
        )
    )


def validation_numbers(con: DuckDBPyConnection, name: str) -> Numbers:
    """Rows accepted and refused by the expectations of a source."""
    refused = count(con, f"records.{name}", "reasons is not null")
    total = count(con, f"records.{name}")
    return {"rows_quarantined": refused, "quarantine_rate": refused / total if total else 0.0}


def clock_numbers(con: DuckDBPyConnection) -> Numbers:
    """How often a record has no usable time of its own."""
    share = scalar(
        con, "select count(*) filter (clock <> 'source') / greatest(count(*), 1) from records.current"
    )
    return {"fallback_to_ingestion_clock_share": float(share)}


def event_numbers(con: DuckDBPyConnection) -> Numbers:
    """Events by attribution, repeated deliveries and those that say something else, late events, and expired ones."""
    found = dict(rows(con, "select attribution, count(*) from records.event_subjects group by 1"))
    [(repeated, corrected, late)] = rows(
        con,
        "select coalesce(sum(deliveries - 1), 0), count(*) filter (corrected), count(*) filter (late) from records.events",
    )
    names = ("stated", "inferred", "pseudonymous")
    return {
        **{f"events_{n}": found.get(n, 0) for n in names},
        "repeated_deliveries": int(repeated),
        "corrected_events": corrected,
        "late_events": late,
        "expired_events": count(con, "records.expired_events"),
    }


def quarantine_numbers(con: DuckDBPyConnection) -> Numbers:
    """Refused rows by stage."""
    found = dict(rows(con, "select stage, count(*) from records.quarantine group by 1"))
    return {"unreadable_rows": found.get("raw", 0), "rows_failing_expectations": found.get("records", 0)}


def node_numbers(con: DuckDBPyConnection) -> Numbers:
    """Nodes by kind, and suspended values."""
    kinds = dict(rows(con, "select kind, count(*) from identity.nodes group by 1"))
    return {
        **{f"nodes_{kind}": kinds.get(kind, 0) for kind in ("record", "person", "pseudonymous")},
        "generic_values": count(con, "identity.generic_values"),
    }


def spelling_numbers(con: DuckDBPyConnection) -> Numbers:
    """Profiles that normalising identifiers saved."""
    return {
        "duplicates_avoided_by_normalisation": facts(con, "metrics.profiles").get("duplicates_avoided", 0)
    }


def model_numbers(con: DuckDBPyConnection) -> Numbers:
    """Which model scores, in single numbers and three pictures."""
    models = count(con, "identity.models")
    active = active_model(con)
    if active is None:
        return {"model_id": "none", "models": models}
    known = {name: value for name, value in asdict(figures(active)).items() if value is not None}
    return {
        "model_id": active.model_id,
        "models": models,
        **known,
        "weights_of_levels": chart(model_charts.weights_chart(active), "match weights of the levels"),
        "shares_of_levels": chart(model_charts.m_and_u_chart(active), "m and u of the levels"),
        "threshold_choice": chart(
            model_charts.threshold_chart(active), "expected precision and recall by threshold"
        ),
    }


def edge_numbers(con: DuckDBPyConnection) -> Numbers:
    """Links by kind, the threshold and what it is expected to give; with the histogram of match weights."""
    noted = facts(con, "identity.edges")
    kinds = dict(rows(con, "select type, count(*) from identity.edges where accepted group by 1"))
    svg = charts.histogram(
        edges.weight_histogram(con), "Scored pairs by match weight", noted.get("threshold"), "threshold"
    )
    return {
        "links_deterministic": kinds.get("deterministic", 0),
        "links_probabilistic": kinds.get("probabilistic", 0),
        "scored_pairs": count(con, "identity.edges", "type = 'probabilistic'"),
        "threshold": float(noted.get("threshold") or 0.0),
        **{
            name: value
            for name, value in edges.expected_quality(edges.scored_totals(con)).items()
            if value is not None
        },
        "recall_lost_to_large_blocks": recall_lost(con),
        "match_weights": chart(svg, "match weights"),
    }


def chart(svg: str, title: str) -> "Chart":
    """An inline picture for the Dagster UI."""
    return Chart(charts.as_markdown(svg, title))


class Chart(str):
    """Markdown with an inline SVG; the shell shows it as such."""

    __slots__ = ()


def cluster_numbers(con: DuckDBPyConnection) -> Numbers:
    """How many nodes became how many people, with the histogram of cluster sizes."""
    sizes = clusters.size_histogram(con)
    nodes, groups = sum(s * n for s, n in sizes.items()), sum(sizes.values())
    return {
        "nodes": nodes,
        "clusters": groups,
        "match_rate": 1 - groups / nodes if nodes else 0.0,
        "largest_cluster": max(sizes, default=0),
        "flagged_nodes": count(con, "identity.clusters", "flagged"),
        "links_contradicted": count(con, "identity.cut_links") - cut_links(con),
        "identities_attached": count(con, "identity.attachments"),
        "expected_precision_of_links": float(facts(con, "identity.clusters").get("expected_precision") or 0),
        "cluster_sizes": chart(
            charts.histogram(list(sizes.items()), "Clusters by number of nodes"), "cluster sizes"
        ),
    }


def cut_links(con: DuckDBPyConnection) -> int:
    """Links left out to keep a limit."""
    return count(con, "identity.cut_links", f"reason = {literal(LIMIT_BROKEN)}")


def ledger_numbers(con: DuckDBPyConnection) -> Numbers:
    """What the newest batch did to profile ids, and runs since then."""
    before = "select max(revision) from identity.revisions where batch < (select max(batch) from raw.batches)"
    happened = profile_ids.changes(con, scalar(con, before) or 0)
    kinds = ("created", "merged", "split", "retired", "revived", "grew", "shrank", "record_moved", "pinned")
    effect = facts(con, "identity.membership")
    return {
        "active_profiles": count(con, "identity.registry", "status = 'active'"),
        **{f"profiles_{kind}": happened[kind] for kind in kinds},
        "ids_survived": effect.get("survived", 0),
        "records_moved": effect.get("moved", 0),
        "largest_changed_profile": effect.get("largest", 0),
        "share_of_profiles_changed": effect.get("changed", 0) / max(effect.get("profiles", 0), 1),
        "changes_waiting_for_approval": count(con, "identity.pending_changes"),
    }


def relationship_numbers(con: DuckDBPyConnection) -> Numbers:
    """Shared values and the profiles they tie together, by kind; values shared too widely to name profiles apart."""
    found = {
        kind: (shared, profiles)
        for kind, shared, profiles in rows(
            con,
            "select kind, count(distinct relationship_id), count(distinct profile_id)"
            " from identity.relationships group by kind",
        )
    }
    numbers: Numbers = {"shared_too_widely": count(con, "identity.relationships", "profile_id is null")}
    for kind in relationships.KINDS:
        shared, profiles = found.get(kind, (0, 0))
        numbers |= {f"relationships_{kind}": shared, f"profiles_in_{kind}": profiles}
    return numbers


def pin_numbers(con: DuckDBPyConnection) -> Numbers:
    """Values that stewards have pinned, and pins that the newest batch made retire."""
    newest = "noted_at = (select max(as_of) from raw.batches)"
    return {
        "values_pinned": count(con, "profiles.pinned_values"),
        "pins_retired": count(con, "profiles.value_pins", f"event = 'retired' and {newest}"),
    }


def policy_numbers(con: DuckDBPyConnection, policy: str) -> Numbers:
    """Conflicts and survivorship under the default policy."""
    won = lineage.survivorship(con, policy)
    total = sum(n for _, n in won) or 1
    return {
        "fields_in_conflict": sum(n for _, n in lineage.conflicts(con, policy)),
        **{f"share_won_by_{source}": n / total for source, n in won},
    }


def profile_numbers(con: DuckDBPyConnection) -> Numbers:
    """Profiles by kind."""
    kinds = dict(rows(con, "select kind, count(*) from profiles.unified group by 1"))
    return {"persons": kinds.get("person", 0), "pseudonymous": kinds.get("pseudonymous", 0)}


@dataclass(frozen=True)
class Before:
    """What there was when a run began: the time, the live generation and the revision of profile ids last published."""

    time: datetime
    generation: int | None
    revision: int


def before(project: Project) -> Before:
    """What there is now."""
    live, known = publish.current(project), publish.generations(project)
    revisions = [generation.manifest.get("revision") or 0 for generation in known]
    return Before(datetime.now(UTC), live.number if live else None, max(revisions, default=0))


def check_counts(con: DuckDBPyConnection, config: Config) -> dict[str, Any]:
    """Expectations and how many did not hold, then each; blocking ones held, or nothing would be published."""
    found = rows(con, "select count(*), count(*) filter (not success) from records.validations")[0]
    outcomes = [asdict(check) | {"table": table} for table, check in laws.all_checks(con, config)]
    return {"expectations": int(found[0]), "not_met": int(found[1]), "outcomes": outcomes}


@dataclass(frozen=True)
class Summary:
    """The end of a run in numbers. `happened`: to profile ids, by kind, in this run alone."""

    rows_in: int
    quarantined: int
    events: int
    records: int
    persons: int
    pseudonymous: int
    duplicates_avoided: int
    links: dict[str, int]
    happened: dict[str, int]
    pins: dict[str, int]


def summary(con: DuckDBPyConnection, config: Config, since: int = 0) -> Summary:
    """What a person wants to know after a run. `since`: the revision of profile ids before it."""
    people = profile_numbers(con)
    return Summary(
        rows_in=int(scalar(con, "select coalesce(sum(row_count), 0) from raw.files where state = 'loaded'")),
        quarantined=count(con, "records.quarantine"),
        events=count(con, "records.events"),
        records=count(con, "records.current"),
        persons=people["persons"],
        pseudonymous=people["pseudonymous"],
        duplicates_avoided=spelling_numbers(con)["duplicates_avoided_by_normalisation"],
        links=_links(con, config),
        happened=dict(profile_ids.changes(con, since)),
        pins=pin_numbers(con),
    )


def _links(con: DuckDBPyConnection, config: Config) -> dict[str, int]:
    found = {
        f"shared {name}": 0
        for name, space in config.namespaces.items()
        if space.link and space.kind == "person"
    }
    by_name = rows(
        con,
        "select namespace, count(*) from identity.edges where accepted and type = 'deterministic' group by 1",
    )
    found |= {f"shared {name}": n for name, n in by_name}
    return found | {"probabilistic": count(con, "identity.edges", "accepted and type = 'probabilistic'")}
