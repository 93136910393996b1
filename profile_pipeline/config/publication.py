"""rules/publication.yaml: how often profiles are refreshed and how many generations are kept."""

from pydantic import Field

from profile_pipeline.config.model import Rule


class PublicationRules(Rule):
    """The whole of rules/publication.yaml."""

    keep_generations: int = Field(default=5, ge=2, description="generations that stay on disk, for rollback")
    schedule: str = Field(default="0 5 * * *", description="cron line of the full refresh")
    timezone: str = Field(default="UTC", description="IANA zone of the schedule")
    fresh_within_hours: int = Field(default=26, ge=1, description="older profiles are reported as stale")
    inbox_seconds: int = Field(default=30, ge=5, description="how often the inbox is looked at")
    automation: bool = Field(default=False, description="schedule and sensors start switched on")
    parquet: bool = Field(default=True, description="publish Parquet files beside the DuckDB file")
