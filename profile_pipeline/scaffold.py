"""Makes a project folder: commented rules, their schemas, and places for deliveries. Never overwrites."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from profile_pipeline.errors import PipelineError
from profile_pipeline.schemas import schema_texts

FOLDERS = ("data/sources", "data/inbox")
RENAMED = {"gitignore": ".gitignore"}


def init_project(folder: Path) -> list[Path]:
    """Write a new project and return its files and folders; raises PipelineError, and writes nothing, if one exists."""
    texts = project_texts()
    existing = [name for name in texts if (folder / name).exists()]
    if existing:
        raise PipelineError(f"{folder}: holds {existing[0]} already; choose an empty folder")
    if folder.exists() and not folder.is_dir():
        raise PipelineError(f"{folder}: is a file; choose an empty folder")
    return [*(_write(folder / name, text) for name, text in texts.items()), *map(_make, _places(folder))]


def project_texts() -> dict[str, str]:
    """Every file of a new project: path inside it to text."""
    templates = files("profile_pipeline") / "templates"
    found = {RENAMED.get(name, name): text for name, text in _texts(templates, "")}
    schemas = {f"rules/schemas/{name}": text for name, text in schema_texts().items()}
    return {**found, **schemas}


def _texts(folder: Traversable, prefix: str) -> list[tuple[str, str]]:
    found = []
    for entry in sorted(folder.iterdir(), key=lambda each: each.name):
        if entry.is_dir():
            found += _texts(entry, f"{prefix}{entry.name}/")
        else:
            found.append((prefix + entry.name, entry.read_text(encoding="utf-8")))
    return found


def _places(folder: Path) -> list[Path]:
    return [folder / name for name in FOLDERS]


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
    return path


def _make(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path
