"""How often things go wrong, change and happen in the generated world. The mix of countries stands in homes.py.

A rate is a share between 0 and 1 of the grain in its comment. The source queries name these fields as
`$field`.
"""

from dataclasses import dataclass

DEMO_PEOPLE = 3_000
DEMO_SEED = 7
DEMO_AS_OF = "2026-03-11T06:00:00+00:00"
"""The morning after the newest delivery, which `demo` counts as now: by today's clock windows such as 90 days were empty."""
BLOCK_PEOPLE = 20_000
"""People generated together; a person never depends on another block."""
PART_BLOCKS = 10
"""Blocks to a part file."""


@dataclass(frozen=True)
class Rates:
    """Shares of people, records or fields; a mean is a count per member."""

    # households
    flatshare: float = 0.12  # households of two or more whose members are unrelated
    moved: float = 0.12  # households with a former address
    landline: float = 0.45
    household_email: float = 0.06
    tablet: float = 0.15  # households of two or more that share a tablet
    shared_card: float = 0.15  # households of two or more that share a payment card
    double_barrelled: float = 0.02  # families
    flat: float = 0.14  # addresses

    # people
    same_family_name: float = 0.75  # partners
    own_origin: float = 0.80  # partners of the origin of the head
    local_given_name: float = 0.30  # people of another origin with an English given name
    married_name: float = 0.06  # women of a couple with a former family name
    junior: float = 0.02  # sons with their father's given name
    twin: float = 0.03  # grown-up children born on the same day as the one before
    other_email: float = 0.30
    former_mobile: float = 0.08

    # who is where
    crm: float = 0.85
    crm_twice: float = 0.04
    crm_thrice: float = 0.01
    loyalty: float = 0.55
    shop: float = 0.60
    web: float = 0.60
    store_card_holder: float = 0.60
    store_other: float = 0.27
    enrichment: float = 0.50
    app: float = 0.30  # people on the web who have the app too
    visitor: float = 0.15  # cookies a person that nobody ever logs in on
    orders_mean: float = 2.5
    sales_mean: float = 2.0
    sessions_mean: float = 1.5
    events_mean: float = 2.7  # events a session

    # names, wherever a person is written down
    typo: float = 0.015  # a field
    swapped_names: float = 0.004
    capitals: float = 0.03
    initial: float = 0.01
    nickname_formal: float = 0.04  # crm and third party
    nickname_casual: float = 0.30  # loyalty and shop
    former_name: float = 0.50  # records of a person with a former family name
    plain_letters: float = 0.10  # accents lost

    # gender in the CRM
    gender_missing: float = 0.06
    gender_unknown: float = 0.04
    gender_wrong: float = 0.003

    # dates of birth
    day_month_swapped: float = 0.010
    wrong_year: float = 0.007
    crm_birth_missing: float = 0.06
    crm_birth_placeholder: float = 0.015
    crm_birth_impossible: float = 0.001  # 31 February
    crm_name_unknown: float = 0.002
    crm_city_unknown: float = 0.004
    loyalty_birth_missing: float = 0.15
    loyalty_birth_placeholder: float = 0.06
    enrichment_birth_missing: float = 0.35

    # e-mail and phone
    email_placeholder: float = 0.010
    email_typo: float = 0.006
    email_letter_case: float = 0.12
    email_spaces: float = 0.02
    use_other_email: float = 0.25  # records of a person with two addresses
    use_household_email: float = 0.50  # records of a household with a shared address
    crm_email_missing: float = 0.15
    loyalty_email_missing: float = 0.25
    enrichment_email_missing: float = 0.50
    phone_placeholder: float = 0.008
    phone_switchboard: float = 0.004
    phone_national: float = 0.70  # british numbers written without the country
    phone_landline: float = 0.30  # records of a household with a landline
    phone_former: float = 0.30  # records of a person with a former number
    crm_phone_missing: float = 0.20
    loyalty_phone_missing: float = 0.30
    shop_phone_missing: float = 0.35
    shop_phone_cleared: float = 0.01

    # addresses
    street_shortened: float = 0.25
    postcode_compact: float = 0.15
    postcode_missing: float = 0.03
    crm_former_address: float = 0.50  # records of people who moved
    loyalty_former_address: float = 0.25
    shop_former_address: float = 0.08
    enrichment_former_address: float = 0.40

    # changes in later deliveries, of the records they can happen to
    crm_joins_later: float = 0.04
    crm_move_reported: float = 0.80
    crm_name_reported: float = 0.70
    crm_email_reported: float = 0.60
    crm_consent_withdrawn: float = 0.025
    crm_deleted: float = 0.010
    crm_phone_cleared: float = 0.006
    crm_late: float = 0.05  # records with an older state that arrives in March
    loyalty_joins_later: float = 0.03
    loyalty_patched: float = 0.10
    loyalty_crm_id: float = 0.45
    second_account: float = 0.01
    guest_order: float = 0.10
    app_order: float = 0.25  # orders of people with the app
    collected_order: float = 0.15  # orders without an address
    order_repeated: float = 0.015
    order_late: float = 0.02
    web_login: float = 0.45
    web_tablet: float = 0.40  # sessions of people whose household has a tablet
    web_app: float = 0.45  # sessions of people with the app
    web_other_browser: float = 0.15  # sessions
    web_newsletter: float = 0.10  # sessions
    web_repeated: float = 0.005
    web_late: float = 0.02
    store_cash: float = 0.20  # sales without a payment card
    store_shared_card: float = 0.35  # sales of people whose household shares a card
    store_second_card: float = 0.15
    store_loyalty_card: float = 0.75  # sales to card holders
    store_late: float = 0.01

    # lines that arrive a day or so after their neighbours
    out_of_order: float = 0.05

    # rows that cannot be read
    broken: float = 0.002


RATES = Rates()
