"""Expectation files: types that exist, arguments that are accepted, columns that are there."""

from collections import Counter
from typing import Any

from profile_pipeline.check.expressions import profile_columns
from profile_pipeline.check.problem import Problem
from profile_pipeline.config.cross_check import RECORD_COLUMNS
from profile_pipeline.config.expectations import Expectation
from profile_pipeline.config.load import Config
from profile_pipeline.config.wording import suggestion
from profile_pipeline.quality import definition_problems, derived_expectations

COLUMN_KEYS = ("column", "column_A", "column_B")


def suite_problems(config: Config) -> list[Problem]:
    """Expectations that could not run; imports Great Expectations only when there are any."""
    return [
        Problem(f"expectations/{table}.yaml", key, message)
        for table, suite in config.suites.items()
        for key, message in [*_named_twice(config, table), *_of_suite(config, table, suite.expectations)]
    ]


def _of_suite(config: Config, table: str, expectations: list[Expectation]) -> list[tuple[str, str]]:
    columns = columns_of_table(config, table)
    found = []
    for index, item in enumerate(expectations):
        where = f"expectations.{index}"
        found += [(f"{where}.{key}", message) for key, message in definition_problems(item)]
        found += [
            (f"{where}.kwargs", f"unknown column `{name}`; {_column_fix(name, columns)}")
            for name in _named_columns(item.kwargs)
            if columns and name not in columns
        ]
    return found


def columns_of_table(config: Config, table: str) -> list[str]:
    """Columns an expectation may name; empty for tables whose columns are not known beforehand."""
    schema, _, name = table.partition(".")
    if schema == "raw":
        return [*config.sources[name].columns, "_line", "_file"]
    if table == "profiles.unified":
        return list(profile_columns(config))
    if schema == "records" and name in config.sources:
        return [*config.sources[name].attributes, *sorted(RECORD_COLUMNS), "_line", "_file"]
    return []


def _column_fix(name: str, columns: list[str]) -> str:
    return suggestion(name, columns, f"columns: {', '.join(columns)}")


def _named_columns(kwargs: dict[str, Any]) -> list[str]:
    single = [kwargs[key] for key in COLUMN_KEYS if isinstance(kwargs.get(key), str)]
    return [*single, *(kwargs.get("column_list") or [])]


def _named_twice(config: Config, table: str) -> list[tuple[str, str]]:
    """Two checks of one name cannot both be shown; those that follow from a source's rules count."""
    schema, _, name = table.partition(".")
    suites = [config.suites[table]]
    derived: list[Expectation] = []
    if name in config.sources and schema in {"raw", "records"}:
        derived = derived_expectations(config, config.sources[name])
        other = config.suites.get(f"{'records' if schema == 'raw' else 'raw'}.{name}")
        suites += [other] if other else []
    labels = Counter(item.label for item in [*derived, *(i for suite in suites for i in suite.expectations)])
    return [
        (
            f"expectations.{index}.name",
            f"`{item.label}` is the name of two checks; give this one another `name:`",
        )
        for index, item in enumerate(config.suites[table].expectations)
        if labels[item.label] > 1
    ]
