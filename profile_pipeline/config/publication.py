"""rules/publication.yaml: how often profiles are refreshed and how many generations are kept."""

from pydantic import Field

from profile_pipeline.config.model import Rule

SETTLED_SECONDS = 3.0
"""A file of the inbox younger than this may still be on its way."""


class TrustRules(Rule):
    """Limits of the verdict of the report. What is over a `_look` limit is worth a look, over a `_stop` limit not to be used."""

    refused_look: float = Field(
        default=0.02, ge=0, le=1, description="share of a source's rows in quarantine"
    )
    refused_stop: float = Field(default=0.2, ge=0, le=1, description="the same, too many to use the profiles")
    failing_look: float = Field(
        default=0.01, ge=0, le=1, description="share of rows for which an expectation may fail"
    )
    no_time_look: float = Field(
        default=0.05, ge=0, le=1, description="share of a source's rows without a time of their own"
    )
    precision_look: float = Field(
        default=0.95, ge=0, le=1, description="least share of links expected to be right"
    )
    precision_stop: float = Field(
        default=0.8, ge=0, le=1, description="the same, too few to use the profiles"
    )
    change_look: float = Field(
        default=0.1, ge=0, description="share by which the profile count may change at once"
    )
    change_stop: float = Field(default=0.5, ge=0, description="the same, too much to use the profiles")
    lost_look: float = Field(
        default=0.05, ge=0, le=1, description="share of profiles that may lose a field at once"
    )
    flagged_look: float = Field(
        default=0.001, ge=0, le=1, description="share of profiles that may be flagged"
    )
    newest_days: float = Field(default=14, gt=0, description="age in days that the newest data may have")
    source_days: float = Field(
        default=45, gt=0, description="days that a source may be behind the newest data"
    )


class PublicationRules(Rule):
    """The whole of rules/publication.yaml."""

    keep_generations: int = Field(default=5, ge=2, description="generations that stay on disk, for rollback")
    schedule: str = Field(default="0 5 * * *", description="cron line of the full refresh")
    timezone: str = Field(default="UTC", description="IANA zone of the schedule")
    fresh_within_hours: int = Field(default=26, ge=1, description="older profiles are reported as stale")
    inbox_seconds: int = Field(default=30, ge=5, description="how often the inbox is looked at")
    automation: bool = Field(default=False, description="schedule and sensors start switched on")
    parquet: bool = Field(default=True, description="publish Parquet files beside the DuckDB file")
    trust: TrustRules = Field(default=TrustRules(), description="limits of the verdict of the report")
