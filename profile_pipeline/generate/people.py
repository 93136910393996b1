"""Who lives in the households of a block: their ages, their names and who is whose child."""

from functools import cache

import numpy as np
import pyarrow as pa

from profile_pipeline.generate import vocabulary
from profile_pipeline.generate.draws import Draws, Flags, Floats, Integers
from profile_pipeline.generate.homes import COUNTRIES, NATIVE_SHARE, NATIVES, OTHERS, weighted
from profile_pipeline.generate.rates import BLOCK_PEOPLE, RATES

TODAY = np.datetime64("2026-01-01")
YEAR_DAYS = 365.2425
YOUNGER_SINCE = np.datetime64("1980-01-01")
COUPLE, FIRST_CHILD = 1, 2


def build_people(draws: Draws, households: pa.Table, sizes: Integers) -> pa.Table:
    """Draw the members of each household: head, partner, grown-up children; or unrelated flatmates."""
    home = np.repeat(np.arange(len(sizes)), sizes)
    starts = np.cumsum(sizes) - sizes
    member = np.arange(BLOCK_PEOPLE) - starts[home]
    head = starts[home]
    family = draws.uniform("flatshare", len(sizes))[home] >= RATES.flatshare
    child = family & (member >= FIRST_CHILD)
    born = birth_days(draws, member, head, child, sizes[home])
    male = sexes(draws, member, head, child | ~family)
    origin = member_origins(draws, households["origin"].to_numpy()[home], child)
    columns: dict[str, object] = {
        "person": draws.block * BLOCK_PEOPLE + np.arange(BLOCK_PEOPLE),
        "household": draws.block * BLOCK_PEOPLE + home,
        "member": member,
        "sex": pa.array(["F", "M"]).take(pa.array(male.astype(np.int64))),
        "born_on": pa.array(TODAY - born.astype("timedelta64[D]")),
        "couple": family & (member <= COUPLE) & (sizes[home] > 1),
    }
    names = given_name_columns(draws, origin, male, born, head, child)
    return pa.table(columns | names | family_name_columns(draws, origin, head, member, family))


def birth_days(draws: Draws, member: Integers, head: Integers, child: Flags, size: Integers) -> Integers:
    """Return how many days before `TODAY` each person was born; parents are old enough for their children."""
    ages = 18 + 68 * draws.uniform("age", len(member)) ** 1.3
    ages = np.where((member == 0) & (size > FIRST_CHILD), 44 + ages / 3, ages)
    spread = draws.uniform("age difference", len(member))
    ages = np.where(
        (member == COUPLE) & ~child, np.maximum(ages[head] - 6 + 12 * spread, 18 + 2 * spread), ages
    )
    ages = np.where(child, 18 + (ages[head] - 42) * spread, ages)
    days = np.floor(ages * YEAR_DAYS).astype(np.int64) + 1
    twin = child & (member > FIRST_CHILD) & (draws.uniform("twin", len(member)) < RATES.twin)
    return np.where(twin, np.roll(days, 1), days)


def sexes(draws: Draws, member: Integers, head: Integers, free: Flags) -> Flags:
    """Return who is male; partners mostly differ from the head."""
    male = draws.uniform("sex", len(member)) < 0.49
    partner = (member == COUPLE) & ~free
    same = draws.uniform("same sex couple", len(member)) < 0.03
    male = np.where(partner, male[head] == same, male)
    if draws.block == 0:
        male[0] = True
    return male


def member_origins(draws: Draws, origin: Integers, child: Flags) -> Integers:
    """Let partners and flatmates be of other origins now and then; children are of the household's."""
    count = len(origin)
    groups = vocabulary.family_names().group_numbers(list(OTHERS))
    other = groups[weighted(OTHERS, draws.uniform("partner origin", count))]
    keeps = draws.uniform("keeps origin", count) < RATES.own_origin
    return np.where(child | keeps, origin, other)


def given_name_columns(
    draws: Draws, origin: Integers, male: Flags, born: Integers, head: Integers, child: Flags
) -> dict[str, object]:
    """Draw given names by origin, sex and generation, with the nickname if there is one."""
    lexicon = vocabulary.given_names()
    count = len(origin)
    english = vocabulary.family_names().groups["english"]
    local = draws.uniform("local given name", count) < RATES.local_given_name
    group = 4 * np.where(local, english, origin) + 2 * ~male
    group = group + (TODAY - born.astype("timedelta64[D]") >= YOUNGER_SINCE)
    number = lexicon.pick(group, draws.uniform("given name", count))
    junior = child & male & male[head] & (draws.uniform("junior", count) < RATES.junior)
    number = np.where(junior, number[head], number)
    given = lexicon.take(number)
    return {
        "given": given,
        "nickname": nickname_array(given, draws.uniform("nickname", count)),
        "given_share": lexicon.weights[number],
    }


def nickname_array(given: pa.Array, uniform: Floats) -> pa.Array:
    """Return one of the short forms of each name, null where there is none."""
    encoded = given.dictionary_encode()
    known = [vocabulary.nicknames().get(name, []) for name in encoded.dictionary.to_pylist()]
    widest = max(len(short) for short in known)
    flat = pa.array([word for short in known for word in [*short, *[None] * (widest - len(short))]])
    lengths = np.array([len(short) for short in known])
    name = encoded.indices.to_numpy()
    choice = np.floor(uniform**2 * np.maximum(lengths[name], 1)).astype(np.int64)
    return flat.take(pa.array(name * widest + choice))


def family_name_columns(
    draws: Draws, origin: Integers, head: Integers, member: Integers, family: Flags
) -> dict[str, object]:
    """Draw family names: a family shares the head's, except partners who kept theirs."""
    lexicon = vocabulary.family_names()
    count = len(origin)
    own = lexicon.pick(origin, draws.uniform("family name", count))
    shares = (member == 0) | (draws.uniform("same family name", count) < RATES.same_family_name)
    number = np.where(family & (shares | (member >= FIRST_CHILD)), own[head], own)
    second = lexicon.pick(origin, draws.uniform("second family name", count))
    return {
        "family": lexicon.take(number),
        "second_family": lexicon.take(second[head]),
        "maiden_family": lexicon.take(lexicon.pick(origin, draws.uniform("maiden name", count))),
        "family_share": lexicon.weights[number] * origin_shares()[origin],
    }


@cache
def origin_shares() -> Floats:
    """Return the share of people of each origin, by the group number of its family names."""
    families = vocabulary.family_names()
    shares = np.zeros(len(families.groups))
    for country, share in COUNTRIES.items():
        shares[families.groups[NATIVES[country]]] += share * NATIVE_SHARE[country]
        for origin, weight in OTHERS.items():
            others = share * (1 - NATIVE_SHARE[country])
            shares[families.groups[origin]] += others * weight / sum(OTHERS.values())
    return shares
