"""Writes the measured tables into README.md and benchmarks/README.md, from the JSON files in benchmarks/results.

    python benchmarks/tables.py            # write
    python benchmarks/tables.py --check    # exit code 1 when a table differs from its JSON

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`; only what is between such marks is touched.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md", ROOT / "docs" / "serve.md")
RESULTS = ROOT / "benchmarks" / "results"
UNMEASURED = "Not measured yet."
OURS = "profile-pipeline"
Json = dict[str, Any]


def main() -> int:
    """Write every page whose tables differ, or only say so."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing")
    arguments = parser.parse_args()
    found = tables(RESULTS)
    stale = [
        page for page in PAGES if filled(page.read_text(encoding="utf-8"), found) != page.read_text("utf-8")
    ]
    for page in stale:
        print(f"{page.relative_to(ROOT)}: {'differs' if arguments.check else 'written'}")
        if not arguments.check:
            page.write_text(filled(page.read_text(encoding="utf-8"), found), encoding="utf-8")
    return int(arguments.check and bool(stale))


def filled(page: str, found: dict[str, str]) -> str:
    """A page with the text between known marks replaced."""
    names = "|".join(re.escape(name) for name in found)
    pattern = rf"(<!-- ({names}) -->\n).*?(<!-- /\2 -->)"
    return re.sub(pattern, lambda m: f"{m[1]}\n{found[m[2]]}\n\n{m[3]}", page, flags=re.DOTALL)


def tables(results: Path) -> dict[str, str]:
    """Name of a mark to its Markdown table."""
    makers = {
        "accuracy": ("accuracy", accuracy_table), "calibration": ("accuracy", calibration_table),
        "rivals": ("rivals", rivals_table), "rivals-cost": ("rivals", rivals_cost_table),
        "speed": ("speed", speed_table), "incremental": ("speed", incremental_table),
        "churn": ("churn", churn_table), "profiles": ("profiles", profiles_table),
        "engagement": ("engagement", engagement_table),
        "serve": ("serve", serve_table), "scale": ("scale", scale_table),
    }  # fmt: skip
    found = {}
    for name, (file, make) in makers.items():
        path = results / f"{file}.json"
        found[name] = make(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else UNMEASURED
    return found


def serve_table(found: Json) -> str:
    """What a visitor of the profile pages waits for, in milliseconds."""
    lookups, pages, names = found["lookups"], found["pages_ms"], found["search_by_name_ms"]
    lines = [
        [
            f"lookup by identifier, {lookups['rate']:g} a second",
            f"{lookups['p50']:.0f}",
            f"{lookups['p99']:.0f}",
        ],
        ["profile page", f"{pages['p50']:.0f}", f"{pages['p99']:.0f}"],
        ["first profile page after the start", f"{found['first_page_ms']:.0f}", ""],
        ["search by name", f"{names['p50']:.0f}", f"{names['p99']:.0f}"],
    ]
    headings = [
        f"milliseconds, {found['profiles']:,} profiles, {found['events']:,} events",
        "half within",
        "99 % within",
    ]
    return markdown(headings, lines)


def accuracy_table(sets: Json) -> str:
    """Published clusters by set, and what the scores promised."""
    lines = []
    for name, found in sets.items():
        if found.get("status", "done") != "done":
            lines.append([name, *[found["reason"]], *[""] * 8])
            continue
        e, accepted = found["evaluation"], found["calibration"]["accepted"]
        pairwise = e["pairwise"]
        lines.append(
            [
                name, f"{e['records']:,}", share(found["expected_precision"], 3), share(pairwise["precision"], 3),
                share(pairwise["recall"], 3),
                f"**{share(pairwise['f1'])}**", share(e["b_cubed"]["f1"]), share(e["clusters"]["f1"], 3),
                f"{share(accepted['expected_precision'], 3)} / {share(accepted['precision'], 3)}",
                share(found["calibration"]["expected_calibration_error"], 3),
            ]
        )  # fmt: skip
    titles = [
        "set", "records", "expected precision", "precision", "recall", "pairwise F1", "B-cubed F1", "cluster F1",
        "link precision, expected / measured", "calibration error",
    ]  # fmt: skip
    return markdown(titles, lines)


def calibration_table(sets: Json) -> str:
    """All sets together: pairs by score, and how many of them are true."""
    bins: dict[tuple[float, float], list[float]] = {}
    for found in sets.values():
        for row in found.get("calibration", {}).get("reliability", []):
            total = bins.setdefault((row["from"], row["to"]), [0.0, 0.0, 0.0])
            for k, weight in enumerate((1.0, row["mean_probability"], row["true_share"])):
                total[k] += row["pairs"] * weight
    lines = [
        [f"{low:g} to {high:g}", f"{pairs:,.0f}", share(scored / pairs, 3), share(true / pairs, 3)]
        for (low, high), (pairs, scored, true) in sorted(bins.items())
    ]
    return markdown(["match probability", "pairs", "mean", "share true"], lines)


def rivals_table(found: Json) -> str:
    """Pairwise F1 of every system; the best of a set in bold."""
    lines = []
    names = systems(found)
    for name, by_system in found["sets"].items():
        scores = [_f1(by_system.get(system)) for system in names]
        best = max((s for s in scores if isinstance(s, float)), default=None)
        lines.append([name, *(f"**{share(s)}**" if s == best else _shown(s) for s in scores)])
    return markdown(["set", *names], lines)


def rivals_cost_table(found: Json) -> str:
    """Seconds and peak memory of every system."""
    names = systems(found)
    lines = [
        [name, *(_cost(by_system.get(system)) for system in names)]
        for name, by_system in found["sets"].items()
    ]
    return markdown(["set", *names], lines)


def systems(found: Json) -> list[str]:
    """Systems in the order of their first measurement."""
    return list(dict.fromkeys(system for by_system in found["sets"].values() for system in by_system))


def _f1(measured: Json | None) -> float | str:
    if not measured or measured["status"] == "left out":
        return "-"
    return measured["evaluation"]["pairwise"]["f1"] if measured["status"] == "done" else measured["status"]


def _shown(score: float | str) -> str:
    return share(score) if isinstance(score, float) else score


def _cost(measured: Json | None) -> str:
    if not measured or measured["status"] == "left out":
        return "-"
    if measured["status"] != "done":
        return f"{measured['status']}, {measured['peak_rss_mb'] / 1024:.1f} GiB"
    return f"{sum(measured['seconds'].values()):.0f} s, {measured['peak_rss_mb'] / 1024:.1f} GiB"


def speed_table(found: Json) -> str:
    """Seconds from current records to clusters or profile ids, memory and F1, by number of records."""
    lines = []
    for by_size in found.values():
        for system, done in by_size.get("systems", {}).items():
            ratio = by_size["ratio"].get(system)
            start = [f"{by_size['records']:,}", system]
            if done["status"] != "done":
                lines.append([*start, f"{done['status']}: {done['reason']}", "", "", ""])
                continue
            linked = done.get("evaluation_with_strong_identifiers", done["evaluation"])
            figures = [f"{done['total_seconds']:.1f}", f"{ratio:.2f}" if ratio else "1"]
            peak = f"{done['peak_rss_mb'] / 1024:.2f}"
            lines.append([*start, *figures, peak, share(linked["pairwise"]["f1"], 3)])
    titles = ["records", "system", "seconds", "times as long", "peak GiB", "pairwise F1"]
    return markdown(titles, lines) if lines else UNMEASURED


def incremental_table(found: Json) -> str:
    """A change against a full run with training, and against a full rebuild under the same model."""
    lines = [
        [
            f"{by_size['records']:,}", f"{row['share']:.1%}",
            f"{row['new']:,} / {row['changed']:,} / {row['deleted']:,}", f"{row['incremental_seconds']:.1f}",
            f"{row['full_seconds']:.1f}", f"{row['rebuild_seconds']:.1f}", f"{row['ratio']:.1%}",
            "yes" if row["equal"] else "no",
        ]
        for by_size in found.values()
        for row in by_size.get("incremental", [])
    ]  # fmt: skip
    titles = [
        "records", "delivered", "new / changed / deleted", "seconds", "full run", "rebuild with the same model",
        "share of a full run", "same clusters and ids",
    ]  # fmt: skip
    return markdown(titles, lines) if lines else UNMEASURED


def profiles_table(found: Json) -> str:
    """Merge policies: everything, the same without losers in the lineage, and a change of 1 %."""
    steps = {
        "full": "all profiles, every candidate in the lineage", "winners_only": "all profiles, winners only",
        "change": "1 % of the records changed",
    }  # fmt: skip
    lines = []
    for by_size in found.values():
        whole = by_size["full"]["total"]
        for step, words in steps.items():
            done = by_size[step]
            seconds = [f"{done['seconds'][stage]:.1f}" for stage in ("candidates", "lineage", "unified")]
            lines.append(
                [
                    f"{by_size['records']:,}", words, f"{done['rows']:,}", *seconds, f"{done['total']:.1f}",
                    f"{done['total'] / whole:.0%}", f"{done['peak_rss_mb'] / 1024:.2f}",
                ]
            )  # fmt: skip
    titles = [
        "records", "merged", "lineage rows", "candidates s", "lineage s", "unified s", "together s",
        "share of all profiles", "peak GiB",
    ]  # fmt: skip
    return markdown(titles, lines) if lines else UNMEASURED


def engagement_table(found: Json) -> str:
    """From mapped events to audiences: everything, and a micro-batch, by stage."""
    words = {"full": "everything", "micro": "a micro-batch of 10,000 events"}
    stages = ["events", "timeline", "candidates", "lineage", "unified", "computed", "audiences"]
    lines = [
        [
            f"{found[step]['profiles']:,}", f"{found[step]['events']:,}", what,
            *(f"{found[step]['seconds'][stage]:.1f}" for stage in stages), f"{found[step]['total']:.1f}",
            f"{found[step]['peak_rss_mb'] / 1024:.2f}",
        ]
        for step, what in words.items()
    ]  # fmt: skip
    return markdown(["profiles", "all events", "seconds for", *stages, "together", "peak GiB"], lines)


def churn_table(found: Json) -> str:
    """Ids that survive each step."""
    lines = [
        [
            row["step"], f"{row['profiles']:,}", share(row["profile_ids"]["ids"]), share(row["possible"]),
            share(row["smallest_key"]["ids"]), share(row["profile_ids"]["records"]),
            share(row["smallest_key"]["records"]),
        ]
        for row in found["steps"]
    ]  # fmt: skip
    titles = [
        "step", "profiles", "ids surviving", "at most possible", "with smallest keys as ids",
        "records that keep their id", "with smallest keys as ids",
    ]  # fmt: skip
    return markdown(titles, lines)


def scale_table(found: Json) -> str:
    """The whole graph on generated deliveries: seconds of every stage."""
    stages, summary = found["stages"], found["summary"]
    parts = {
        "raw": ["raw"], "records": ["records"], "identity": ["identity"], "profiles": ["profiles"],
        "audiences, metrics": ["audiences", "metrics"], "published": ["published", "shared"],
    }  # fmt: skip
    titles = ["source records", "events", *parts, "whole run", "again, no news", "peak GiB"]
    seconds = [f"{sum(stages[stage] for stage in part):,.0f}" for part in parts.values()]
    line = [
        f"{summary['records']:,}", f"{summary['events']:,}", *seconds, f"{found['run_seconds']:,.0f}",
        f"{found['run_again_seconds']:,.0f}", f"{found['peak_gib']:.1f}",
    ]  # fmt: skip
    return markdown(titles, [line])


def share(value: float | None, digits: int = 4) -> str:
    """A share cut, not rounded, so that 0.99996 is not shown as 1."""
    if value is None:
        return "-"
    return f"{int(value * 10**digits + 1e-9) / 10**digits:.{digits}f}"


def markdown(titles: list[str], lines: list[list[str]]) -> str:
    """A Markdown table."""
    rows = [titles, ["---"] * len(titles), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


if __name__ == "__main__":
    raise SystemExit(main())
