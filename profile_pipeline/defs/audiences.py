"""Assets of the audiences stage."""

import dagster as dg

from profile_pipeline import audiences
from profile_pipeline.config.load import Config
from profile_pipeline.defs.tables import table_step


def assets(config: Config) -> list[dg.AssetsDefinition]:
    """Who is in which audience."""
    return [
        table_step(
            config,
            {"audiences.membership": "Who entered and left which audience, and when."},
            lambda con: audiences.build_audiences(con, config),
            deps=["profiles.unified"],
            numbers=lambda con: {f"members_{name}": size for name, size in audiences.sizes(con).items()},
        )
    ]
