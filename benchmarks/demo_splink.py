"""Splink with the settings that its own documentation shows for a data set.

Facts taken from the examples of Splink's documentation: pages "Deduplicate 50k rows historical persons", "Febrl3
dedupe", "Febrl4 link", "Accuracy analysis from labels column" (fake_1000) under
https://moj-analytical-services.github.io/splink/demos/examples/. Where a page does not cluster, the threshold is
that of the tutorial and of the historical example, 0.95.
"""

from collections.abc import Callable

from plain_splink import Plan

COLUMNS = """row_number() over (order by source, record_id) as unique_id, source, record_id,
    * exclude (source, record_id)"""
"""Every set is given to Splink as delivered, under a number of its own."""
DERIVED = {"historical_50k": ", first_name || ' ' || last_name as both_names"}


def historical_50k() -> Plan:
    """The example's ten blocking rules and five comparisons."""
    import splink.comparison_library as cl
    from splink import block_on

    return Plan(
        link_type="dedupe_only",
        comparisons=[
            cl.ForenameSurnameComparison(
                "first_name", "last_name", forename_surname_concat_col_name="both_names"
            ),
            cl.DateOfBirthComparison("dob", input_is_string=True),
            cl.PostcodeComparison("postcode"),
            *(_frequent(name) for name in ("birth_place", "occupation")),
        ],
        blocking_rules=[
            block_on("substr(first_name, 1, 3)", "substr(last_name, 1, 4)"),
            block_on("last_name", "dob"),
            block_on("first_name", "dob"),
            block_on("postcode", "first_name"),
            block_on("postcode", "last_name"),
            block_on("dob", "birth_place"),
            *(block_on("substr(postcode, 1, 3)", name) for name in ("dob", "first_name", "last_name")),
            block_on("substr(first_name, 1, 2)", "substr(last_name, 1, 2)", "substr(dob, 1, 4)"),
        ],
        prior_rules=[
            block_on("first_name", "last_name", "dob"),
            block_on("substr(first_name, 1, 2)", "last_name", "substr(postcode, 1, 2)"),
            block_on("dob", "postcode"),
        ],
        prior_recall=0.6,
        em_rules=[block_on("first_name", "last_name"), block_on("dob")],
        u_pairs=1e7,
        retain_calculations=True,
    )


def febrl3() -> Plan:
    """The example's five blocking rules and six comparisons."""
    import splink.comparison_library as cl
    from splink import block_on

    return Plan(
        link_type="dedupe_only",
        comparisons=[
            cl.NameComparison("first_name"),
            cl.NameComparison("last_name"),
            cl.DateOfBirthComparison("dob", input_is_string=True),
            cl.DamerauLevenshteinAtThresholds("id_number", [2]),
            *(_frequent(name) for name in ("street_number", "postcode")),
        ],
        blocking_rules=[
            block_on(name) for name in ("id_number", "first_name", "last_name", "dob", "postcode")
        ],
        prior_rules=[
            block_on("id_number"),
            block_on("first_name", "last_name", "dob"),
            "l.first_name = r.last_name and l.last_name = r.first_name and l.dob = r.dob",
        ],
        prior_recall=0.9,
        em_rules=[block_on("dob"), block_on("postcode")],
        u_seed=2,
        em_without_frequencies=False,
        retain_calculations=True,
        predict_from=0.2,
    )


def febrl4() -> Plan:
    """The example's detailed model, linking two tables."""
    import splink.comparison_library as cl
    from splink import block_on

    return Plan(
        link_type="link_only",
        comparisons=[
            cl.NameComparison("first_name").configure(term_frequency_adjustments=True),
            cl.NameComparison("last_name").configure(term_frequency_adjustments=True),
            cl.DateOfBirthComparison("dob", input_is_string=True, invalid_dates_as_null=True),
            cl.DamerauLevenshteinAtThresholds("id_number", [1, 2]),
            _frequent("street_number"),
            cl.DamerauLevenshteinAtThresholds("postcode", [1, 2]).configure(term_frequency_adjustments=True),
        ],
        blocking_rules=[
            block_on("first_name", "last_name"),
            "l.first_name = r.last_name and l.last_name = r.first_name",
            block_on("dob"),
            block_on("id_number"),
            block_on("state", "street"),
            block_on("street_number", "street"),
            block_on("postcode"),
        ],
        prior_rules=[block_on("id_number"), block_on("first_name", "last_name", "dob")],
        prior_recall=0.8,
        em_rules=[block_on("dob"), block_on("postcode")],
        threshold=0.99,
        retain_calculations=True,
        predict_from=0.2,
    )


def fake_1000() -> Plan:
    """The example's four blocking rules and four comparisons."""
    import splink.comparison_library as cl
    from splink import block_on

    return Plan(
        link_type="dedupe_only",
        comparisons=[
            cl.ForenameSurnameComparison("first_name", "last_name"),
            cl.DateOfBirthComparison("dob", input_is_string=True),
            _frequent("city"),
            cl.EmailComparison("email"),
        ],
        blocking_rules=[block_on(name) for name in ("first_name", "last_name", "dob", "email")],
        prior_rules=[
            "l.first_name = r.first_name and levenshtein(r.dob, l.dob) <= 1",
            "l.last_name = r.last_name and levenshtein(r.dob, l.dob) <= 1",
            "l.first_name = r.first_name and levenshtein(r.last_name, l.last_name) <= 2",
            "l.email = r.email",
        ],
        prior_recall=0.7,
        em_rules=[block_on("dob"), block_on("email"), block_on("first_name", "last_name")],
        u_seed=5,
        retain_calculations=True,
    )


def _frequent(name: str) -> object:
    import splink.comparison_library as cl

    return cl.ExactMatch(name).configure(term_frequency_adjustments=True)


DEMOS: dict[str, Callable[[], Plan]] = {
    "historical_50k": historical_50k,
    "febrl3": febrl3,
    "febrl4": febrl4,
    "fake_1000": fake_1000,
    "fake_20000": fake_1000,
}
"""Sets by name that Splink's documentation has an example for; fake_20000 is made as fake_1000 is."""
