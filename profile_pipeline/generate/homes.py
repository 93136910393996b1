"""Where the households of a block live and lived, how large they are, and where their people come from."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from profile_pipeline.generate import vocabulary
from profile_pipeline.generate.draws import Draws, Floats, Integers
from profile_pipeline.generate.rates import BLOCK_PEOPLE

COUNTRIES = {"GB": 0.86, "IE": 0.05, "FR": 0.03, "DE": 0.03, "PL": 0.03}
NATIVES = {"GB": "english", "IE": "irish", "FR": "french", "DE": "german", "PL": "polish"}
NATIVE_SHARE = {"GB": 0.62, "IE": 0.80, "FR": 0.85, "DE": 0.82, "PL": 0.95}
OTHERS = {
    "scottish": 10, "irish": 6, "welsh": 5, "south_asian": 10, "polish": 5, "african": 5, "english": 3,
    "french": 2, "german": 2, "nordic": 2, "iberian": 3, "italian": 3, "chinese": 3, "turkish": 2,
    "arabic": 3, "romanian": 3,
}  # fmt: skip
HOUSEHOLD_SIZES = np.cumsum([0.30, 0.34, 0.17, 0.14, 0.05])


def household_sizes(draws: Draws) -> Integers:
    """Draw household sizes that add up to a block; person 0 of the world lives alone."""
    sizes = 1 + np.searchsorted(HOUSEHOLD_SIZES, draws.uniform("household size", BLOCK_PEOPLE), "right")
    sizes = np.minimum(sizes, len(HOUSEHOLD_SIZES))
    if draws.block == 0:
        sizes[0] = 1
    ends = np.cumsum(sizes)
    last = int(np.searchsorted(ends, BLOCK_PEOPLE))
    sizes = sizes[: last + 1]
    sizes[last] -= ends[last] - BLOCK_PEOPLE
    return sizes


def build_households(draws: Draws, sizes: Integers) -> pa.Table:
    """Draw where each household lives and lived, and what it shares."""
    count = len(sizes)
    country = weighted(COUNTRIES, draws.uniform("country", count))
    origin = household_origins(draws, country)
    columns: dict[str, object] = {
        "household": draws.block * BLOCK_PEOPLE + np.arange(count),
        "size": sizes,
        "country": pa.array(list(COUNTRIES)).take(pa.array(country)),
        "origin": origin,
    }
    return pa.table(
        columns | address_columns(draws, country, "") | address_columns(draws, country, "former_")
    )


def household_origins(draws: Draws, country: Integers) -> Integers:
    """Draw the origin of each household as a group number of the family names: mostly that of its country."""
    families = vocabulary.family_names()
    natives = families.group_numbers([NATIVES[name] for name in COUNTRIES])[country]
    others = families.group_numbers(list(OTHERS))[
        weighted(OTHERS, draws.uniform("other origin", len(country)))
    ]
    native_share = np.array(list(NATIVE_SHARE.values()))[country]
    return np.where(draws.uniform("native", len(country)) < native_share, natives, others)


def address_columns(draws: Draws, country: Integers, prefix: str) -> dict[str, pa.Array]:
    """Draw a place and a street for each household."""
    drawn = {}
    lexicons = {
        "place": vocabulary.places(),
        "street": vocabulary.streets("bases"),
        "kind": vocabulary.streets("kinds"),
    }
    for name, lexicon in lexicons.items():
        group = lexicon.group_numbers(list(COUNTRIES))[country]
        uniform = draws.uniform(f"{prefix}{name}", len(country))
        drawn[prefix + name] = lexicon.take(lexicon.pick(group, uniform))
    return drawn


def weighted(shares: Mapping[str, float], uniform: Floats) -> Integers:
    """Draw positions in `shares` in proportion to its values."""
    rises = np.cumsum(list(shares.values()))
    return np.minimum(np.searchsorted(rises / rises[-1], uniform, "right"), len(rises) - 1)
