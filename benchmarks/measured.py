"""Runs one measurement in a process of its own, so that seconds and peak memory belong to it alone.

A measurement prints one JSON object as its last line. One that crashes or takes too long is a result too.
"""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LONGEST_REASON = 160


@dataclass
class Clock:
    """Seconds by stage, in order of first use."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Add the time of a block to a stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0) + time.perf_counter() - start, 2)


def in_own_process(command: list[str], limit: float, folder: Path | None = None) -> dict[str, Any]:
    """Result of a command: what it printed, `status`, `peak_rss_mb`; `reason` when it did not succeed.

    `limit` in seconds. Peak memory is that of the largest single process among it and its children. The kernel counts
    what the asking process held when it started the command, so that one has to be small.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True, cwd=folder)
        code, usage = _wait(child, limit)
        out.seek(0)
        err.seek(0)
        printed, complaint = out.read().decode(), err.read().decode(errors="replace")
    peak = {"peak_rss_mb": usage.ru_maxrss // 1024}
    if code is None:
        return {"status": "too slow", "reason": f"stopped after {limit:.0f} s", **peak}
    if code != 0:
        return {"status": "failed", "reason": reason(complaint, code), **peak}
    return {"status": "done", **json.loads(printed.splitlines()[-1]), **peak}


def _wait(child: "subprocess.Popen[bytes]", limit: float) -> tuple[int | None, resource.struct_rusage]:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        process, status, usage = os.wait4(child.pid, os.WNOHANG)
        if process:
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode, usage
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGKILL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return None, usage


def reason(complaint: str, code: int) -> str:
    """The last line of a complaint, without values and paths: it is committed with the results."""
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    if not lines:
        return f"ended by signal {-code}" if code < 0 else f"exit code {code}"
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    text = (errors or lines)[-1]
    text = re.sub(r"(/[\w.@-]+){2,}", "<path>", text)
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "<value>", text)
    return text[:LONGEST_REASON]


def own_peak_mb() -> int:
    """Peak resident memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def threads() -> int:
    """Threads that every system here may use."""
    return len(os.sched_getaffinity(0))


def print_result(result: dict[str, Any]) -> None:
    """What a measurement hands to `in_own_process`."""
    print(json.dumps(result))


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Results as a committed file: written whole, so that a stopped benchmark leaves the last state."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def add_results(path: Path, size: str, found: dict[str, Any]) -> None:
    """Results of one size beside those of other sizes, in the order of sizes."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept[size] = {**kept.get(size, {}), **found}
    write_results(path, dict(sorted(kept.items(), key=lambda item: int(item[0]))))


def this_script(script: str, *arguments: object) -> list[str]:
    """A command that runs a script of this folder again with other arguments."""
    return [sys.executable, str(Path(script).resolve()), *(str(argument) for argument in arguments)]
