"""rules/audiences.yaml: sets of profiles, each a SQL condition over the default profile table."""

from pydantic import Field

from profile_pipeline.config.model import Expression, Name, Rule


class Audience(Rule):
    """Profiles for which a DuckDB condition over the columns of the profile table is true."""

    description: str = Field(default="", description="who is meant")
    where: Expression = Field(description="DuckDB condition over the columns of the profile table")
    consent: Name | None = Field(
        default=None, description="a consent field that must be true, whatever `where` says"
    )


class AudienceRules(Rule):
    """The whole of rules/audiences.yaml."""

    audiences: dict[Name, Audience] = Field(default={}, description="audiences, by name")
