"""The six sources of Luma & Lark: which query makes a delivery, and the format of its files."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Feed:
    """How one source delivers; a feed without a header and an encoding delivers Parquet or JSON lines."""

    source: str
    query: str
    prefix: str
    suffix: str
    header: str = ""
    encoding: str = "utf-8"
    records: bool = False
    events: bool = False


CRM_HEADER = (
    "customer_id,first_name,last_name,gender,date_of_birth,email,phone,street,city,postcode,country,"
    "marketing_consent,segment,status,modified_at\n"
)
STORE_HEADER = "transaction_id;sold_at;store;card_token;loyalty_card;items;amount\n"
ENRICHMENT_HEADER = (
    "\ufeffref|forename|surname|dob|address|town|postcode|email|income_band|homeowner|interests|as_of\n"
)

FEEDS = (
    Feed("crm", "crm", "crm", ".csv", CRM_HEADER, records=True),
    Feed("loyalty", "loyalty", "loyalty", ".parquet", records=True),
    Feed("shop", "orders", "shop_orders", ".jsonl", records=True, events=True),
    Feed("web", "web", "web_events", ".jsonl", events=True),
    Feed("store", "store", "store_sales", ".csv", STORE_HEADER, "windows-1252", events=True),
    Feed("enrichment", "enrichment", "enrichment", ".csv", ENRICHMENT_HEADER, records=True),
)
LOYALTY_COLUMNS = [
    "card_number", "crm_id", "full_name", "email", "mobile", "birth_date", "postcode", "tier", "points",
    "enrolled_on", "updated_at",
]  # fmt: skip
