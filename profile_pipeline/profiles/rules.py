"""The number each rule gives to a candidate; lower wins. Only what ranks: how ranks become winners is `lineage`.

A number is an SQL expression over the columns of a candidate, or of a record's whole block of a group, and of
nothing else; `votes`, `weight` and `branch` are computed beside them where a rule asks for them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from profile_pipeline.config.load import Config
from profile_pipeline.config.profiles import Keep, Policy, Ranking
from profile_pipeline.warehouse import literal

UNLISTED = 1_000_000
LAST = "1e308"
"""The number of a candidate that has nothing to compare."""
AS_OF = "(select max(as_of) from raw.batches)"
TIES = ("better_looking", "most_recent", "source_priority")
"""What decides where the rules of a policy leave candidates tied; the record key has the last word."""
TIMES = {
    "business": "observed_at",
    "ingestion": "ingested_at",
    "observed": "if(clock = 'source', observed_at, null)",
}


@dataclass(frozen=True)
class Unit:
    """What is decided together by the same ranking: fields one by one, or a group as one.

    `precise`: birth dates, of which a more precise one that agrees with the winner is shown in its place.
    """

    fields: tuple[str, ...]
    ranking: Ranking
    group: str | None = None
    fill: bool = False
    keep: Keep = "one"
    max: int | None = None
    precise: bool = False

    @property
    def unanimous_at(self) -> int | None:
        """How many rules come before unanimous_or_null; None when it is no rule of the unit."""
        choose = [rule for rule in self.ranking.choose if rule == "unanimous_or_null" or self._ranks(rule)]
        return choose.index("unanimous_or_null") if "unanimous_or_null" in choose else None

    def _ranks(self, rule: str) -> bool:
        return rule != "source_priority" or bool(self.ranking.sources)


Rules = list[tuple[str, str]]
"""Rules in order, each with the number it gives."""


def rules(config: Config, policy: Policy, unit: Unit) -> Rules:
    """Every rule that orders the candidates of a unit, in order, with the number it gives (lower wins).

    Rules of a branch tell only the candidates of that branch apart: those of different branches never tie.
    """
    numbers = _numbers(config, policy, unit)
    ranking, found = unit.ranking, []
    branches = [*(choose for _, choose in ranking.when), ranking.choose]
    if ranking.when:
        found.append(("when", "branch"))
        found += [
            (rule, f"if(branch = {number}, {numbers[rule]}, 0)")
            for number, choose in enumerate(branches)
            for rule in choose
        ]
        found += [(rule, numbers[rule]) for rule in TIES]
    else:
        found += [(rule, numbers[rule]) for rule in dict.fromkeys([*ranking.choose, *TIES])]
    return [(rule, number) for rule, number in found if numbers.get(rule) != "0"]


def _numbers(config: Config, policy: Policy, unit: Unit) -> dict[str, str]:
    at = TIMES[policy.clock]
    amount = _amount(config)
    return {
        "source_priority": _by_source(unit.ranking.sources, UNLISTED) if unit.ranking.sources else "0",
        "trust": _trust(unit.ranking, at),
        "weighted_vote": "-weight",
        "most_recent": f"-epoch({at})",
        "least_recent": f"epoch({at})",
        "most_frequent": "-votes",
        "most_complete": "-filled",
        "first_non_null": "if(cleared, 1, 0)",
        "valid": "if(valid, 0, 1)",
        # no order: it lets nobody win, see lineage
        "unanimous_or_null": "0",
        "longest": "-coalesce(length(shown), 0)",
        "shortest": f"coalesce(length(shown), {LAST})",
        "minimum": f"coalesce({amount}, {LAST})",
        "maximum": f"coalesce(-{amount}, {LAST})",
        "most_precise": "-coalesce(length(value), 0)",
        # a withdrawn consent must not come back because an older record still grants it
        "most_restrictive": "case when value = 'false' then 0 when cleared then 1 else 2 end",
        # a comment at the end of the expression ends with its line
        "custom": f"coalesce(try_cast((\n{unit.ranking.custom}\n) as double), {LAST})",
        "better_looking": _looks(),
    }


def beside(unit: Unit) -> str:
    """Further columns that the rules of a unit ask for: votes and weight by value, and the branch."""
    alike = "over (partition by profile, field_no, said)"
    found = []
    if "most_frequent" in unit.ranking.rules:
        found.append(f"count(distinct source) {alike} as votes")
    if "weighted_vote" in unit.ranking.rules:
        found.append(f"{_weight(unit.ranking, alike)} as weight")
    if unit.ranking.when:
        found.append(f"{_branch(unit.ranking)} as branch")
    return "".join(f", {column}" for column in found)


def _weight(ranking: Ranking, alike: str) -> str:
    """One vote a source, in a fixed order of the sources: a sum of fractions depends on it."""
    votes = (
        f"{score} * max(if(source = {literal(source)}, 1, 0)) {alike}" for source, score in ranking.trust
    )
    return f"({' + '.join(votes) or 0})"


def _branch(ranking: Ranking) -> str:
    cases = " ".join(
        f"when coalesce((\n{condition}\n), false) then {number}"
        for number, (condition, _) in enumerate(ranking.when)
    )
    return f"case {cases} else {len(ranking.when)} end"


def _by_source(numbers: Iterable[tuple[str, float]], otherwise: float) -> str:
    cases = " ".join(f"when {literal(source)} then {number}" for source, number in numbers)
    return f"case source {cases} else {otherwise} end" if cases else str(otherwise)


def _trust(ranking: Ranking, at: str) -> str:
    """A half-life orders candidates the same at any as-of time, so its logarithm needs none, nor runs out of digits."""
    score = f"cast({_by_source(ranking.trust, 0)} as double)"
    if ranking.half_life_days:
        faded = f"-(log2({score}) + epoch({at}) / {86_400 * ranking.half_life_days!r})"
        return f"case when {score} > 0 and {at} is not null then {faded} else {LAST} end"
    if ranking.zero_after_days:
        age = f"(epoch({AS_OF}) - epoch({at})) / {86_400 * ranking.zero_after_days!r}"
        # greatest() skips what is missing: without the guard a value without a time would be fresh for ever
        return f"if({at} is null, 0, -{score} * greatest(0, 1 - greatest(0, {age})))"
    return f"-{score}"


def _amount(config: Config) -> str:
    """Numbers and dates compare (a year counts from its first day); anything else is NULL, and so tied."""
    timed = ("date", "timestamp", "birth_date")
    dates = listed(field for field, attribute in config.attributes.items() if attribute.type in timed)
    moment = "coalesce(try_cast(value as timestamptz), try_cast(left(value || '-01-01', 10) as timestamptz))"
    return f"if(unit in ({dates or 'null'}), epoch({moment}), try_cast(value as double))"


def _looks() -> str:
    return """case when cleared then 3 when shown <> upper(shown) and shown <> lower(shown) then 0
        when shown = upper(shown) then 2 else 1 end"""


def listed(names: Iterable[str]) -> str:
    """Names as SQL text literals."""
    return ", ".join(literal(name) for name in names)
