"""Dagster's history: quick below the project's folder, as ever elsewhere."""

from pathlib import Path

import sqlalchemy

from profile_pipeline.defs.history import quick_history

FULL, NORMAL = 2, 1


def synchronous(path: Path) -> int:
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    try:
        with engine.connect() as con:
            con.exec_driver_sql("create table if not exists runs (n integer)")
            return con.exec_driver_sql("pragma synchronous").scalar_one()
    finally:
        engine.dispose()


def test_commits_below_the_folder_do_not_wait_for_the_disk_and_others_do(tmp_path: Path) -> None:
    home = tmp_path / "dagster"
    home.mkdir()
    with quick_history(home):
        assert synchronous(home / "runs.db") == NORMAL
        assert synchronous(tmp_path / "other.db") == FULL
    assert synchronous(home / "runs.db") == FULL
