"""Where a project keeps its rules and data: the only place that reads the environment."""

import os
from dataclasses import dataclass
from pathlib import Path

PACKAGE_RULES = Path(__file__).parent.parent / "rules"


@dataclass(frozen=True)
class Project:
    """The folders of one project."""

    rules: Path
    data: Path

    @property
    def deliveries(self) -> tuple[Path, Path]:
        """Folders in which delivered files are looked for, in order."""
        return self.data / "sources", self.data / "inbox"

    @property
    def inbox(self) -> Path:
        """The folder the sensor watches."""
        return self.data / "inbox"

    @property
    def state(self) -> Path:
        """Private working state: warehouse, lock, spill."""
        return self.data / "state"

    @property
    def database(self) -> Path:
        """The warehouse file."""
        return self.state / "warehouse.duckdb"

    @property
    def past(self) -> Path:
        """A mark: these are profiles as they were, in a copy, of which nothing is shared."""
        return self.state / "as_it_was"

    @property
    def published(self) -> Path:
        """What analysts read."""
        return self.data / "published"


def project_at(folder: Path) -> Project:
    """The project in a folder that `init` made."""
    return Project(rules=folder / "rules", data=folder / "data")


def current_project() -> Project:
    """The project named by PROFILE_RULES and PROFILE_DATA, else ./rules and ./data, else the demo."""
    here = Path.cwd()
    own = here / "rules" / "sources.yaml"
    rules = Path(os.environ.get("PROFILE_RULES") or (own.parent if own.exists() else PACKAGE_RULES))
    data = Path(os.environ.get("PROFILE_DATA") or here / "data")
    return Project(rules=rules.resolve(), data=data.resolve())
