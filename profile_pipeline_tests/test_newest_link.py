"""Adobe's rule: the newest link wins, a link that breaks a limit goes, whatever the order of the observations."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from profile_pipeline.config.identity import Namespace
from profile_pipeline.identity.newest_link import Observation, Resolution, newest_link

START = datetime(2026, 1, 1, tzinfo=UTC)
SPACES = {
    "crm": Namespace(priority=1, unique=1),
    "mail": Namespace(priority=2, unique=1),
    "card": Namespace(priority=3, unique=2),
    "app": Namespace(kind="device", priority=4),
    "ecid": Namespace(kind="cookie", priority=5),
}


def seen(minute: int, *identities: str) -> Observation:
    at = START + timedelta(minutes=minute)
    return Observation(at, tuple((each.split(":")[0], each.split(":")[1]) for each in identities))


def graphs(found: Resolution) -> list[str]:
    return [" ".join(f"{space}:{value}" for space, value in graph) for graph in found.graphs]


def cut(found: Resolution) -> dict[str, str]:
    return {f"{':'.join(link.left)} {':'.join(link.right)}": link.why for link in found.links if link.why}


def test_without_a_limit_everything_connected_is_one_graph():
    found = newest_link([seen(1, "app:1", "ecid:1"), seen(2, "ecid:1", "app:2"), seen(3, "ecid:9")], SPACES)
    assert graphs(found) == ["app:1 app:2 ecid:1", "ecid:9"]
    assert cut(found) == {}


def test_the_older_link_is_cut_and_says_why():
    found = newest_link([seen(1, "crm:A", "ecid:x"), seen(2, "crm:B", "ecid:x")], SPACES)
    assert graphs(found) == ["crm:A", "crm:B ecid:x"]
    assert cut(found) == {"crm:A ecid:x": "newer links give the graph 1 of crm already"}


def test_a_link_is_as_new_as_its_newest_observation():
    observations = [seen(1, "crm:A", "ecid:x"), seen(2, "crm:B", "ecid:x"), seen(3, "crm:A", "ecid:x")]
    assert graphs(newest_link(observations, SPACES)) == ["crm:A ecid:x", "crm:B"]


def test_a_limit_of_two_admits_two():
    observations = [seen(n, "crm:A", f"card:{n}") for n in (1, 2, 3)]
    assert graphs(newest_link(observations, SPACES)) == ["card:1", "card:2 card:3 crm:A"]


def test_limits_count_over_the_whole_graph():
    observations = [seen(1, "crm:A", "app:1"), seen(2, "app:1", "ecid:x"), seen(3, "ecid:x", "crm:B")]
    found = newest_link(observations, SPACES)
    assert graphs(found) == ["app:1 crm:B ecid:x", "crm:A"]
    assert list(cut(found)) == ["app:1 crm:A"]


def test_among_links_of_one_time_the_better_priorities_go_first():
    # by the alphabet alone the app would tie the mail to B before A is looked at
    together = [seen(1, "crm:B", "app:1"), seen(1, "app:1", "mail:m"), seen(1, "crm:A", "mail:m")]
    assert graphs(newest_link(together, SPACES)) == ["app:1 crm:B", "crm:A mail:m"]


def test_an_observation_that_breaks_a_limit_by_itself_is_refused():
    both = seen(2, "crm:A", "crm:B", "ecid:x")
    found = newest_link([seen(1, "crm:A", "ecid:y"), both], SPACES)
    assert (graphs(found), found.refused) == (["crm:A ecid:y"], [both])


def test_a_graph_too_large_loses_its_oldest_cookies_first_and_people_last():
    observations = [seen(n, "crm:A", f"ecid:{n:02d}") for n in range(1, 6)]
    observations += [seen(0, "crm:A", "app:old"), seen(0, "crm:A", "mail:m")]
    found = newest_link(observations, SPACES, size=4)
    assert graphs(found) == ["app:old crm:A ecid:05 mail:m", "ecid:01", "ecid:02", "ecid:03", "ecid:04"]
    assert set(cut(found).values()) == {"left a graph of more than 4 identities"}
    assert graphs(newest_link(observations, SPACES, size=2)) == [
        "app:old", "crm:A mail:m", *(f"ecid:{n:02d}" for n in range(1, 6)),
    ]  # fmt: skip


def test_the_size_limit_is_that_of_the_guardrails():
    found = newest_link([seen(n, "crm:A", f"ecid:{n}") for n in range(60)], SPACES)
    assert sorted(map(len, found.graphs)) == [1] * 11 + [50]


identity = st.tuples(st.sampled_from(sorted(SPACES)), st.sampled_from("123"))
observation = st.builds(
    lambda minute, identities: Observation(START + timedelta(minutes=minute), tuple(identities)),
    st.integers(0, 4),
    st.lists(identity, min_size=1, max_size=4, unique=True),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(observation, max_size=10), st.randoms(use_true_random=False))
def test_the_order_of_observations_and_identities_does_not_matter(observations, draw):
    shuffled = [
        Observation(each.at, tuple(draw.sample(each.identities, len(each.identities))))
        for each in observations
    ]
    draw.shuffle(shuffled)
    a, b = newest_link(observations, SPACES), newest_link(shuffled, SPACES)
    assert (a.graphs, a.links) == (b.graphs, b.links)


@settings(max_examples=150, deadline=None)
@given(st.lists(observation, max_size=12))
def test_limits_hold_and_nothing_is_lost(observations):
    found = newest_link(observations, SPACES)
    for graph in found.graphs:
        for name, space in SPACES.items():
            assert space.unique is None or sum(n == name for n, _ in graph) <= space.unique
    taken = {i for each in observations if each not in found.refused for i in each.identities}
    assert sorted(i for graph in found.graphs for i in graph) == sorted(taken)
    member = {identity: n for n, graph in enumerate(found.graphs) for identity in graph}
    assert all(bool(link.why) or member[link.left] == member[link.right] for link in found.links)


@settings(max_examples=100, deadline=None)
@given(st.lists(observation, min_size=1, max_size=8))
def test_a_newest_observation_keeps_all_its_links(observations):
    last = Observation(START + timedelta(hours=1), (("crm", "1"), ("mail", "2"), ("ecid", "3")))
    found = newest_link([*observations, last], SPACES)
    assert any(set(last.identities) <= set(graph) for graph in found.graphs)
