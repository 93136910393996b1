"""Seconds by stage and peak memory of the whole graph on generated deliveries.

    python benchmarks/scale.py --people 575000 --json benchmarks/results/scale.json

575,000 people are about 1.5 million source records and 3 million events. The run is the real command in a process of its own;
seconds come from its Dagster history, memory from the operating system.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from profile_pipeline.config.project import PACKAGE_RULES, Project


def step_seconds(project: Project) -> dict[str, float]:
    """Seconds of every step of the newest run, from Dagster's history."""
    import dagster as dg

    from profile_pipeline.defs.run import instance_of

    with instance_of(project) as instance:
        run = instance.get_runs(limit=1)[0]
        entries = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_SUCCESS)
        return {
            entry.step_key: entry.dagster_event.step_success_data.duration_ms / 1000
            for entry in entries
            if entry.step_key and entry.dagster_event
        }


def measure(command: list[str], environment: dict[str, str]) -> tuple[float, int, str]:
    """Wall seconds, peak resident bytes and standard output of a command."""
    begun = time.monotonic()
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return time.monotonic() - begun, peak, done.stdout


def run(people: int, folder: Path) -> dict[str, object]:
    """Generate, run once, run again without news."""
    project = Project(rules=PACKAGE_RULES, data=folder / "data")
    command = [str(Path(sys.executable).with_name("profile-pipeline"))]
    environment = os.environ | {"PROFILE_RULES": str(project.rules), "PROFILE_DATA": str(project.data)}
    if not (project.data / "sources").exists():
        made, _, _ = measure(
            [*command, "generate", "--people", str(people), "--output", str(project.data)], environment
        )
    else:
        made = 0.0
    first, peak, output = measure([*command, "run", "--json"], environment)
    steps = step_seconds(project)
    again, _, _ = measure([*command, "run", "--json"], environment)
    summary = json.loads(output)
    del summary["folder"]  # of this machine
    stages: dict[str, float] = defaultdict(float)
    for step, seconds in steps.items():
        stages[step.split("__")[0]] += seconds
    return {
        "people": people,
        "generate_seconds": round(made, 1),
        "run_seconds": round(first, 1),
        "run_again_seconds": round(again, 1),
        "peak_gib": round(peak / 2**30, 2),
        "stages": {name: round(seconds, 1) for name, seconds in stages.items()},
        "slowest_steps": dict(sorted(((n, round(s, 1)) for n, s in steps.items()), key=lambda x: -x[1])[:12]),
        "summary": summary,
    }


def main() -> None:
    """Parse arguments, measure, print and keep the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument(
        "--folder", type=Path, help="keep deliveries and state here instead of a temporary folder"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="scale-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        figures = run(arguments.people, folder)
    finally:
        if not arguments.folder:
            shutil.rmtree(folder)
    text = json.dumps(figures, indent=1)
    print(text)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
