"""Plain outcomes as Dagster check specs and results. Only severity `critical` blocks what follows."""

from collections.abc import Iterable
from typing import Any

import dagster as dg

from profile_pipeline.config.expectations import Expectation
from profile_pipeline.records.guards import GUARDS
from profile_pipeline.records.staging import Check

Key = dg.AssetKey


def specs(key: Key, expectations: Iterable[Expectation]) -> list[dg.AssetCheckSpec]:
    """One check an expectation."""
    return [spec(key, item.label, item.notes, blocking=item.severity == "critical") for item in expectations]


def spec(key: Key, name: str, description: str, *, blocking: bool = False) -> dg.AssetCheckSpec:
    """A check of an asset."""
    return dg.AssetCheckSpec(name, asset=key, description=description, blocking=blocking)


def result(key: Key, check: Check) -> dg.AssetCheckResult:
    """The standing result of an expectation. Refused rows warn: they are in quarantine, not in profiles."""
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=check.name,
        passed=check.success,
        severity=severity(critical=check.severity == "critical"),
        description=_said(check),
        metadata={"rows_checked": check.evaluated, "rows_failed": check.failed, "severity": check.severity},
    )


def _said(check: Check) -> str:
    """What a check has to say; a guard that fails tells its own numbers."""
    if check.name in GUARDS or check.success or not 0 < check.failed <= check.evaluated:
        return check.notes
    return f"{check.failed:,} of {check.evaluated:,} rows do not: {check.notes}"


def fact(
    key: Key,
    name: str,
    *,
    passed: bool,
    critical: bool,
    why: str = "",
    **numbers: Any,  # noqa: ANN401
) -> dg.AssetCheckResult:
    """The result of one of our own checks; `why` says what to do and holds no personal value."""
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=name,
        passed=passed,
        severity=severity(critical=critical),
        description=why,
        metadata=numbers,
    )


def severity(*, critical: bool) -> dg.AssetCheckSeverity:
    """ERROR blocks where the check is declared blocking; WARN only shows."""
    return dg.AssetCheckSeverity.ERROR if critical else dg.AssetCheckSeverity.WARN
