"""The ten collapse scenarios: what our resolver makes of each, and what Adobe's rule does.

Eight are those of the Experience Platform documentation (identity graph linking rules: identity optimization
algorithm, example configurations, implementation guide, overview), two are its neighbours: visits around logins on
one browser, and a household. Each file holds the rules, the events and the expected graphs.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from profile_pipeline.config.identity import IdentityRules
from profile_pipeline.config.reading import read_yaml
from profile_pipeline.identity.simulate import Simulation, simulate_newest_link, simulate_ours
from profile_pipeline.identity.simulation_file import Line, parse_lines

FOLDER = Path(__file__).parent / "scenarios"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@dataclass(frozen=True)
class Scenario:
    rules: IdentityRules
    lines: list[Line]
    expected: dict[str, Any]


@cache
def scenario(name: str) -> Scenario:
    found = read_yaml(FOLDER / f"{name}.yaml")
    rules = IdentityRules.model_validate({"namespaces": found["namespaces"]})
    return Scenario(rules, parse_lines(found["events"], rules.namespaces, name), found)


@cache
def ours(name: str) -> Simulation:
    return simulate_ours(scenario(name).lines, scenario(name).rules)


def test_there_are_ten():
    assert len(NAMES) == 10


@pytest.mark.parametrize("name", NAMES)
def test_our_resolver(name):
    found = ours(name)
    expected = [
        (graph["holds"], graph.get("shares", []), graph["lines"]) for graph in scenario(name).expected["ours"]
    ]
    assert [(graph.identities, graph.shared, graph.lines) for graph in found.graphs] == expected
    assert found.relationships == scenario(name).expected.get("relationships", [])
    assert found.notes == []


@pytest.mark.parametrize("name", NAMES)
def test_newest_link(name):
    found = simulate_newest_link(scenario(name).lines, scenario(name).rules)
    assert [graph.identities for graph in found.graphs] == scenario(name).expected["newest_link"]


@pytest.mark.parametrize("name", NAMES)
def test_no_resolver_breaks_a_limit(name):
    rules, lines = scenario(name).rules, scenario(name).lines
    for found in (ours(name), simulate_newest_link(lines, rules)):
        for graph in found.graphs:
            spaces = [identity.split(":")[0] for identity in graph.identities]
            for space in spaces:
                limit = rules.namespaces[space].unique
                assert limit is None or spaces.count(space) <= limit, (found.resolver, graph)


@pytest.mark.parametrize("name", NAMES)
def test_no_line_is_lost_and_every_cut_says_why(name):
    found = ours(name)
    assert sorted(n for graph in found.graphs for n in graph.lines) == [
        x.number for x in scenario(name).lines
    ]
    shared = {identity for graph in found.graphs for identity in graph.shared}
    assert {link.by for link in found.links if link.why} == shared
