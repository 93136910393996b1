"""The words the world is made of: names, nicknames, places and streets, from the files beside this module."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from importlib.resources import files

import numpy as np
import pyarrow as pa

from profile_pipeline.generate.draws import Floats, Integers


@dataclass(frozen=True)
class Lexicon:
    """Weighted words in groups; a word's number counts through all groups."""

    groups: dict[str, int]
    words: pa.Array
    weights: Floats
    cumulative: Floats
    """Rises from g to g + 1 through group g, so one search serves all groups."""

    def pick(self, group: Integers, uniform: Floats) -> Integers:
        """Draw a word's number from each row's group; the sum must not round up into the next group."""
        place = np.minimum(group + uniform, np.nextafter(group + 1.0, 0))
        return np.searchsorted(self.cumulative, place, side="right")

    def take(self, numbers: Integers) -> pa.Array:
        """Return the words with these numbers."""
        return self.words.take(pa.array(numbers))

    def group_numbers(self, names: Sequence[str]) -> Integers:
        """Return the number of each named group."""
        return np.array([self.groups[name] for name in names], dtype=np.int64)


def build_lexicon(groups: dict[str, tuple[list[str], Floats]]) -> Lexicon:
    """Lay the groups end to end, each with its weights brought to a sum of one."""
    shares = [weights / weights.sum() for _, weights in groups.values()]
    rises = [number + np.cumsum(share) for number, share in enumerate(shares)]
    for number, rise in enumerate(rises):
        rise[-1] = number + 1
    words = [word for listed, _ in groups.values() for word in listed]
    order = {name: number for number, name in enumerate(groups)}
    return Lexicon(order, pa.array(words), np.concatenate(shares), np.concatenate(rises))


def zipf(count: int, shift: float, exponent: float) -> Floats:
    """Weights that fall with the rank (Zipf-Mandelbrot)."""
    return (np.arange(count) + 1 + shift) ** -exponent


def read_lines(name: str) -> Iterator[str]:
    """Yield the lines of a vocabulary file without comments and blanks."""
    for line in (files("profile_pipeline.generate.vocabulary") / name).read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            yield line


@cache
def name_sections() -> dict[str, dict[str, list[str]]]:
    """Return origin, then list name, then words."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in read_lines("names.txt"):
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        else:
            title, _, words = line.partition(": ")
            section[title] = words.split(", ")
    return sections


@cache
def given_names() -> Lexicon:
    """Return given names in groups called origin/sex/generation, such as english/F/older."""
    groups = {}
    for origin, lists in name_sections().items():
        for sex, title in (("M", "male"), ("F", "female")):
            for generation in ("older", "younger"):
                words = lists.get(f"{title}_{generation}", lists[title])
                groups[f"{origin}/{sex}/{generation}"] = (words, zipf(len(words), 3, 0.9))
    return build_lexicon(groups)


@cache
def family_names() -> Lexicon:
    """Return family names in groups called by origin; the tail joins stems to endings."""
    groups = {}
    for origin, lists in name_sections().items():
        tail = sorted(rare_names(lists["stems"], lists["endings"]) - set(lists["family"]), key=shuffle_key)
        words = lists["family"] + tail
        groups[origin] = (words, zipf(len(words), 5, 0.85))
    return build_lexicon(groups)


def rare_names(stems: list[str], endings: list[str]) -> set[str]:
    """Return every stem with every ending."""
    return {stem + ending for stem in stems for ending in endings}


def shuffle_key(word: str) -> bytes:
    """Order words as if by chance, the same in every process."""
    return blake2b(word.encode(), digest_size=8).digest()


@cache
def nicknames() -> dict[str, list[str]]:
    """Return the short forms of a given name, the commonest first."""
    return {
        line.partition(": ")[0]: line.partition(": ")[2].split(", ") for line in read_lines("nicknames.txt")
    }


@cache
def places() -> Lexicon:
    """Return the lines of the places file in groups called by country, weighted by size."""
    lines: dict[str, list[str]] = {}
    for line in read_lines("places.txt"):
        lines.setdefault(line.partition("|")[0], []).append(line)
    weights = {
        country: np.array([float(row.rpartition("|")[2]) for row in rows]) for country, rows in lines.items()
    }
    return build_lexicon({country: (rows, weights[country]) for country, rows in lines.items()})


@cache
def streets(part: str) -> Lexicon:
    """Return the `bases` or the `kinds` of street names in groups called by country."""
    groups = {}
    for line in read_lines("streets.txt"):
        title, _, words = line.partition(": ")
        country, _, kind = title.partition(".")
        if kind == part:
            listed = words.split(", ")
            groups[country] = (listed, zipf(len(listed), 10, 0.6))
    return build_lexicon(groups)
