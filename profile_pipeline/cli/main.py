"""Commands of a project's daily work: run it, see its state, repair it, look people up."""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from profile_pipeline import display
from profile_pipeline.cli.incoming import lookup_record, record_of
from profile_pipeline.cli.shell import (
    PENDING,
    PROBLEM,
    AsJson,
    DryRun,
    ProjectFolder,
    Quiet,
    Yes,
    as_json,
    chosen,
    confirm,
    console,
    errors,
    opened,
    plain_errors,
    show_failure,
)
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import PACKAGE_RULES, Project, current_project
from profile_pipeline.errors import PipelineError

if TYPE_CHECKING:
    from profile_pipeline.runs import Before

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a traceback with values would put personal data on the terminal
    help="Unified customer profiles on one machine.",
)
sources = typer.Typer(no_args_is_help=True, help="Describe what is delivered.")
quarantine = typer.Typer(no_args_is_help=True, help="Rows refused with a reason.")
generations = typer.Typer(no_args_is_help=True, help="Published generations.")
for name, group in {
    "sources": sources,
    "quarantine": quarantine,
    "publish": generations,
}.items():
    app.add_typer(group, name=name)


@app.command()
def demo(quiet: Quiet = False) -> None:
    """Run the whole graph on the demo deliveries (made first where there are none) and say where to look.

    The first run counts the morning after the newest of these deliveries as now, later ones the time it is.
    """
    with plain_errors():
        from profile_pipeline.generate import DEMO_AS_OF, DEMO_PEOPLE, DEMO_SEED

        project = current_project()
        if not (project.data / "sources").exists():
            from profile_pipeline.generate import generate as make

            make(project.data, DEMO_PEOPLE, DEMO_SEED)
        now = DEMO_AS_OF if _is_untouched_demo(project) else ""
        code = _run(project, {"as_of": now}, quiet=quiet, json_output=False)
        if not quiet:
            if now:
                display.line(
                    console, f"now, for this run: {now[:16]} UTC, the morning after the newest delivery"
                )
            display.next_steps(console, project)
        raise typer.Exit(code)


def _is_untouched_demo(project: Project) -> bool:
    from profile_pipeline import publish

    return project.rules == PACKAGE_RULES.resolve() and publish.current(project) is None


@app.command()
def run(
    project: ProjectFolder = None,
    as_of: Annotated[str, typer.Option(help="ISO time that counts as now.")] = "",
    threshold: Annotated[
        float | None, typer.Option(help="Match weight above which a pair is a link.")
    ] = None,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train a new matching model.")] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Compute every table afresh; ids persist.")
    ] = False,
    approve: Annotated[
        bool, typer.Option("--approve", help="Write changes of profile ids that wait for approval.")
    ] = False,
    accept_volume_change: Annotated[
        bool, typer.Option("--accept-volume-change", help="Let a much smaller full delivery through.")
    ] = False,
    quiet: Quiet = False,
    json_output: AsJson = False,
) -> None:
    """Take in what is new, resolve, merge and publish."""
    with plain_errors():
        options = {
            "as_of": as_of,
            "threshold": threshold,
            "retrain": retrain,
            "rebuild": rebuild,
            "approve": approve,
            "accept_volume_change": accept_volume_change,
        }
        raise typer.Exit(_run(chosen(project), options, quiet=quiet, json_output=json_output))


def _run(project: Project, choices: dict[str, Any], *, quiet: bool, json_output: bool) -> int:
    from profile_pipeline import runs
    from profile_pipeline.warehouse import RUN_PATIENCE, run_lock

    config = load_config(project.rules)
    if not config.sources:
        raise PipelineError(
            "sources.yaml: no sources yet; `profile-pipeline sources infer FILE` proposes one"
        )
    shown = display.progress(console, enabled=not (quiet or json_output))
    with run_lock(project.state, patience=RUN_PATIENCE), shown as progress:
        from profile_pipeline.defs.run import Options, run_graph

        before = runs.before(project)
        result = run_graph(config, project, Options(**choices), progress)
    show_failure(result)
    if result.published:
        _report(project, before, result.failed_checks, quiet=quiet, json_output=json_output)
        held_up = any(check.asset.startswith("shared/") for check in result.failed_checks)
        return (PENDING if held_up else 0) if result.success else PROBLEM
    errors.print("the previous generation stays live", highlight=False)
    return PENDING if any(check.blocking for check in result.failed_checks) else PROBLEM


def _report(project: Project, before: "Before", failed: list[Any], *, quiet: bool, json_output: bool) -> None:
    from profile_pipeline import publish, runs
    from profile_pipeline.sharing import ledger

    live = publish.current(project)
    with opened(project) as con:
        summary = runs.summary(con, load_config(project.rules), before.revision)
        sent = ledger.delivered_since(con, before.time)
    assert live is not None  # noqa: S101  a successful run has published
    new = live.number != before.generation
    if json_output:
        numbers = {"generation": live.number, "published": new, "folder": str(live.folder)}
        as_json({**asdict(summary), **numbers})
    elif not quiet:
        warnings = [check for check in failed if not check.blocking]
        display.summary(console, summary, live, warnings, new=new)
        display.shared(console, sent)


@app.command()
def status(project: ProjectFolder = None, json_output: AsJson = False) -> None:
    """What is live, what the last batches brought, and what waits for attention."""
    with plain_errors():
        from profile_pipeline import memberships, publish, runs
        from profile_pipeline.raw import ledger

        where = chosen(project)
        live, members = publish.current(where), memberships.live(where)
        with opened(where) as con:
            batches = ledger.batch_states(con)[:5]
            refused = runs.refused_files(con)
        if json_output:
            numbers = {
                "generation": live and live.number,
                "memberships": members and members.manifest["number"],
            }
            as_json({**numbers, "batches": batches, "refused": refused})
            return
        display.status(console, live, members, batches, refused)


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="New project folder.")]) -> None:
    """Make a project folder with commented rule files."""
    with plain_errors():
        from profile_pipeline.scaffold import init_project

        for path in init_project(folder):
            display.line(console, f"  {path}")
        display.line(
            console,
            f"Next: put deliveries into {folder}/data/sources, then: profile-pipeline sources infer FILE",
        )


@sources.command("infer")
def infer(
    files: Annotated[list[Path], typer.Argument(help="Deliveries of one source.")],
    name: Annotated[str | None, typer.Option(help="Name of the source.")] = None,
    add: Annotated[bool, typer.Option("--add", help="Write the proposal into the rule files.")] = False,
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """Propose a source from its files: format, columns, key, semantic types. Doubts are asked, not guessed."""
    with plain_errors():
        from profile_pipeline import infer as inference

        proposal = inference.infer_source(files, name)
        if json_output:
            as_json(asdict(proposal))
        else:
            display.proposal(console, proposal)
        if add:
            inference.add_to_project(proposal, chosen(project).rules)
            display.line(
                console, f"added to {chosen(project).rules / 'sources.yaml'}; next: profile-pipeline check"
            )


@app.command()
def check(project: ProjectFolder = None, json_output: AsJson = False) -> None:
    """Explain every mistake in the rules and deliveries in one line, with its fix."""
    with plain_errors():
        from profile_pipeline.check import check_project

        problems = check_project(chosen(project))
        if json_output:
            as_json([asdict(problem) for problem in problems])
        else:
            display.problems(console, problems)
        raise typer.Exit(PROBLEM if any(problem.severity == "error" for problem in problems) else 0)


@app.command()
def generate(
    output: Annotated[Path, typer.Option(help="Folder to write sources/ and truth/ into.")],
    people: Annotated[int, typer.Option(help="Number of people.", min=1)] = 3000,
    seed: Annotated[int, typer.Option(help="Seed; the same seed makes the same world.")] = 7,
) -> None:
    """Make the deliveries of a fictional retailer at any size, with the truth about who is who."""
    with plain_errors():
        from profile_pipeline.generate import generate as make

        summary = make(output, people, seed)
        console.print(summary)


@app.command()
def evaluate(
    labels: Annotated[Path, typer.Option(help="Parquet or CSV with source, record_id, entity_id.")],
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """Compare published clusters and raw scores with labels: pairwise, B-cubed and cluster figures."""
    with plain_errors():
        from profile_pipeline import evaluate as evaluation

        with opened(chosen(project)) as con:
            found = evaluation.evaluate(con, labels)
            table = evaluation.threshold_table(con, labels)
        if json_output:
            as_json({"published": asdict(found), "thresholds": [asdict(row) for row in table]})
        else:
            display.evaluation(console, found, table)


@app.command()
def lookup(
    identifier: Annotated[
        str | None, typer.Argument(help="E-mail, phone, any id, profile id, or retired profile id.")
    ] = None,
    record: Annotated[
        list[str] | None,
        typer.Option(
            "--record",
            metavar="FIELD=VALUE",
            help="Instead: a record to find the person of, by profile fields and namespaces.",
        ),
    ] = None,
    record_json: Annotated[
        str,
        typer.Option(
            "--record-json", help="The record as a JSON object; its keys are profile fields and namespaces."
        ),
    ] = "",
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            help="With a record: read its values as this source writes them; keys stay profile fields.",
        ),
    ] = None,
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """Find a published profile and where its values come from; or whose an incoming record would be."""
    with plain_errors():
        where = chosen(project)
        if record or record_json:
            if identifier:
                raise PipelineError("give an identifier or a record, not both")
            known = lookup_record(
                where, record_of(record or [], record_json), source, json_output=json_output
            )
            raise typer.Exit(0 if known else PROBLEM)
        if identifier is None:
            raise PipelineError("give an identifier, or a record: --record given_name=Jon --record email=...")
        from profile_pipeline.lookup import lookup as find

        found = find(load_config(where.rules), where, identifier)
        if json_output:
            as_json([asdict(item) for item in found])
        else:
            display.profiles(console, found)
        raise typer.Exit(0 if found else PROBLEM)


@quarantine.command("list")
def quarantine_list(project: ProjectFolder = None, json_output: AsJson = False) -> None:
    """Refused rows that wait for repair, by source, batch and reason."""
    with plain_errors():
        from profile_pipeline.quarantine import open_rows

        with opened(chosen(project)) as con:
            found = open_rows(con)
        if json_output:
            as_json(found)
        else:
            display.table(console, ["source", "batch", "stage", "reason", "rows"], found)


@quarantine.command("export")
def quarantine_export(
    folder: Annotated[Path, typer.Argument(help="Folder to write the rows into.")],
    project: ProjectFolder = None,
) -> None:
    """Write refused rows to files that can be repaired. They hold personal data."""
    with plain_errors():
        from profile_pipeline.quarantine import export

        where = chosen(project)
        with opened(where) as con:
            for path in export(con, load_config(where.rules), folder):
                display.line(console, str(path))


@quarantine.command("replay")
def quarantine_replay(
    file: Annotated[Path, typer.Argument(help="A repaired file of `quarantine export`.")],
    source: Annotated[str, typer.Option(help="The source whose rows these are.")],
    project: ProjectFolder = None,
) -> None:
    """Deliver repaired rows; the next run takes them in."""
    with plain_errors():
        from profile_pipeline.quarantine import replay

        where = chosen(project)
        with opened(where) as con:
            done = replay(con, load_config(where.rules), where, file, source)
        waiting = f", as refused and waiting on: {done.left_open:,}" if done.left_open else ""
        display.line(
            console,
            f"delivered as {done.name}; repaired rows: {done.repaired:,}{waiting}; next: profile-pipeline run",
        )


@generations.command("list")
def publish_list(project: ProjectFolder = None, json_output: AsJson = False) -> None:
    """Generations on disk, newest first; the live one is marked."""
    with plain_errors():
        from profile_pipeline import publish

        where = chosen(project)
        live = publish.current(where)
        found = [
            (
                g.number,
                "live" if live and g.number == live.number else "",
                g.manifest["as_of"],
                g.profile_count,
            )
            for g in publish.generations(where)
        ]
        if json_output:
            as_json(found)
        else:
            display.table(console, ["generation", "", "as of (UTC)", "profiles"], found)


@generations.command("diff")
def publish_diff(project: ProjectFolder = None, json_output: AsJson = False) -> None:
    """How the live generation differs from the one before: profiles and values."""
    with plain_errors():
        from profile_pipeline import publish

        found = publish.difference(chosen(project))
        if json_output:
            as_json(found)
        else:
            display.table(console, ["what changed", "profiles"], list(found.items()))


@generations.command("rollback")
def publish_rollback(
    number: Annotated[int | None, typer.Argument(help="Generation; default: the one before.")] = None,
    project: ProjectFolder = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Make an earlier generation live again, and the memberships of its audiences."""
    with plain_errors():
        from profile_pipeline import memberships, publish
        from profile_pipeline.warehouse import run_lock

        where = chosen(project)
        with run_lock(where.state):
            target = publish.rollback_target(where, number)
            console.print(f"generation {target.number}, as of {target.manifest['as_of']}", highlight=False)
            if dry_run:
                return
            confirm("make it live?", yes=yes)
            # the generation last: after a kill in between the same command does it all again
            publish.withhold_newest(where)
            memberships.follow(where, target)
            publish.point_to(where, target.folder)
        console.print(f"live: generation {target.number}; the next run that changes something publishes anew")


@app.command()
def ui(
    project: ProjectFolder = None,
    port: Annotated[int, typer.Option(help="Port on loopback.")] = 3000,
) -> None:
    """Open the project in the Dagster UI, with schedule and sensors, on loopback."""
    with plain_errors():
        from profile_pipeline.defs.run import WORKSPACE, dagster_home

        where = chosen(project)
        load_config(where.rules)
        home = dagster_home(where)
        os.environ |= {
            "DAGSTER_HOME": str(home),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "PROFILE_RULES": str(where.rules),
            "PROFILE_DATA": str(where.data),
        }
        dagster = str(Path(sys.executable).with_name("dagster"))
        arguments = ["dev", "-w", str(home / WORKSPACE), "-h", "127.0.0.1", "-p", str(port)]
        os.execv(dagster, [dagster, *arguments])  # noqa: S606  no shell, no outside input
