"""A mistake of a project, for a person to mend."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Problem:
    """One mistake. An `error` stops or spoils a run; a `warning` is worth a look."""

    file: str
    key: str
    message: str
    severity: Literal["error", "warning"] = "error"

    @property
    def line(self) -> str:
        """The whole problem as one line."""
        return f"{self.file}: {self.key}: {self.message}" if self.key else f"{self.file}: {self.message}"

    @classmethod
    def from_line(cls, line: str) -> "Problem":
        """A mistake that `load_config` reports as `file: key: message`."""
        file, _, rest = line.partition(": ")
        key, _, message = rest.partition(": ")
        return cls(file, key, message) if message else cls(file, "", key)
