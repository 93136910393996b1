"""Splink settings derived from the semantic types: one comparison a concept, levels from exact to different.

Two models come out: `settings` says how much likelier a pair is one person than strangers, and
`household_settings` how much likelier it is two people of one household.

The m and u given here are only starting points; training replaces them. They also carry projects that are
too small to train.
"""

from typing import Any

from profile_pipeline.config.load import Config
from profile_pipeline.identity.blocking import as_splink, usable_rules
from profile_pipeline.identity.fields import match_fields
from profile_pipeline.warehouse import literal

SHARED = ("family", "email", "phone", "address")
"""Comparisons on which members of a household agree."""
PERSONAL = {"given", "birth_date", "national_id"}
"""Comparisons that tell the members of a household apart; without any, households are not modelled."""
MOST_SOURCES = 20
"""Beyond this many sources, which sources two records come from is left out of the comparison."""
Level = tuple[str, str, float, float]
"""Label, SQL condition, m (share of matches at this level), u (share of non-matches)."""


def settings(config: Config) -> dict[str, Any]:
    """Splink settings for this project; `matching.settings` of the rules replaces keys."""
    fields = match_fields(config)
    found = set(fields) | ({"given", "family"} if "full" in fields else set())
    derived = {
        "link_type": "dedupe_only",
        "unique_id_column_name": "unique_id",
        "probability_two_random_records_match": 0.0001,
        "retain_matching_columns": False,
        "retain_intermediate_calculation_columns": False,
        "comparisons": _overridden([*_comparisons(found), *_source_comparison(config)], config),
        "blocking_rules_to_generate_predictions": [
            {"blocking_rule": as_splink(rule), "sql_dialect": "duckdb"} for rule in usable_rules(set(fields))
        ],
    }
    return {**derived, **config.identity.matching.settings}


def _overridden(derived: list[dict[str, Any]], config: Config) -> list[dict[str, Any]]:
    """The derived comparisons with the project's own in place of, or in addition to, them."""
    own = config.identity.matching.comparisons
    known = {comparison["output_column_name"]: comparison for comparison in derived}
    found = {**known, **{name: c and {**c, "output_column_name": name} for name, c in own.items()}}
    return [comparison for comparison in found.values() if comparison]


def household_settings(trained: dict[str, Any]) -> dict[str, Any]:
    """The shared comparisons of settings trained on household pairs; the others say nothing about households."""
    shared = [c for c in trained["comparisons"] if c["output_column_name"] in SHARED]
    return {**trained, "comparisons": shared}


def _comparisons(found: set[str]) -> list[dict[str, Any]]:
    plain: list[tuple[str, list[Level], str]] = [
        ("given", _given_levels(), "given"),
        ("middle", _middle_levels(), ""),
        ("family", _family_levels(), "family"),
        ("birth_date", _date_levels(), ""),
        ("email", _email_levels(), ""),
        ("phone", _phone_levels(), ""),
        ("national_id", _id_levels(), ""),
        ("gender", [("same", "gender_l = gender_r", 0.98, 0.5)], ""),
        *((name, _text_levels(name), name) for name in sorted(found) if name.startswith("x_")),
    ]
    built = [_comparison(name, name, levels, tf=tf) for name, levels, tf in plain if name in found]
    return [*built, _address_comparison(found)] if found & {"street", "postcode", "city"} else built


def _source_comparison(config: Config) -> list[dict[str, Any]]:
    """Whether both records are of one source: how clean of duplicates each source is gets learned.

    The starting values say nothing, so an untrained model makes no difference here.
    """
    names = [name for name, source in config.record_sources.items() if source.matching]
    if not 2 <= len(names) <= MOST_SOURCES:
        return []
    share = 1 / len(names) ** 2
    levels: list[Level] = [
        (f"both {name}", f"source_l = {literal(name)} and source_r = {literal(name)}", share, share)
        for name in names
    ]
    return [_comparison("sources", "source", levels)]


def _comparison(
    name: str, column: str, levels: list[Level], tf: str = "", missing: str = ""
) -> dict[str, Any]:
    missing = missing or f"{column}_l is null or {column}_r is null"
    built: list[dict[str, Any]] = [
        {"sql_condition": missing, "label_for_charts": "missing", "is_null_level": True}
    ]
    rest_m, rest_u = 1.0, 1.0
    for position, (label, condition, m, u) in enumerate(levels):
        rest_m, rest_u = rest_m - m, rest_u - u
        level = {
            "sql_condition": condition,
            "label_for_charts": label,
            "m_probability": m,
            "u_probability": u,
        }
        if tf and position == 0:
            level |= {"tf_adjustment_column": tf, "tf_adjustment_weight": 1.0}
        built.append(level)
    built.append(
        {
            "sql_condition": "ELSE", "label_for_charts": "different",
            "m_probability": max(rest_m, 0.001), "u_probability": max(rest_u, 0.001),
        }
    )  # fmt: skip
    return {"output_column_name": name, "comparison_levels": built}


def _one_edit(column: str, part: str = "") -> str:
    """One insertion, deletion, substitution or transposition; `part` is a column that is within two edits then."""
    # Damerau-Levenshtein is the dearest function here: called only where cheaper ones say it can matter
    left, right, near = f"{column}_l", f"{column}_r", part or column
    return (
        f"abs(length({left}) - length({right})) <= 1{f' and {_one_end(part, 3, 3)}' if part else ''}"
        f" and levenshtein({near}_l, {near}_r) <= 2 and damerau_levenshtein({left}, {right}) <= 1"
    )


def _one_end(column: str, first: int, last: int) -> str:
    """Whether so many letters at the beginning or at the end are the same, as they are within one edit; true of short texts."""
    left, right = f"{column}_l", f"{column}_r"
    return (
        f"(right({left}, {last}) = right({right}, {last}) or left({left}, {first}) = left({right}, {first})"
        f" or length({left}) <= {first + last})"
    )


def _common_part(column: str) -> str:
    left, right = f"{column}_l", f"{column}_r"
    return (
        f"(contains({left}, ' ') or contains({right}, ' '))"
        f" and list_has_any(string_split({left}, ' '), string_split({right}, ' '))"
    )


def _given_levels() -> list[Level]:
    return [
        ("same", "given_l = given_r", 0.7, 0.01),
        # a sign for each formal name: some are gone when those of the other name are taken away
        ("nickname", "translate(formal_names_l, formal_names_r, '') <> formal_names_l", 0.06, 0.003),
        ("one edit", f"length(given_l) > 2 and length(given_r) > 2 and {_one_edit('given')}", 0.08, 0.004),
        (
            "part of the other",
            _common_part("given"),
            0.03,
            0.003,
        ),
        (
            "initial",
            "least(length(given_l), length(given_r)) = 1 and left(given_l, 1) = left(given_r, 1)",
            0.02,
            0.005,
        ),
        ("swapped with family name", "given_l = family_r or family_l = given_r", 0.02, 0.0005),
        ("similar", "jaro_winkler_similarity(given_l, given_r) >= 0.88", 0.03, 0.02),
    ]


def _middle_levels() -> list[Level]:
    return [
        ("same", "middle_l = middle_r", 0.7, 0.02),
        ("initial", "left(middle_l, 1) = left(middle_r, 1)", 0.2, 0.08),
    ]


def _family_levels() -> list[Level]:
    return [
        ("same", "family_l = family_r", 0.75, 0.003),
        ("one edit", f"length(family_l) > 2 and length(family_r) > 2 and {_one_edit('family')}", 0.1, 0.001),
        (
            "part of the other",
            _common_part("family"),
            0.03,
            0.001,
        ),
        ("swapped with given name", "given_l = family_r or family_l = given_r", 0.02, 0.0005),
        ("similar", "jaro_winkler_similarity(family_l, family_r) >= 0.88", 0.03, 0.006),
    ]


def _date_levels() -> list[Level]:
    left, right = "birth_date_l", "birth_date_r"
    swapped = (
        f"left({left}, 4) = left({right}, 4) and substr({left}, 6, 2) = substr({right}, 9, 2)"
        f" and substr({left}, 9, 2) = substr({right}, 6, 2)"
    )
    return [
        ("same", f"{left} = {right}", 0.85, 0.0003),
        ("less precise", f"starts_with({left}, {right}) or starts_with({right}, {left})", 0.01, 0.002),
        ("one edit", f"length({left}) = length({right}) and {_one_edit('birth_date')}", 0.06, 0.002),
        ("day and month swapped", swapped, 0.01, 0.0005),
        (
            "same month and day",
            f"length({left}) = 10 and substr({left}, 6) = substr({right}, 6)",
            0.02,
            0.003,
        ),
        ("two edits", f"levenshtein({left}, {right}) <= 2", 0.02, 0.03),
        ("same year", f"left({left}, 4) = left({right}, 4)", 0.01, 0.02),
    ]


def _email_levels() -> list[Level]:
    # addresses are made of names: what tells namesakes apart is mostly the number behind the name
    similar = (
        "email_digits_l = email_digits_r and jaro_winkler_similarity(email_local_l, email_local_r) >= 0.9"
    )
    return [
        ("same", "email_l = email_r", 0.6, 0.00002),
        ("one edit", _one_edit("email", "email_local"), 0.05, 0.00002),
        ("same local part", "email_local_l = email_local_r", 0.1, 0.0001),
        ("similar local part, same number", similar, 0.05, 0.001),
    ]


def _phone_levels() -> list[Level]:
    return [
        ("same", "phone_l = phone_r", 0.6, 0.00003),
        ("one edit", f"{_one_end('phone', 8, 4)} and levenshtein(phone_l, phone_r) <= 1", 0.03, 0.00005),
    ]


def _id_levels() -> list[Level]:
    return [
        ("same", "national_id_l = national_id_r", 0.9, 0.00001),
        ("one edit", _one_edit("national_id"), 0.06, 0.0001),
        ("two edits", "levenshtein(national_id_l, national_id_r) <= 2", 0.02, 0.002),
    ]


def _text_levels(name: str) -> list[Level]:
    return [
        ("same", f"{name}_l = {name}_r", 0.8, 0.05),
        ("similar", f"jaro_winkler_similarity({name}_l, {name}_r) >= 0.9", 0.1, 0.02),
    ]


def _address_comparison(found: set[str]) -> dict[str, Any]:
    """One comparison for the whole address: three separate ones would count a household three times."""
    same = {part: f"{part}_l = {part}_r" for part in ("street", "postcode", "city") if part in found}
    near = {
        "street": "jaro_winkler_similarity(street_l, street_r) >= 0.9",
        "postcode": "levenshtein(postcode_l, postcode_r) <= 1",
    }
    levels: list[Level] = []
    if {"street", "postcode"} <= found:
        levels += [
            ("same street and postcode", f"{same['street']} and {same['postcode']}", 0.5, 0.0001),
            ("similar street, same postcode", f"{near['street']} and {same['postcode']}", 0.1, 0.0001),
            ("same street, similar postcode", f"{same['street']} and {near['postcode']}", 0.05, 0.0001),
        ]
    if "street" in found:
        levels.append(("same street", same["street"], 0.1, 0.0005))
        levels.append(("similar street", near["street"], 0.05, 0.002))
    if "postcode" in found:
        levels.append(("same postcode", same["postcode"], 0.1, 0.001))
        levels.append(("similar postcode", near["postcode"], 0.03, 0.005))
    if "city" in found:
        levels.append(("same city", same["city"], 0.05, 0.03))
    missing = " and ".join(f"({part}_l is null or {part}_r is null)" for part in sorted(same))
    return _comparison("address", "", levels, missing=missing)
