"""One look: may these profiles be used? The worst outcome of stated rules, with the reasons."""

from dataclasses import dataclass

from profile_pipeline.report.facts import Facts
from profile_pipeline.report.numbers import plural
from profile_pipeline.report.rules import RULES, Finding, Level

WORDS: dict[Level, str] = {"trusted": "Trusted", "look": "Look at this", "stop": "Do not use"}
"""What a level is called."""
ORDER: tuple[Level, ...] = ("stop", "look", "trusted")
"""From the worst on."""


@dataclass(frozen=True)
class Verdict:
    """The worst level, and every finding in the order of the rules."""

    level: Level
    findings: tuple[Finding, ...]

    @property
    def words(self) -> str:
        """The verdict as a title."""
        return WORDS[self.level]

    @property
    def reasons(self) -> list[Finding]:
        """Findings that are not as they should be, the worst first."""
        return [f for level in ORDER[:-1] for f in self.findings if f.level == level]

    @property
    def sentence(self) -> str:
        """The verdict in a sentence."""
        asked, bad = sum(f.asked for f in self.findings), len(self.reasons)
        if self.level == "trusted":
            return f"All {asked} rules hold: these profiles are fit for use."
        if self.level == "look":
            return (
                f"Usable, with {plural(bad, 'point')} to look at first. The other {asked - bad} rules hold."
            )
        broken = sum(f.level == "stop" for f in self.findings)
        return f"{plural(broken, 'rule')} that everything depends on {'is' if broken == 1 else 'are'} broken."


def judge(facts: Facts) -> Verdict:
    """The verdict on a generation; the same facts always give the same one."""
    findings = tuple(rule(facts, facts.about.limits) for rule in RULES)
    worst = next(level for level in ORDER if any(f.level == level for f in findings))
    return Verdict(worst, findings)
