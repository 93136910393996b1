"""What a match looks like, learned without labels: a mixture of three kinds of pairs.

Any two records are one person, two people of one household (who share name, home and contact), or strangers.
Larsen and Rubin 2001 showed that with two kinds only, households are taken for matches. The shares of each
agreement level among the kinds are found by expectation maximisation over the candidate pairs, with Dirichlet
priors at the starting values. A candidate pair was chosen because it agrees on something; as that depends on
its agreement levels alone, it cancels from the odds, so the odds hold for any pair.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Levels = npt.NDArray[np.int64]

PRIOR_PAIRS = 10.0
"""How many pairs the starting values count for."""
ROUNDS, SETTLE, ENOUGH = 500, 15, 2e-5
"""Most rounds; those before strangers are corrected for the matches among them; the change that ends it."""
SMALLEST_SHARE = 1 / 64
"""An agreement is kept at least this share as frequent among strangers as among all pairs: six bits at most
are won by the correction."""


@dataclass(frozen=True)
class Evidence:
    """Agreement levels of pairs: 0 is 'different', the highest 'same', -1 missing."""

    patterns: Levels
    """One row a distinct combination of levels among the candidate pairs, one column a comparison."""
    counts: Floats
    overall: list[Floats]
    """Share of each level among all pairs, a comparison each."""
    smallest: list[Floats]
    """The smallest share a level can have been given: the resolution of `overall`."""
    start: list[Floats]
    """Shares among matches to start from, a comparison each."""
    shared: list[bool]
    """Whether members of a household agree on the comparison."""
    pairs: float
    """All pairs of records that the candidates were chosen from."""
    records: float


@dataclass(frozen=True)
class Mixture:
    """Shares of each level among matches, household pairs and strangers; and how many of the first two exist."""

    matches: list[Floats]
    household: list[Floats]
    strangers: list[Floats]
    match_share: float
    household_share: float


def fit(evidence: Evidence) -> Mixture:
    """Maximise the posterior density; the result depends on the evidence only."""
    current = _first(evidence)
    before = np.zeros((len(evidence.counts), 3))
    for turn in range(ROUNDS):
        memberships = _memberships(evidence, current)
        current = _improved(evidence, current, memberships, correct=turn >= SETTLE)
        change = float(np.abs(memberships - before).max(initial=0.0))
        if turn > SETTLE and change < ENOUGH:
            break
        before = memberships
    return current


def _first(evidence: Evidence) -> Mixture:
    share = min(0.1, evidence.records / 3 / max(evidence.pairs, 1.0))
    matches = [m.copy() for m in evidence.start]
    return Mixture(
        matches=matches,
        household=_household_start(evidence),
        strangers=[u.copy() for u in evidence.overall],
        match_share=share,
        household_share=share,
    )


def _household_start(evidence: Evidence) -> list[Floats]:
    parts = zip(evidence.start, evidence.overall, evidence.shared, strict=True)
    return [(m + u) / 2 if shared else u.copy() for m, u, shared in parts]


def log_likelihood(patterns: Levels, shares: list[Floats]) -> Floats:
    """Natural logarithm of the probability of each pattern; a missing value says nothing."""
    total = np.zeros(len(patterns))
    for column, share in enumerate(shares):
        total += np.append(np.log(share), 0.0)[patterns[:, column]]
    return total


def _memberships(evidence: Evidence, current: Mixture) -> Floats:
    """Probability that each pattern is a match, a household pair, or strangers."""
    households = current.household_share if any(evidence.shared) else 1e-300
    strangers = 1 - current.match_share - current.household_share
    logs = np.stack(
        [
            np.log(current.match_share) + log_likelihood(evidence.patterns, current.matches),
            np.log(households) + log_likelihood(evidence.patterns, current.household),
            np.log(strangers) + log_likelihood(evidence.patterns, current.strangers),
        ],
        axis=1,
    )
    odds = np.exp(logs - logs.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def _improved(evidence: Evidence, current: Mixture, memberships: Floats, *, correct: bool) -> Mixture:
    weights = memberships * evidence.counts[:, None]
    matched, related = (max(float(weights[:, k].sum()), 0.5) / max(evidence.pairs, 1.0) for k in (0, 1))
    matches = _shares(evidence, weights[:, 0], evidence.start)
    related_shares = _shares(evidence, weights[:, 1], _household_start(evidence))
    strangers = current.strangers
    if correct:
        strangers = [
            _corrected(*parts, matched, related)
            for parts in zip(evidence.overall, evidence.smallest, matches, related_shares, strict=True)
        ]
    household = [
        h if shared else u for h, u, shared in zip(related_shares, strangers, evidence.shared, strict=True)
    ]
    return Mixture(matches, household, strangers, min(matched, 0.4), min(related, 0.4))


def _shares(evidence: Evidence, weights: Floats, start: list[Floats]) -> list[Floats]:
    found = []
    for column, prior in enumerate(start):
        levels = evidence.patterns[:, column]
        filled = levels >= 0
        counts = np.bincount(levels[filled], weights=weights[filled], minlength=len(prior))
        found.append((counts + PRIOR_PAIRS * prior) / (counts.sum() + PRIOR_PAIRS))
    return found


def _corrected(
    overall: Floats, smallest: Floats, matches: Floats, household: Floats, matched: float, related: float
) -> Floats:
    """Shares among strangers: those among all pairs without the matches and households among them."""
    rest = overall - matched * matches - related * household
    rest = np.maximum(rest, np.maximum(overall * SMALLEST_SHARE, smallest))
    return rest / rest.sum()


def match_probabilities(evidence: Evidence, mixture: Mixture) -> Floats:
    """How likely each pattern is a match."""
    return _memberships(evidence, mixture)[:, 0]


def summary(mixture: Mixture, evidence: Evidence) -> dict[str, Any]:
    """Numbers for the training manifest."""
    return {
        "expected_matches": round(mixture.match_share * evidence.pairs),
        "expected_household_pairs": round(mixture.household_share * evidence.pairs),
        "patterns": len(evidence.counts),
        "pairs_learned_from": int(evidence.counts.sum()),
    }
