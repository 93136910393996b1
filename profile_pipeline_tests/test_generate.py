"""The generated world: reproducible, the same at any size, as messy as promised, and equal to the committed demo."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path

import numpy as np
import phonenumbers
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profile_pipeline import generate as generate_package
from profile_pipeline.errors import PipelineError
from profile_pipeline.generate import DEMO_PEOPLE, DEMO_SEED, GenerationSummary, deliveries, generate
from profile_pipeline.generate.draws import Draws, counts_with_mean
from profile_pipeline.generate.files import text_of
from profile_pipeline.generate.rates import BLOCK_PEOPLE, RATES
from profile_pipeline.generate.scratch import open_scratch
from profile_pipeline.generate.vocabulary import family_names, given_names, nicknames
from profile_pipeline.generate.world import build_block

COMMITTED = Path(__file__).parent.parent / "data"
LARGE_PEOPLE = BLOCK_PEOPLE + 40


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> GenerationSummary:
    return generate(tmp_path_factory.mktemp("demo"), DEMO_PEOPLE, DEMO_SEED)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> GenerationSummary:
    """A world of two blocks in two parts, with the seed of the demo."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deliveries, "PART_BLOCKS", 1)
        return generate(tmp_path_factory.mktemp("large"), LARGE_PEOPLE, DEMO_SEED)


def root_of(summary: GenerationSummary) -> Path:
    return summary.files[0].parent.parent


def source_files(summary: GenerationSummary, prefix: str) -> list[Path]:
    return [path for path in summary.files if path.name.startswith(prefix) and "again" not in path.name]


def lines_of(summary: GenerationSummary, prefix: str) -> list[str]:
    """Lines without headers; loyalty rows as text."""
    lines: list[str] = []
    for path in source_files(summary, prefix):
        if path.suffix == ".parquet":
            lines += (
                [] if path.stat().st_size == 2_000 else [str(row) for row in pq.read_table(path).to_pylist()]
            )
        else:
            encoding = "windows-1252" if prefix == "store_sales" else "utf-8-sig"
            rows = path.read_text(encoding).splitlines()
            lines += rows if path.suffix == ".jsonl" else rows[1:]
    return lines


def crm_rows(summary: GenerationSummary) -> Iterator[dict[str, str]]:
    """Readable CRM rows; quoted streets are the only fields with a comma."""
    for path in source_files(summary, "crm"):
        with path.open(encoding="utf-8", newline="") as stream:
            yield from (row for row in csv.DictReader(stream) if row["modified_at"] and None not in row)


def objects_of(summary: GenerationSummary, prefix: str) -> Iterator[dict]:
    for line in lines_of(summary, prefix):
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def labels_of(summary: GenerationSummary) -> dict[tuple[str, str], str]:
    rows = pq.read_table(root_of(summary) / "truth/labels.parquet").to_pylist()
    labels = {(row["source"], row["record_id"]): row["entity_id"] for row in rows}
    assert len(labels) == len(rows), "a record key is labelled once"
    return labels


def share(flags: list[bool]) -> float:
    return sum(flags) / len(flags)


# --- the same arguments, the same bytes; the same person at any size


def test_the_same_arguments_give_the_same_bytes(demo: GenerationSummary, tmp_path: Path) -> None:
    again = generate(tmp_path, DEMO_PEOPLE, DEMO_SEED)
    assert [path.name for path in again.files] == [path.name for path in demo.files]
    for one, other in zip(demo.files, again.files, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_another_seed_gives_another_world(demo: GenerationSummary, tmp_path: Path) -> None:
    other = generate(tmp_path, 50, DEMO_SEED + 1)
    known = {line.split(",", 1)[1] for line in lines_of(demo, "crm")}
    assert not known & {line.split(",", 1)[1] for line in lines_of(other, "crm")}


@pytest.mark.parametrize(
    "prefix", ["crm", "loyalty", "shop_orders", "web_events", "store_sales", "enrichment"]
)
def test_a_larger_world_repeats_every_line_of_a_smaller_one(
    demo: GenerationSummary, large: GenerationSummary, prefix: str
) -> None:
    small_lines, large_lines = Counter(lines_of(demo, prefix)), Counter(lines_of(large, prefix))
    assert small_lines <= large_lines
    assert large_lines.total() > 5 * small_lines.total()


def test_a_larger_world_says_the_same_about_its_first_people(
    demo: GenerationSummary, large: GenerationSummary
) -> None:
    first = {key: entity for key, entity in labels_of(large).items() if int(entity) < DEMO_PEOPLE}
    assert first == labels_of(demo)


def test_every_block_has_people_of_its_own() -> None:
    first, second = (build_block(DEMO_SEED, number).people for number in (0, 1))
    assert first["person"].to_pylist() == list(range(BLOCK_PEOPLE))
    assert second["person"].to_pylist() == list(range(BLOCK_PEOPLE, 2 * BLOCK_PEOPLE))
    assert first["born_on"] != second["born_on"]


def test_a_record_key_that_two_blocks_draw_has_the_label_of_the_first() -> None:
    def labels(**people: str) -> pa.Table:
        keys = list(people)
        return pa.table(
            {"source": ["shop"] * len(keys), "record_id": keys, "entity_id": list(people.values())}
        )

    with open_scratch(DEMO_SEED) as scratch:
        first = deliveries.without_known(scratch, labels(ann="1", bob="2"))
        second = deliveries.without_known(scratch, labels(bob="20001", cy="20002"))
        third = deliveries.without_known(scratch, labels(cy="40001"))
    assert first["entity_id"].to_pylist() == ["1", "2"]
    assert second["record_id"].to_pylist() == ["cy"]
    assert third.num_rows == 0


def test_labels_are_the_keys_of_the_readable_rows(demo: GenerationSummary) -> None:
    labels = labels_of(demo)
    crm = {row["customer_id"] for row in crm_rows(demo)} - {""}
    assert {key for source, key in labels if source == "crm"} == crm
    enrichment = {line.split("|")[0] for line in lines_of(demo, "enrichment") if line.count("|") == 11} - {""}
    assert {key for source, key in labels if source == "enrichment"} == enrichment
    cards = {
        card for path in source_files(demo, "loyalty")[:2] for card in pq.read_table(path)[0].to_pylist()
    }
    assert {key for source, key in labels if source == "loyalty"} == cards - {None}


# --- the committed demo


def test_the_committed_demo_is_what_the_generator_makes(demo: GenerationSummary) -> None:
    made = {path.relative_to(root_of(demo)) for path in demo.files}
    committed = {
        path.relative_to(COMMITTED)
        for name in ("sources", "truth")
        for path in (COMMITTED / name).glob("[!.]*")
    }
    assert committed == made
    for path in made:
        same_content(COMMITTED / path, root_of(demo) / path)


def same_content(committed: Path, made: Path) -> None:
    """Text byte for byte; Parquet by its rows, because its bytes name the library's version."""
    if committed.suffix == ".parquet" and "03-10" not in committed.name:
        assert pq.read_table(committed).equals(pq.read_table(made)), committed.name
    elif committed.suffix != ".parquet":
        assert committed.read_bytes() == made.read_bytes(), committed.name


def test_the_demo_is_small(demo: GenerationSummary) -> None:
    assert sum(path.stat().st_size for path in demo.files if path.parent.name == "sources") < 4_500_000


# --- the person of the e-mail case


def test_john_greene_is_one_person_in_two_letter_cases(demo: GenerationSummary) -> None:
    labels = labels_of(demo)
    rows = [row for row in crm_rows(demo) if row["last_name"] == "Greene"]
    orders = [
        order for order in objects_of(demo, "shop_orders") if order["customer"]["last_name"] == "Greene"
    ]
    assert [(row["first_name"], row["email"]) for row in rows] == [("John", "John.Greene@luma.com")]
    assert [order["customer"]["email"] for order in orders] == ["john.greene@luma.com"]
    assert labels["crm", rows[0]["customer_id"]] == labels["shop", orders[0]["account_id"]] == "0"
    assert rows[0]["street"] == orders[0]["customer"]["address"]["line1"]


# --- realism at the promised rates


def test_counts_a_person(large: GenerationSummary) -> None:
    labels = Counter(source for source, _ in labels_of(large))
    people = large.people
    assert labels["crm"] / people == pytest.approx(
        RATES.crm * (1 + RATES.crm_twice + 2 * RATES.crm_thrice), rel=0.02
    )
    assert labels["loyalty"] / people == pytest.approx(RATES.loyalty, rel=0.03)
    assert labels["enrichment"] / people == pytest.approx(RATES.enrichment, rel=0.03)
    assert large.rows["shop"] / people == pytest.approx(RATES.shop * RATES.orders_mean, rel=0.04)
    assert large.rows["store"] / people == pytest.approx(0.45 * RATES.sales_mean, rel=0.04)
    assert 2.5 < large.rows["web"] / people < 3.3
    assert large.records == labels.total()


def test_crm_rows_are_as_incomplete_as_promised(large: GenerationSummary) -> None:
    rows = list(crm_rows(large))
    assert share([row["email"] == "" for row in rows]) == pytest.approx(RATES.crm_email_missing, abs=0.01)
    assert share([row["phone"] == "" for row in rows]) == pytest.approx(RATES.crm_phone_missing, abs=0.01)
    assert share([row["date_of_birth"] == "" for row in rows]) == pytest.approx(
        RATES.crm_birth_missing, abs=0.01
    )
    assert share([row["last_name"].isupper() for row in rows]) == pytest.approx(RATES.capitals, abs=0.01)
    assert any(row["date_of_birth"] == "31/02/1980" for row in rows)
    assert any(not row["first_name"].isascii() for row in rows)


def test_crm_changes_arrive_later_and_some_out_of_order(demo: GenerationSummary) -> None:
    versions: dict[str, list[dict[str, str]]] = {}
    for row in crm_rows(demo):
        versions.setdefault(row["customer_id"], []).append(row)
    changed = [rows for rows in versions.values() if len(rows) > 1]
    assert 0.08 < len(changed) / len(versions) < 0.25
    for column in ("street", "last_name", "email", "marketing_consent", "status", "phone"):
        assert any(rows[0][column] != rows[-1][column] for rows in changed), column
    assert any(rows[0]["modified_at"] > rows[-1]["modified_at"] for rows in changed)
    assert any(row["phone"] == "<clear>" for rows in changed for row in rows)


def test_loyalty_patches_mention_changed_fields_only(demo: GenerationSummary) -> None:
    full, patch = (pq.read_table(path).to_pylist() for path in source_files(demo, "loyalty")[:2])
    known = {row["card_number"] for row in full}
    patches = [row for row in patch if row["card_number"] in known]
    assert len(patches) > 100
    assert all(row["full_name"] is None and row["points"] is not None for row in patches)
    assert share([row["crm_id"] is not None for row in full]) == pytest.approx(
        RATES.crm * RATES.loyalty_crm_id, abs=0.04
    )
    assert any(str(row["birth_date"]) == "1900-01-01" for row in full)


def test_orders_clear_skip_and_repeat(demo: GenerationSummary) -> None:
    orders = list(objects_of(demo, "shop_orders"))
    assert any(order["customer"].get("phone", "") is None for order in orders)
    assert any("phone" not in order["customer"] for order in orders)
    repeated = [
        key for key, count in Counter(order.get("order_id") for order in orders).items() if key and count > 1
    ]
    assert 0 < len(repeated) / len(orders) < 2 * RATES.order_repeated
    guests = {order["customer"]["email"].strip().lower() for order in orders if order["account_id"] is None}
    assert {("shop", guest) for guest in guests} <= set(labels_of(demo)), "a guest's key is the e-mail"
    total = {order["order_id"]: order for order in orders if "order_id" in order}
    assert all(
        round(sum(item["quantity"] * item["unit_price"] for item in order["items"]), 2) == order["total"]
        for order in total.values()
    )


def test_households_share_a_tablet_and_log_in_alternately(demo: GenerationSummary) -> None:
    accounts: dict[str, set[str]] = {}
    for event in objects_of(demo, "web_events"):
        if event.get("type") == "login" and "cookie_id" in event:
            accounts.setdefault(event["cookie_id"], set()).add(event["account_id"])
    assert sum(len(ids) > 1 for ids in accounts.values()) > 10


def test_visitors_are_nobody_known(demo: GenerationSummary) -> None:
    truth = pq.read_table(root_of(demo) / "truth/events.parquet").to_pylist()
    unknown = [row for row in truth if row["entity_id"] is None]
    assert {row["source"] for row in unknown} == {"web"}
    assert 0.02 < len(unknown) / len(truth) < 0.15
    assert len({(row["source"], row["event_id"]) for row in truth}) == len(truth) == demo.events


def test_phones_are_valid_unless_placeholders(large: GenerationSummary) -> None:
    phones = [row["phone"] for row in islice(crm_rows(large), 4000)]
    phones += [order["customer"].get("phone") for order in islice(objects_of(large, "shop_orders"), 2000)]
    real = [
        phone for phone in phones if phone and sum(map(str.isdigit, phone)) > 8 and "000" not in phone[:8]
    ]
    assert len(real) > 3000
    invalid = [
        phone for phone in real if not phonenumbers.is_valid_number(phonenumbers.parse(phone.strip(), "GB"))
    ]
    assert invalid == []


def test_one_row_in_five_hundred_is_broken(large: GenerationSummary) -> None:
    lines = lines_of(large, "web_events")
    unreadable = [line for line in lines if not line.endswith("}")]
    events = list(objects_of(large, "web_events"))
    nameless = [event for event in events if "event_id" not in event or "occurred_at" not in event]
    assert (len(unreadable) + len(nameless)) / len(lines) == pytest.approx(RATES.broken, rel=0.3)
    assert unreadable
    widths = Counter(line.count(";") for line in lines_of(large, "store_sales"))
    assert widths.keys() == {3, 6, 8}
    assert widths[3] + widths[8] < 0.004 * widths.total()


def test_broken_files(demo: GenerationSummary) -> None:
    sources = root_of(demo) / "sources"
    assert (sources / "crm_2026-03-09.csv").stat().st_size == 0
    with pytest.raises(pa.ArrowInvalid):
        pq.read_table(sources / "loyalty_2026-03-10.parquet")
    again = (sources / "enrichment_2026-02-10_again.csv").read_bytes()
    assert again == (sources / "enrichment_2026-02-10.csv").read_bytes()


def test_encodings_are_those_of_the_sources(demo: GenerationSummary) -> None:
    store = b"".join(path.read_bytes() for path in source_files(demo, "store_sales"))
    assert "Düsseldorf" in store.decode("windows-1252")
    with pytest.raises(UnicodeDecodeError):
        store.decode("utf-8")
    assert source_files(demo, "enrichment")[0].read_bytes().startswith(b"\xef\xbb\xbfref|")


# --- files


def test_only_a_world_of_several_parts_numbers_them(
    demo: GenerationSummary, large: GenerationSummary
) -> None:
    assert not [path.name for path in demo.files if "part" in path.name]
    assert [path.name for path in source_files(large, "crm_2026-01")] == [
        "crm_2026-01-05_part000.csv",
        "crm_2026-01-05_part001.csv",
    ]
    headers = {path.read_text().split("\n", 1)[0] for path in source_files(large, "crm_2026-01")}
    assert len(headers) == 1


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(deliveries, "add_broken_files", fail)
    with pytest.raises(OSError, match="disk full"):
        generate(tmp_path, 30, 1)
    assert list(tmp_path.iterdir()) == []


def test_deliveries_of_another_world_are_refused(tmp_path: Path) -> None:
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "crm_2025-01-01.csv").write_text("mine")
    with pytest.raises(PipelineError, match=r"crm_2025-01-01\.csv"):
        generate(tmp_path, 30, 1)
    assert (tmp_path / "sources" / "crm_2025-01-01.csv").read_text() == "mine"


@pytest.mark.parametrize(("people", "seed"), [(0, 1), (-5, 1), (10, -1)])
def test_impossible_arguments_are_refused(tmp_path: Path, people: int, seed: int) -> None:
    with pytest.raises(PipelineError, match="at least 1 person"):
        generate(tmp_path, people, seed)
    assert list(tmp_path.iterdir()) == []


# --- the pieces


@given(st.integers(0, 2**32), st.integers(0, 1000), st.integers(0, 200), st.integers(0, 200))
def test_a_longer_draw_begins_with_the_shorter(seed: int, block: int, short: int, more: int) -> None:
    draws = Draws(seed, block)
    longer = draws.uniform("x", short + more)
    assert np.array_equal(draws.uniform("x", short), longer[:short])
    assert ((longer >= 0) & (longer < 1)).all()


def test_streams_do_not_repeat_each_other() -> None:
    draws = [
        Draws(seed, block).uniform(name, 50) for seed in (1, 2) for block in (0, 1) for name in ("a", "b")
    ]
    assert len({tuple(row) for row in draws}) == len(draws)


@given(st.floats(1.1, 6))
@settings(max_examples=20)
def test_counts_have_the_mean_asked_for(mean: float) -> None:
    counts = counts_with_mean(Draws(1, 0).uniform("counts", 40_000), mean, 1_000)
    assert counts.min() == 1
    assert counts.mean() == pytest.approx(mean, rel=0.05)


@given(st.data())
def test_a_word_comes_from_its_group(data: st.DataObject) -> None:
    lexicon = family_names()
    name = data.draw(st.sampled_from(sorted(lexicon.groups)))
    number = lexicon.groups[name]
    uniform = np.array(data.draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20)))
    picked = lexicon.pick(np.full(len(uniform), number), uniform)
    ends = np.flatnonzero(lexicon.cumulative == number + 1)
    first = 0 if number == 0 else int(np.flatnonzero(lexicon.cumulative == number)[-1]) + 1
    assert ((picked >= first) & (picked <= ends[0])).all()


def test_common_names_are_common_and_rare_ones_many() -> None:
    lexicon = family_names()
    english = lexicon.pick(np.zeros(100_000, dtype=np.int64), Draws(3, 0).uniform("family", 100_000))
    counts = Counter(english.tolist())
    assert lexicon.words[counts.most_common(1)[0][0]].as_py() == "Smith"
    assert counts.most_common(1)[0][1] > 1_000
    assert len(counts) > 2_000


def test_every_rate_is_read_and_every_rate_read_exists() -> None:
    folder = Path(generate_package.__file__).parent
    queries = "".join(path.read_text("utf-8") for path in folder.glob("sql/*.sql"))
    code = "".join(path.read_text("utf-8") for path in folder.glob("*.py"))
    named = set(re.findall(r"\$([a-z_]+)", queries)) | set(re.findall(r"RATES\.([a-z_]+)", code))
    assert named == {field.name for field in fields(RATES)}


def test_every_nickname_belongs_to_a_name_of_the_vocabulary() -> None:
    assert set(nicknames()) <= set(given_names().words.to_pylist())


@given(st.lists(st.text(max_size=8), max_size=12), st.integers(0, 6), st.integers(0, 6))
def test_text_of_joins_any_slice(words: list[str], skip: int, length: int) -> None:
    chunk = pa.array(words, pa.string()).slice(skip, length)
    assert bytes(text_of(chunk)) == "".join(words[skip : skip + length]).encode()
