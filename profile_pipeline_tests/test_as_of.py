"""The profiles as they were at a time, from kept rows, without touching the live project."""

from datetime import timedelta
from pathlib import Path

import pytest

from profile_pipeline import laws
from profile_pipeline.config.load import load_config
from profile_pipeline.errors import PipelineError
from profile_pipeline.records import staging
from profile_pipeline.replay import as_it_was
from profile_pipeline_tests.test_batches import PARTS, as_of, grown, person, published, quick, take_back
from profile_pipeline_tests.worlds import rows, run_core, warehouse_of

__all__ = ["quick"]


def test_as_of_a_batch_equals_what_was_published_then_ids_included(tmp_path: Path) -> None:
    project = grown(tmp_path / "live", PARTS[:2])
    then = published(project)
    project = grown(tmp_path / "live", PARTS[2:])
    live = project.database.read_bytes()
    past = as_it_was(load_config(project.rules), project, as_of(2) + timedelta(hours=5), tmp_path / "past")
    assert past.past.exists(), "nothing is shared of the past"
    assert project.database.read_bytes() == live, "the live warehouse is only read"
    run_core(past, as_of(90))
    assert published(past) == then
    assert published(project) != then
    with warehouse_of(past) as con:
        assert rows(con, "select count(*) from raw.crm") == [(5,)], (
            "nothing of a later delivery is in the copy"
        )


@pytest.mark.slow
def test_as_of_does_not_count_a_batch_that_was_reverted_since(tmp_path: Path) -> None:
    project = grown(tmp_path / "live", PARTS)
    take_back(project, 2)
    past = as_it_was(load_config(project.rules), project, as_of(2), tmp_path / "past")
    run_core(past, as_of(90))
    assert published(past) == published(grown(tmp_path / "first", PARTS[:1]))


def test_as_of_refuses_a_time_before_the_first_batch_and_a_folder_in_use(tmp_path: Path) -> None:
    project = grown(tmp_path / "live", PARTS[:1])
    config = load_config(project.rules)
    with pytest.raises(PipelineError, match="nothing had come by then; the first batch came at 2026-04-02"):
        as_it_was(config, project, as_of(0), tmp_path / "past")
    assert not (tmp_path / "past" / "state").exists()
    with pytest.raises(PipelineError, match="is not empty"):
        as_it_was(config, project, as_of(1), project.data)


# ---------------------------------------------------------------- whose clock


def test_rows_without_a_usable_time_are_measured_by_source(tmp_path: Path) -> None:
    rows_in = [
        person("c1", "Ann", "ann@x.org"),
        person("c2", "Bob", "bob@x.org", ""),
        person("c3", "Cid", "cid@x.org", "2031-01-01T00:00:00Z"),
        person("c4", "Dan", "dan@x.org"),
    ]
    project = grown(tmp_path / "p", [(1, rows_in)])
    config = load_config(project.rules)
    with warehouse_of(project) as con:
        shares = staging.clock_shares(con, "crm")
        [(observed, ingested, clock)] = rows(
            con, "select observed_at, ingested_at, clock from records.current where source_key = 'c3'"
        )
    assert shares == {"share_without_own_time": 0.25, "share_clipped_to_ingestion": 0.25}
    assert (observed, clock) == (ingested, "clipped")
    assert not laws.clock_fits(config.sources["crm"], shares)
    assert laws.clock_fits(config.sources["crm"], dict.fromkeys(shares, 0.02))
    assert laws.clock_fits(config.sources["crm"].model_copy(update={"time": None}), shares)
