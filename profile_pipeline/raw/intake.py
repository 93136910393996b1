"""Loads entered files into raw.<source>, each file in one transaction and each exactly once."""

import errno
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.config.project import Project
from profile_pipeline.errors import PipelineError
from profile_pipeline.raw import delimited, json_lines, ledger, parquet
from profile_pipeline.raw.streams import FileRefused, decompressed, text_lines, verified
from profile_pipeline.raw.target import Target, create_table
from profile_pipeline.warehouse import mark_built, scalar, scrubbed, transaction

MACHINE_ERRORS = (duckdb.OutOfMemoryException, duckdb.InterruptException, duckdb.FatalException)
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE}


def load_source(con: DuckDBPyConnection, config: Config, project: Project, name: str) -> None:
    """Read every pending file of a source; a file that cannot be read is refused with its reason."""
    source = config.sources[name]
    create_table(con, name, source)
    for file_id, file_name, sha256 in ledger.pending(con, name):
        try:
            with transaction(con):
                _load_file(Target(con, name, source, file_id), project, project.data / file_name, sha256)
        except FileRefused as refusal:
            _refuse(con, config, name, file_id, str(refusal))
        except (
            ValueError,
            OSError,
            duckdb.Error,
        ) as error:  # undecodable text and broken Parquet are ValueErrors
            _refuse(con, config, name, file_id, _refusal(error, source.format.type))
    mark_built(con, f"raw.{name}", ledger.source_fingerprint(con, name))


def _refusal(error: Exception, kind: str) -> str:
    """Why a file is refused; raises the error itself when the machine and not the file is at fault.

    Only the class of the error is named: its text may quote what was delivered.
    """
    if isinstance(error, MACHINE_ERRORS):
        raise error
    if getattr(error, "errno", None) in FULL_DISK or "space left" in str(error):
        raise PipelineError(f"no space or files left on this machine: {scrubbed(error)}") from None
    if isinstance(error, FileNotFoundError):
        return ledger.VANISHED
    return f"damaged, or not {kind} ({type(error).__name__}); deliver it again or mend `format`"


def _refuse(con: DuckDBPyConnection, config: Config, name: str, file_id: int, reason: str) -> None:
    con.execute(
        "update raw.files set state = 'refused', reason = ?, read_as = ? where file_id = ?",
        [reason, ledger.reading_rules(config, name), file_id],
    )


def _load_file(target: Target, project: Project, path: Path, sha256: str) -> None:
    if not any(path.resolve().is_relative_to(folder.resolve()) for folder in project.deliveries):
        raise FileRefused("leads outside the delivery folders; deliver a copy, not a link")
    rule = target.source.format
    with verified(path, sha256) as file:
        if rule.type == "parquet":
            notes = parquet.load(target, path)
        else:
            reader = delimited if rule.type == "csv" else json_lines
            # not closed here: that would close the file whose hash is still to be read
            text = text_lines(decompressed(file, path, rule), rule, reader.NEWLINE)
            notes = reader.load(target, text)
    _note_loaded(target, notes)


def _note_loaded(target: Target, notes: list[str]) -> None:
    kept = scalar(target.con, f"select count(*) from raw.{target.name} where _file = ?", [target.file_id])
    rejected = scalar(target.con, "select count(*) from raw.rejects where file_id = ?", [target.file_id])
    if not kept + rejected:
        notes = [*notes, "no rows"]
    target.con.execute(
        "update raw.files set state = 'loaded', notes = ?, row_count = ?, rejected_count = ? where file_id = ?",
        [notes, kept + rejected, rejected, target.file_id],
    )


def require_loaded(con: DuckDBPyConnection, config: Config) -> None:
    """Raise when a run has nothing to work with at all."""
    if not config.sources:
        raise PipelineError(
            "sources.yaml: no sources yet; `profile-pipeline sources infer FILE` proposes one"
        )
    if not scalar(con, "select count(*) from raw.files where state = 'loaded'"):
        raise PipelineError("no delivery could be loaded; put files that match `files:` into data/sources")
