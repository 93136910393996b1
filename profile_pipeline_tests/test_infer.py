"""A proposal is right where the files decide, asks where they do not, and never holds a delivered value."""

import gzip
import io
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from profile_pipeline import display
from profile_pipeline.check import check_project
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import project_at
from profile_pipeline.config.reading import parse_yaml
from profile_pipeline.errors import PipelineError
from profile_pipeline.infer import add_to_project, files, infer_source
from profile_pipeline.infer.append import insert
from profile_pipeline.infer.propose import source_name
from profile_pipeline.infer.render import file_pattern, scalar
from profile_pipeline.infer.vocabulary import field_of, names_event, namespace_of, slug
from profile_pipeline.scaffold import init_project

DEMO = Path(__file__).parent.parent / "data" / "sources"
FIRST = ["Anna", "Bernd", "Claire", "Dörte", "Émile", "Fränzi"]
LAST = ["Müller", "Schmidt", "Öztürk", "Weiß", "Lefèvre"]


def deliver(folder: Path, name: str, header: list[str], rows: list[list[str]], delimiter: str = ",") -> Path:
    path = folder / name
    text = "".join(delimiter.join(row) + "\n" for row in [header, *rows])
    path.write_text(text, encoding="utf-8")
    return path


def people(count: int, born: str = "{d:02}/{m:02}/{y}", seed: int = 1) -> list[list[str]]:
    draw = random.Random(seed)
    return [
        [f"C{i:05}", draw.choice(FIRST), draw.choice(LAST), f"person{i}@post.example.org",
         born.format(d=draw.randint(1, 12), m=draw.randint(1, 12), y=draw.randint(1950, 2000))]
        for i in range(count)
    ]  # fmt: skip


HEADER = ["customer_id", "first_name", "last_name", "email", "dob"]


def only_source(proposal):
    [source] = parse_yaml(proposal.yaml)["sources"].values()
    return source


NAMES = {
    "given_name": [
        "first_name",
        "FirstName",
        "Vorname",
        "prénom",
        "Customer First Name",
        "imie",
        "fornavn",
        "customer.name.first",
        "name.given",
        "customer.name.given_name",
    ],
    "family_name": [
        "surname",
        "Nachname",
        "nom",
        "apellidos",
        "last name",
        "achternaam",
        "customer.name.last",
        "name.family",
        "buyer_name_surname",
    ],
    "full_name": [
        "name",
        "customer_name",
        "Full Name",
        "contactName",
        "last_contact_name",
        "customer.name.full",
    ],
    "birth_date": [
        "dob",
        "date_of_birth",
        "Geburtsdatum",
        "date de naissance",
        "fecha_nacimiento",
        "birth",
        "customer.birth",
    ],
    "email": ["e-mail", "E-Mail-Adresse", "user_email", "email_address_1", "courriel"],
    "phone": ["tel", "Mobile", "home_phone", "Handynummer", "Téléphone"],
    "street_address": ["Straße", "billing_street", "address line 1", "rue", "address"],
    "house_number": ["street_number", "Hausnummer", "house no"],
    "postcode": ["PLZ", "zip", "Zip Code", "shipping_postcode", "code postal"],
    "city": ["Ort", "town", "billing_city", "Ville"],
    "country": ["Land", "country_code", "pays"],
    "consent": ["marketing_consent", "newsletter", "email_opt_in"],
    "matched_category": ["occupation", "birth_place", "Place of Birth"],
    None: [
        "store_name",
        "product_name",
        "ip_address",
        "amount",
        "campaign name",
        "eventtype",
        "file name",
        "page_title",
        "product.name.first",
        "customer.name.title",
        "birth_weight_class",
    ],
}


@pytest.mark.parametrize(("meaning", "name"), [(m, n) for m, listed in NAMES.items() for n in listed])
def test_what_a_column_name_means(meaning, name):
    found = field_of(name)
    assert (found.meaning if found else None) == meaning


@pytest.mark.parametrize(
    ("name", "space"),
    [("customer_id", "crm_id"), ("Kundennummer", "crm_id"), ("loyaltyCardNumber", "loyalty_card"), ("user_id", "account_id"),
     ("cookie_id", "cookie"), ("device_id", "device"), ("visitorId", "cookie"), ("order_id", None), ("ref", None)],
)  # fmt: skip
def test_what_an_identifier_name_means(name, space):
    found = namespace_of(name)
    assert (found.meaning if found else None) == space


LOYAL = ["card", "name", "email", "birth"]


def loyal() -> list[list[str]]:
    return [[f"LC{500 + i}", f"{FIRST[i % 6]} {LAST[i % 5]}", f"u{i}@x.org", f"19{50 + i % 40}-03-{1 + i % 28:02}"]
            for i in range(90)]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "column", "space"),
    [
        ("loyalty", "card", "loyalty_card"),
        ("customers", "id", "crm_id"),
        ("club", "Card", "loyalty_card"),
        ("panel", "code", None),
    ],
)
def test_a_key_may_mean_an_identifier_together_with_its_source(tmp_path, source, column, space):
    path = deliver(tmp_path, f"{source}_2026-03-01.csv", [column, *LOYAL[1:]], loyal())
    proposal = infer_source([path])
    found = only_source(proposal)
    assert (found["key"], found["attributes"]["birth_date"]) == (column, "birth")
    assert [s for s, text in found["identifiers"].items() if text == column] == ([space] if space else [])
    asked = f"{column} names the records, but is no identifier; if other sources carry it, add it under `identifiers:` of each"
    assert proposal.notes == ([] if space else [asked])
    assert (space or "email") in parse_yaml(proposal.yaml)["namespaces"]


def test_names_of_event_numbers():
    assert all(map(names_event, ["order_id", "transactionNo", "Event ID", "visitId", "receipt number"]))
    assert not any(map(names_event, ["customer_id", "order_date", "id", "event"]))


@pytest.mark.parametrize(
    ("names", "pattern", "source"),
    [
        (["crm_2026-01-05.csv"], "crm_*.csv", "crm"),
        (["crm_2026-01-05.csv", "crm_2026-02-02.csv"], "crm_*.csv", "crm"),
        (["a_2026-02-10.csv", "a_2026-02-10_again.csv"], "a_*.csv", "a"),
        (["Kunden 20250101.csv.gz"], "Kunden*.csv*", "kunden"),
        (["people.parquet"], "people*.parquet", "people"),
        (["current.csv"], "current*.csv", "current_feed"),
        (["2025.csv"], "[0-9]*.csv", "c_2025"),
    ],
)
def test_pattern_and_name_from_files(names, pattern, source):
    assert file_pattern([Path(name) for name in names]) == pattern
    assert source_name([Path(name) for name in names]) == source


def test_slugs_are_names():
    assert [slug(name) for name in ("E-Mail", "Straße", "address2", "1st", "é", "日本")] == [
        "e_mail", "strasse", "address2", "c_1st", "e", "column",
    ]  # fmt: skip


@given(st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=20))
@settings(max_examples=150, deadline=None)
def test_any_text_survives_as_a_yaml_scalar(text):
    assert parse_yaml(f"a: [{scalar(text)}, 1]") == {"a": [text, 1]}


def test_a_clear_order_of_day_and_month_is_taken(tmp_path):
    rows = people(50)
    rows[7][4] = "13/02/1980"
    rows[8][4] = "27/02/1980"
    proposal = infer_source([deliver(tmp_path, "crm.csv", HEADER, rows)])
    source = only_source(proposal)
    assert (proposal.questions, source["dates"], source["key"]) == ([], ["%d/%m/%Y"], "customer_id")
    assert source["attributes"] == {
        "given_name": "first_name", "family_name": "last_name", "email": "email", "birth_date": "dob",
    }  # fmt: skip
    assert source["identifiers"] == {"crm_id": "customer_id", "email": "email"}


@pytest.mark.parametrize("born", ["{d:02}/{m:02}/{y}", "{d}.{m}.{y}", "{d:02}-{m:02}-{y}"])
def test_an_ambiguous_date_is_asked_never_guessed(tmp_path, born):
    proposal = infer_source([deliver(tmp_path, "crm.csv", HEADER, people(200, born))])
    [question] = proposal.questions
    separator = born.replace("{d:02}", "{d}")[3]
    first, second = (f'"%{a}{separator}%{b}{separator}%Y"' for a, b in ("dm", "md"))
    assert (question.key, question.choices) == ("sources.crm.dates", (first, second))
    assert only_source(proposal)["dates"] == ["?"]
    assert f"# QUESTION sources.crm.dates: {question.text}" in proposal.yaml


def test_a_mixture_of_both_orders_is_asked(tmp_path):
    rows = people(40)
    for i in range(0, 40, 2):
        rows[i][4] = f"{13 + i % 10}/02/1980" if i % 4 else f"02/{13 + i % 10}/1980"
    proposal = infer_source([deliver(tmp_path, "crm.csv", HEADER, rows)])
    assert [question.key for question in proposal.questions] == ["sources.crm.dates"]


def test_dates_are_judged_on_all_rows_and_sampling_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SAMPLE_ROWS", 100)
    early = people(150)
    late = people(150, seed=2)
    for row in late[:20]:
        row[4] = "25/03/1970"
    first = deliver(tmp_path, "crm_1.csv", HEADER, early)
    second = deliver(tmp_path, "crm_2.csv", HEADER, late)
    proposal = infer_source([first, second])
    assert only_source(proposal)["dates"] == ["%d/%m/%Y"]
    assert proposal.notes == ["types and keys were judged on the first 150 of 300 rows; date formats on all"]


def test_a_column_that_contradicts_the_others_is_converted_alone(tmp_path):
    rows = [[*row, f"{1 + i % 12:02}/{13 + i % 15}/2020"] for i, row in enumerate(people(60))]
    for row in rows[:20]:
        row[4] = "25/03/1970"
    source = only_source(infer_source([deliver(tmp_path, "crm.csv", [*HEADER, "signup"], rows)]))
    assert source["dates"] == ["%d/%m/%Y", "iso"]
    assert source["attributes"]["signup"] == "strftime(try_strptime(signup, ['%m/%d/%Y']), '%Y-%m-%d')"


def test_a_question_is_shown_as_its_key_and_its_words(tmp_path):
    proposal = infer_source([deliver(tmp_path, "crm.csv", HEADER, people(200))])
    [question] = proposal.questions
    out = io.StringIO()
    display.proposal(Console(file=out), proposal)
    assert out.getvalue().splitlines()[-1] == f"question: {question.key}: {question.text}"
    assert all(choice in question.text for choice in question.choices)


def test_times_without_an_offset_ask_for_their_zone(tmp_path):
    rows = [
        [*row, f"2024-03-{1 + i % 28:02} 10:00:00"] for i, row in enumerate(people(30, "{y}-{m:02}-{d:02}"))
    ]
    proposal = infer_source([deliver(tmp_path, "crm.csv", [*HEADER, "updated_at"], rows)])
    assert [question.key for question in proposal.questions] == ["sources.crm.time.zone"]
    assert only_source(proposal)["time"] == {"value": "updated_at", "zone": "?"}
    zoned = [[*row[:-1], row[-1] + "+01:00"] for row in rows]
    proposal = infer_source([deliver(tmp_path, "crm_zoned.csv", [*HEADER, "updated_at"], zoned)])
    assert (proposal.questions, only_source(proposal)["time"]) == ([], {"value": "updated_at"})


@pytest.mark.parametrize(
    ("encoding", "delimiter"), [("utf-8", ";"), ("utf-8-sig", "|"), ("windows-1252", "\t"), ("utf-16", ";")]
)
def test_encodings_and_delimiters(tmp_path, encoding, delimiter):
    path = deliver(tmp_path, "crm.csv", HEADER, people(20), delimiter)
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    rule = only_source(infer_source([path]))["format"]
    assert rule["delimiter"] == delimiter
    assert rule.get("encoding", "utf-8") == encoding.removesuffix("-sig")


def test_compressed_files_without_a_header(tmp_path):
    body = "".join(f"{1000 + i},a{i}@x.org,2024-01-{1 + i % 28:02}\n" for i in range(50))
    (tmp_path / "list.csv.gz").write_bytes(gzip.compress(body.encode()))
    source = only_source(infer_source([tmp_path / "list.csv.gz"]))
    assert source["format"] == {"type": "csv", "header": False}
    assert source["columns"] == ["column_1", "column_2", "column_3"]
    assert (source["key"], source["identifiers"]) == ("column_1", {"email": "column_2"})


def test_a_first_row_of_people_is_no_header(tmp_path):
    """Taken for a header, it would make names of people names of columns."""
    draw = random.Random(3)
    rows = [[draw.choice(FIRST), draw.choice(LAST)] for _ in range(60)]
    source = only_source(infer_source([deliver(tmp_path, "people.csv", rows[0], rows[1:])]))
    assert source["columns"] == ["column_1", "column_2"]


def test_nested_json_events(tmp_path):
    rows = [
        {
            "visitId": f"v{i}",
            "ts": 1_700_000_000 + 60 * i,
            "user": {"e-mail": f"u{i % 9}@x.org", "at": {"zip": "1"}},
            "order": "x",
        }
        for i in range(90)
    ]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (tmp_path / "visits.jsonl.zst").write_bytes(pa.compress(data, codec="zstd", asbytes=True))
    source = only_source(infer_source([tmp_path / "visits.jsonl.zst"]))
    assert (source["kind"], source["event"]) == ("event", {"id": "visitId", "type": "'visits'"})
    assert source["time"] == {"value": "ts", "formats": ["epoch_s"]}
    assert source["identifiers"] == {"email": "user ->> '$.\"e-mail\"'"}
    assert "key" not in source


def test_nested_parquet_is_looked_into_as_json_is(tmp_path):
    rows = [
        {
            "ticket_id": 1000 + i,
            "customer": {"id": f"T{i:03}", "contact": {"email": f"u{i % 9}@x.org"}} if i % 20 else None,
            "opened_at": f"2026-03-01T10:{i % 60:02}:00Z",
            "tags": ["a", "b"],
        }
        for i in range(90)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "tickets.parquet")
    proposal = infer_source([tmp_path / "tickets.parquet"])
    source = only_source(proposal)
    assert source["columns"] == ["ticket_id", "customer", "opened_at", "tags"]
    assert source["identifiers"]["email"] == "customer ->> '$.contact.email'"
    assert [row.column for row in proposal.rows] == [
        "ticket_id", "customer.id", "customer.contact.email", "opened_at", "tags",
    ]  # fmt: skip


def test_a_record_that_repeats_nobody_is_no_event(tmp_path):
    rows = [[*row, "2024-01-01T10:00:00Z"] for row in people(30)]
    rows = [[*row[:3], rows[i // 3][3], *row[4:]] for i, row in enumerate(rows)]
    source = only_source(infer_source([deliver(tmp_path, "crm.csv", [*HEADER, "updated_at"], rows)]))
    assert (source["kind"], source["key"]) == ("record", "customer_id")


def test_a_column_named_source_gives_a_source_for_each_value(tmp_path):
    table = {
        "source": ["census", "cis"] * 40,
        "record_id": [f"r{i:04}" for i in range(80)],
        "first_name": [FIRST[i % 6] for i in range(80)],
        "occupation": ["baker", "smith", None, "nurse"] * 20,
        "birth_place": ["york", "bath"] * 40,
    }
    pq.write_table(pa.table(table), tmp_path / "records.parquet")
    proposal = infer_source([tmp_path / "records.parquet"])
    found = parse_yaml(proposal.yaml)
    assert {name: source["where"] for name, source in found["sources"].items()} == {
        "census": "source = 'census'", "cis": "source = 'cis'",
    }  # fmt: skip
    # birth_place is the same for every row of one source, and differs between them: a fact worth keeping
    assert all(found["attributes"][name]["match"] for name in ("occupation", "birth_place"))
    named = parse_yaml(infer_source([tmp_path / "records.parquet"], "study").yaml)
    assert set(named["sources"]) == {"study_census", "study_cis"}


def test_national_numbers_give_the_country_or_a_question(tmp_path):
    rows = [
        [*row, f"07{400 + i % 90} {100000 + 37 * i}"] for i, row in enumerate(people(60, "{y}-{m:02}-{d:02}"))
    ]
    with_code = [[*row, "GB"] for row in rows]
    path = deliver(tmp_path, "crm.csv", [*HEADER, "mobile", "country"], with_code)
    assert only_source(infer_source([path]))["country"] == "GB"
    unclear = [[*row[:-1], f"0{20 + i % 9} {1000000 + 7919 * i}"] for i, row in enumerate(rows)]
    proposal = infer_source([deliver(tmp_path, "other.csv", [*HEADER, "mobile"], unclear)])
    assert [q.key for q in proposal.questions] == ["sources.other.country"]
    assert "country" not in only_source(proposal)


@pytest.mark.parametrize(
    ("values", "expression", "asked"),
    [
        (["1,500", "2,250"], "balance", True),
        (["1,50", "2,25"], "balance", False),
        (["1.234,50", "2,25"], "replace(balance, '.', '')", False),
        (["1,234.50", "2.25"], "replace(balance, ',', '')", False),
        (["1.5", "22"], "balance", False),
    ],
)
def test_decimal_signs(tmp_path, values, expression, asked):
    rows = [[*row, values[i % 2]] for i, row in enumerate(people(30, "{y}-{m:02}-{d:02}"))]
    proposal = infer_source([deliver(tmp_path, "crm.csv", [*HEADER, "balance"], rows, ";")])
    assert only_source(proposal)["attributes"]["balance"] == expression
    assert [q.key for q in proposal.questions] == (["sources.crm.attributes.balance"] if asked else [])


def test_no_delivered_value_is_in_a_proposal(tmp_path):
    rows = people(60)
    proposal = infer_source([deliver(tmp_path, "crm.csv", HEADER, rows)])
    said = proposal.yaml + repr(proposal.rows) + repr(proposal.questions) + repr(proposal.notes)
    assert [value for row in rows for value in row if value in said] == []
    assert all(0 <= row.confidence <= 1 for row in proposal.rows)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("list.json", b'[{"a": 1}]', "is one JSON list"),
        ("pretty.jsonl", b'{\n"a": 1}\n', "one JSON text over many lines"),
        ("empty.csv", b"", "is empty or damaged"),
        ("head.csv", b"a,b\n", "holds no rows"),
        ("twice.csv", b"a,A\n1,2\n", "named twice"),
        ("cut.parquet", b"PAR1xx", "is empty or damaged"),
        ("sheet.csv", b"PK\x03\x04....", "is a spreadsheet"),
    ],
)
def test_files_that_cannot_be_a_source(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PipelineError, match=words) as caught:
        infer_source([tmp_path / name])
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_absent_files_and_bad_names(tmp_path):
    with pytest.raises(PipelineError, match=r"nope\.csv: not found"):
        infer_source([tmp_path / "nope.csv"])
    with pytest.raises(PipelineError, match="not a name for a source"):
        infer_source([tmp_path / "nope.csv"], "My Feed")


def test_the_whole_way_on_the_demo(tmp_path):
    """init, infer each feed of the demo, check: nothing is wrong but the questions; answered, nothing is."""
    init_project(tmp_path)
    project = project_at(tmp_path)
    for feed in ("crm", "loyalty", "shop_orders", "web_events", "store_sales", "enrichment"):
        add_to_project(infer_source(sorted(DEMO.glob(f"{feed}_*"))), project.rules)
    rules = load_config(project.rules)
    kinds = {name: source.kind for name, source in rules.sources.items()}
    assert kinds == {
        "crm": "record", "loyalty": "record", "enrichment": "record",
        "shop_orders": "event", "web_events": "event", "store_sales": "event",
    }  # fmt: skip
    crm, shop = rules.sources["crm"], rules.sources["shop_orders"]
    assert (crm.key, crm.dates, crm.country, crm.clear_value) == (
        "customer_id",
        ["%d/%m/%Y"],
        "GB",
        "<clear>",
    )
    assert rules.sources["loyalty"].write == "patch"
    assert shop.key == "coalesce(account_id, lower(trim(customer ->> '$.email')))"
    assert rules.sources["store_sales"].format.encoding == "windows-1252"
    found = check_project(project, expectations=False)
    zones = [f"sources.{name}.time.zone" for name in ("crm", "loyalty", "store_sales")]
    assert [p.key for p in found if p.severity == "error"] == zones
    path = project.rules / "sources.yaml"
    answered = [line for line in path.read_text(encoding="utf-8").splitlines() if "# QUESTION" not in line]
    path.write_text("\n".join(answered).replace('zone: "?"', "zone: Europe/London"), encoding="utf-8")
    assert [p.line for p in check_project(project, expectations=False) if p.severity == "error"] == []


def test_adding_keeps_every_line_and_refuses_what_exists(tmp_path):
    init_project(tmp_path)
    rules = tmp_path / "rules"
    before = {
        name: (rules / name).read_text(encoding="utf-8").splitlines()
        for name in ("sources.yaml", "identity.yaml")
    }
    proposal = infer_source([deliver(tmp_path, "crm.csv", HEADER, people(30))])
    assert "sources.yaml: sources.crm" in add_to_project(proposal, rules)
    for name, lines in before.items():
        after = iter((rules / name).read_text(encoding="utf-8").splitlines())
        assert all(line in after for line in lines), "every line is still there, in order"
    written = (rules / "sources.yaml").read_text(encoding="utf-8")
    with pytest.raises(PipelineError, match=r"sources\.crm exists already; pass another name"):
        add_to_project(proposal, rules)
    assert (rules / "sources.yaml").read_text(encoding="utf-8") == written
    assert not list(rules.glob(".*"))


def test_inserting_into_blocks_of_every_form():
    lines = ["  b: 2"]
    assert insert("", "k", lines) == "k:\n  b: 2\n"
    assert insert("x: 1\n", "k", lines) == "x: 1\n\nk:\n  b: 2\n"
    assert insert("k: {} # why\nx: 1\n", "k", lines) == "k: # why\n  b: 2\nx: 1\n"
    assert insert("k:\n# why\nx: 1\n", "k", lines) == "k:\n  b: 2\n# why\nx: 1\n"
    assert (
        insert("k:\n    a: 1\n    # in\n\n# next\nx: 1\n", "k", lines)
        == "k:\n    a: 1\n    # in\n    b: 2\n\n# next\nx: 1\n"
    )
    with pytest.raises(PipelineError, match="written in braces"):
        insert("k: {a: 1}\n", "k", lines)
