"""Commands about merge policies: see them, try one on a sample, count what a change alters, import Adobe's.

What `preview` shows and exports holds personal data: that is what is compared. Nothing is written to the warehouse.
"""

from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profile_pipeline import display
from profile_pipeline.cli.shell import (
    AsJson,
    ProjectFolder,
    as_json,
    chosen,
    console,
    opened,
    plain_errors,
)
from profile_pipeline.config.cross_check import unknown
from profile_pipeline.config.load import Config, load_config
from profile_pipeline.config.project import Project
from profile_pipeline.errors import PipelineError

if TYPE_CHECKING:
    from profile_pipeline.config.profiles import Policy, Ranking
    from profile_pipeline.profiles.preview import ChangedField, Difference, Preview
    from profile_pipeline.profiles.reasons import Reason

SHOWN_LOSERS = 3
"""Losers of a field on the terminal; `--json` has all of them."""
Candidate = Annotated[
    str, typer.Argument(metavar="POLICY", help="A policy of profiles.yaml, or a YAML file with one.")
]
commands = typer.Typer(no_args_is_help=True, help="Merge policies: see, try, compare, import.")


@commands.command("list")
def policy_list(project: ProjectFolder = None, json_output: AsJson = False) -> None:
    """The policies of profiles.yaml; the default one is what audiences and lookups use."""
    with plain_errors():
        where = chosen(project)
        config = load_config(where.rules)
        state = _states(where, config)
        default = config.profiles.default
        found = [
            {
                "policy": name,
                "default": name == default,
                "version": policy.version,
                "method": policy.method,
                "clock": policy.clock,
                "state": state.get(name, "not run yet"),
                "description": policy.description,
            }
            for name, policy in config.profiles.policies.items()
        ]
        if json_output:
            as_json(found)
            return
        # what it is for and its clock are in `policy show`: a line fits a terminal
        headings = ["policy", "", "version", "method", "state"]
        rows = [
            (p["policy"], "default" if p["default"] else "", *(p[name] for name in headings[2:]))
            for p in found
        ]
        display.table(console, headings, rows)


def _states(where: Project, config: Config) -> dict[str, str]:
    """How each policy of the rules stands to the last run; none before the first."""
    from profile_pipeline.profiles import policy_versions

    if not where.database.exists():
        return {}
    with opened(where) as con:
        built = policy_versions.in_use(con)
        still = {found.policy for found in policy_versions.unraised(con, config)}
    found = {}
    for name, policy in config.profiles.policies.items():
        if name in still:
            found[name] = f"changed, still version {policy.version}: raise `version`"
        elif name in built:
            same = policy_versions.mark_of(built[name]) == policy_versions.mark_of(policy)
            found[name] = "as in the last run" if same else "changed since the last run"
    return found


@commands.command("show")
def policy_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A policy of profiles.yaml.")],
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """What decides each field under a policy, nothing left to look up."""
    with plain_errors():
        config = load_config(chosen(project).rules)
        if name not in config.profiles.policies:
            raise PipelineError(unknown("profiles.yaml", "policy", name, config.profiles.policies))
        policy = config.profiles.policies[name]
        decided = {field: _ranking(policy, field) for field in config.attributes}
        if json_output:
            as_json({
                "policy": name,
                **policy.model_dump(mode="json", by_alias=True, exclude_none=True),
                "decides": {field: asdict(ranking) for field, ranking in decided.items()},
            })  # fmt: skip
            return
        display.line(
            console, f"{name}, version {policy.version}: {policy.description or 'without description'}"
        )
        unlisted = "contributes nothing" if policy.unlisted == "exclude" else "comes last"
        display.line(console, f"clock: {policy.clock}; a source without a rank {unlisted}")
        display.table(
            console,
            ["field", "decided by", "ranks of sources", "together with"],
            [
                (field, ", then ".join(_rules(ranking)), _ranks(ranking), policy.group_of(field) or "")
                for field, ranking in decided.items()
            ],
        )


def _ranking(policy: "Policy", field: str) -> "Ranking":
    group = policy.group_of(field)
    return policy.group_ranking(group) if group else policy.ranking(field)


def _rules(ranking: "Ranking") -> Generator[str]:
    for condition, choose in ranking.when:
        yield f"({' then '.join(choose)} if {condition})"
    yield from ranking.choose


def _ranks(ranking: "Ranking") -> str:
    return ", ".join(f"{source} {rank}" for source, rank in sorted(ranking.sources, key=lambda pair: pair[1]))


# ---------------------------------------------------------------- preview


@commands.command("preview")
def policy_preview(
    policy: Candidate,
    against: Annotated[
        str, typer.Option(metavar="POLICY", help="What to compare with; default: the default policy.")
    ] = "",
    profiles: Annotated[int, typer.Option(min=1, help="Changed profiles to show.")] = 5,
    profile: Annotated[str, typer.Option(help="Only this profile: any id, record key or identifier.")] = "",
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """Some merged profiles under a policy against the current one: each changed field, its winner, losers and rule."""
    with plain_errors():
        from profile_pipeline.explain.members import find_profile
        from profile_pipeline.profiles import preview

        where = chosen(project)
        config = load_config(where.rules)
        with opened(where) as con:
            found = preview.preview(
                con,
                config,
                preview.as_published(con, config, against or config.profiles.default),
                preview.as_written(con, config, policy),
                profiles=profiles,
                profile_id=find_profile(con, config, profile) if profile else None,
            )
        if json_output:
            as_json(asdict(found))
        else:
            _show_preview(found)


def _show_preview(found: "Preview") -> None:
    sample = f"{found.looked_at:,} profile{'s' if found.looked_at != 1 else ''} looked at"
    display.line(console, f"{found.before} -> {found.after}: {sample}, {found.changed:,} would change")
    for changed in found.shown:
        display.line(console, f"\n{changed.profile_id}")
        for field in changed.fields:
            _show_field(field)
    if found.changed > len(found.shown):
        display.line(console, f"\n{found.changed - len(found.shown):,} more; --profiles shows them")
    if found.changed:
        display.line(console, "\nall profiles in numbers: profile-pipeline policy diff")


def _show_field(changed: "ChangedField") -> None:
    display.line(console, f"  {changed.field}: {_value(changed.before)} -> {_value(changed.after)}")
    for title, reason in (("before", changed.before), ("after", changed.after)):
        if reason is None:
            display.line(console, f"    {title}: nothing is chosen")
            continue
        display.line(console, f"    {title}: {reason.record_key} ({reason.words})")
        for offer in reason.beaten[:SHOWN_LOSERS]:
            text = "cleared" if offer.value is None else offer.value
            display.line(console, f"      not {text} of {offer.record_key} ({offer.words})")
        if len(reason.beaten) > SHOWN_LOSERS:
            display.line(console, f"      and {len(reason.beaten) - SHOWN_LOSERS:,} more")


def _value(reason: "Reason | None") -> str:
    return "nothing" if reason is None or reason.value is None else reason.value


# ---------------------------------------------------------------- diff


@commands.command("diff")
def policy_diff(
    before: Annotated[
        str, typer.Argument(metavar="A", help="A policy as the last run applied it, or a YAML file.")
    ],
    after: Annotated[
        str, typer.Argument(metavar="B", help="A policy as profiles.yaml says it now, or a file.")
    ],
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """How many profiles, fields and audience members change when B decides instead of A. `diff A A`: what an edit changes."""
    with plain_errors():
        from profile_pipeline.profiles import preview

        where = chosen(project)
        config = load_config(where.rules)
        with opened(where) as con:
            sides = preview.as_published(con, config, before), preview.as_written(con, config, after)
            found = preview.difference(con, config, *sides)
        if json_output:
            as_json(asdict(found))
        else:
            _show_difference(found)


def _show_difference(found: "Difference") -> None:
    share = found.changed / found.profiles if found.profiles else 0
    display.line(
        console,
        f"{found.before} -> {found.after}: {found.changed:,} of {found.profiles:,} profiles change ({share:.1%})",
    )
    if found.fields:
        display.table(
            console,
            ["field", "profiles", "another value", "nothing any more", "a value for the first time"],
            [(f.field, f.profiles, f.to_another, f.to_nothing, f.from_nothing) for f in found.fields],
        )
    if found.audiences:
        display.line(console, "\nas the default policy:")
        display.table(
            console,
            ["audience", "members", "then", "entering", "leaving"],
            [(a.audience, a.before, a.after, a.entering, a.leaving) for a in found.audiences],
        )


# ---------------------------------------------------------------- import


@commands.command("import")
def policy_import(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Adobe's merge-policy JSON: one, several, or a listing.")
    ],
    datasets: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML or JSON: dataset id or name to source."),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=SOURCE", help="One dataset and its source; may be repeated."),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Add the policies to profiles.yaml.")] = False,
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """Turn Adobe merge policies into YAML for profiles.yaml, and name what could not be carried over."""
    with plain_errors():
        from profile_pipeline.profiles import adobe

        where = chosen(project)
        config = load_config(where.rules)
        mapping = adobe.read_mapping(datasets, dataset or [])
        found = adobe.import_policies(file, config, mapping)
        written = adobe.add_to_rules(where.rules, found) if write else None
        if json_output:
            as_json({**asdict(found), "written_to": written})
            return
        if written:
            display.line(console, f"added to {written}: {', '.join(found.policies)}")
        else:
            display.line(console, adobe.as_yaml(found))
        for note in found.notes:
            display.line(console, f"{'' if written else '# '}not carried over: {note}")
