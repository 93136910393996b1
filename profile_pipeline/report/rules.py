"""The rules of the verdict: what is measured of a generation, against which limit, and what to do when it does not hold.

Limits are `trust` of publication.yaml, as the generation's manifest keeps them. A rule for which there is nothing to measure
yet says so and counts neither way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from profile_pipeline.config.publication import TrustRules
from profile_pipeline.report.facts import Facts
from profile_pipeline.report.numbers import age, amount, percent, plural, share, signed

Level = Literal["trusted", "look", "stop"]


@dataclass(frozen=True)
class Finding:
    """What one rule says; `do` is for the reader of one that does not hold."""

    level: Level
    rule: str
    limit: str
    measured: str
    do: str = ""
    asked: bool = True


ROLL_BACK = "Make the generation before live (profile-pipeline publish rollback) and report this as a defect."


def _balance(facts: Facts, _limits: TrustRules) -> Finding:
    rule, limit = "Every delivered row is accounted for", "no row is missing"
    missing = sum(abs(fates.missing) for fates in facts.fates)
    if missing:
        where = ", ".join(fates.source for fates in facts.fates if fates.missing)
        return Finding("stop", rule, limit, f"{plural(missing, 'row')} without a fate, in {where}", ROLL_BACK)
    return Finding("trusted", rule, limit, f"{amount(facts.all_fates.delivered)} rows, none missing")


def _some_profiles(facts: Facts, _limits: TrustRules) -> Finding:
    rule, limit = "There are profiles", "at least one"
    if not facts.published:
        todo = "Look at quarantine below, and at the mapping in rules/sources.yaml."
        return Finding("stop", rule, limit, "none", todo)
    return Finding("trusted", rule, limit, plural(facts.published, "profile"))


def _figures_agree(facts: Facts, _limits: TrustRules) -> Finding:
    rule, limit = "Figures agree with each other", "every count of the profiles gives the same number"
    now = facts.now
    counts = [now.profiles, now.persons + now.pseudonymous, *(policy.profiles for policy in facts.policies)]
    counts += [sum(c.profiles for c in found) for found in (facts.combinations, facts.source_combinations)]
    wrong = [count for count in counts if count != facts.published]
    if wrong:
        measured = f"{amount(wrong[0])} in one, {amount(facts.published)} in another"
        return Finding("stop", rule, limit, measured, ROLL_BACK)
    return Finding("trusted", rule, limit, f"{amount(facts.published)} by {len(counts) + 1} ways of counting")


def _files_read(facts: Facts, _limits: TrustRules) -> Finding:
    rule, limit = "Every file could be read", "no file is refused"
    refused = facts.about.files.get("refused", 0)
    if refused:
        todo = "None of their rows is in: profile-pipeline status names them and the reason."
        return Finding("look", rule, limit, f"{plural(refused, 'file')} refused", todo)
    return Finding("trusted", rule, limit, f"{plural(facts.about.files.get('loaded', 0), 'file')} read")


def _refused(facts: Facts, limits: TrustRules) -> Finding:
    rule = "Few rows are refused"
    limit = f"at most {percent(limits.refused_look)} of each source; over {percent(limits.refused_stop)} is too many"
    shares = [(f.quarantined / f.delivered, f.source, f) for f in facts.fates if f.delivered]
    if not shares:
        return _not_asked(rule, limit)
    worst, name, fates = max(shares, key=lambda each: each[:2])
    measured = f"{share(fates.quarantined, fates.delivered)} of {name}, the most"
    todo = "The reasons are below; repair the rows and deliver them again (profile-pipeline quarantine export, replay)."
    return Finding(_level(worst, limits.refused_look, limits.refused_stop), rule, limit, measured, todo)


def _expectations(facts: Facts, limits: TrustRules) -> Finding:
    rule, limit = "Expectations hold", f"each fails for at most {percent(limits.failing_look)} of the rows"
    if not facts.checks:
        return _not_asked(rule, limit)
    bad = [c for c in facts.checks if not c.success and c.failed > limits.failing_look * c.evaluated]
    if bad:
        names = ", ".join(f"{check.name} of {check.table}" for check in bad[:3])
        others = f" and {plural(len(bad) - 3, 'other')}" if len(bad) > 3 else ""
        todo = "Ask the owner of the source, or change the expectation if it asks too much."
        return Finding("look", rule, limit, f"{names}{others} fail for more", todo)
    some = sum(not check.success for check in facts.checks)
    few = f", {some} of them fail for a few rows" if some else ""
    return Finding("trusted", rule, limit, f"{plural(len(facts.checks), 'expectation')}{few}")


def _clocks(facts: Facts, limits: TrustRules) -> Finding:
    rule, limit = "Rows say when they are from", f"at most {percent(limits.no_time_look)} of a source do not"
    shares = [
        (s.without_time / (s.records + s.events), s.name) for s in facts.sources if s.records + s.events
    ]
    if not shares:
        return _not_asked(rule, limit)
    worst, name = max(shares)
    measured = f"{share(worst, 1)} of {name} do not" if worst else "all do"
    todo = "They count from when they came in, and may win over newer ones: see time in rules/sources.yaml."
    return Finding(_level(worst, limits.no_time_look), rule, limit, measured, todo)


def _fresh(facts: Facts, limits: TrustRules) -> Finding:
    most = timedelta(days=limits.newest_days)
    rule, limit = "Data are recent", f"the newest are at most {age(most)} older than this generation"
    old = facts.old(facts.newest_at)
    if old is None:
        return _not_asked(rule, limit)
    todo = "Profiles say how people were then. Ask whether deliveries have stopped."
    return Finding("look" if old > most else "trusted", rule, limit, f"{age(old)} older", todo)


def _silent(facts: Facts, limits: TrustRules) -> Finding:
    most, newest = timedelta(days=limits.source_days), facts.newest_at
    rule, limit = "No source has fallen silent", f"each is at most {age(most)} behind the newest data"
    behind = [(newest - s.newest_at, s.name) for s in facts.sources if newest and s.newest_at]
    if len(behind) < 2:
        return _not_asked(rule, limit)
    worst, name = max(behind)
    level: Level = "look" if worst > most else "trusted"
    return Finding(
        level, rule, limit, f"{name} is {age(worst)} behind", "Ask its owner for the missing deliveries."
    )


def _precision(facts: Facts, limits: TrustRules) -> Finding:
    rule = "Links are right"
    limit = f"{percent(limits.precision_look)} are expected to be; under {percent(limits.precision_stop)} is too few"
    expected = facts.about.expected_precision
    if expected is None:
        return _not_asked(rule, limit)
    level = _level(1 - expected, 1 - limits.precision_look, 1 - limits.precision_stop)
    todo = "Answer the review queue (profile-pipeline review list), or raise the threshold in rules/identity.yaml."
    return Finding(level, rule, limit, share(expected, 1), todo)


def _outsized(facts: Facts, limits: TrustRules) -> Finding:
    rule = "No profile holds more than it may"
    limit = f"at most {percent(limits.flagged_look)} of the profiles are flagged"
    if not facts.published:
        return _not_asked(rule, limit)
    measured = f"{amount(facts.flagged)} flagged" if facts.flagged else "none flagged"
    todo = "They may be several people: the column flagged of profiles marks them, profile-pipeline explain says why."
    return Finding(_level(facts.flagged / facts.published, limits.flagged_look), rule, limit, measured, todo)


def _count_changed(facts: Facts, limits: TrustRules) -> Finding:
    rule = "The number of profiles is plausible"
    limit = f"at most {percent(limits.change_look)} from the generation before; over {percent(limits.change_stop)} is too much"
    before = facts.changes.profiles_before if facts.changes else 0
    if not before:
        return _not_asked(rule, limit)
    change = facts.published - before
    measured = f"{signed(change)} ({share(abs(change), before)})"
    todo = "See what was delivered (profile-pipeline batch list) and what it changed, below."
    return Finding(
        _level(abs(change) / before, limits.change_look, limits.change_stop), rule, limit, measured, todo
    )


def _lost(facts: Facts, limits: TrustRules) -> Finding:
    rule, limit = (
        "Fields stay filled",
        f"no field is lost by more than {percent(limits.lost_look)} of the profiles",
    )
    before = facts.changes.profiles_before if facts.changes else 0
    known = [(field.name, field.filled, field.before) for field in facts.fields if field.before is not None]
    if not (before and known and facts.published):
        return _not_asked(rule, limit)
    lost = sorted(
        ((was / before - filled / facts.published, name) for name, filled, was in known), reverse=True
    )
    fallen = [f"{name} by {share(by, 1)}" for by, name in lost if by > limits.lost_look + ROUNDING]
    if fallen:
        todo = "Ask whether a source has stopped to deliver the field."
        return Finding("look", rule, limit, ", ".join(fallen[:3]), todo)
    return Finding("trusted", rule, limit, f"{plural(len(known), 'field')} stayed")


def _not_asked(rule: str, limit: str) -> Finding:
    return Finding("trusted", rule, limit, "nothing to measure yet", asked=False)


ROUNDING = 1e-9
"""What is at a limit still holds, whatever its last binary digit."""


def _level(measure: float, look: float, stop: float = float("inf")) -> Level:
    """Which of two limits a measure exceeds."""
    if measure > stop + ROUNDING:
        return "stop"
    return "look" if measure > look + ROUNDING else "trusted"


RULES: tuple[Callable[[Facts, TrustRules], Finding], ...] = (
    _balance, _some_profiles, _figures_agree, _files_read, _refused, _expectations, _clocks, _fresh, _silent, _precision,
    _outsized, _count_changed, _lost,
)  # fmt: skip
"""In the order in which they are shown."""
