"""Assets of the audiences stage."""

import dagster as dg

from profile_pipeline import audiences
from profile_pipeline.audiences.build import READS
from profile_pipeline.config.load import Config
from profile_pipeline.config.project import Project
from profile_pipeline.defs.tables import table_step


def assets(config: Config, project: Project) -> list[dg.AssetsDefinition]:
    """Who is in which audience."""
    return [
        table_step(
            config,
            {
                "audiences.membership": "Who entered and left which audience, when and why.",
                "audiences.external_unmatched": "Rows of delivered audience lists that name no profile, with the reason.",
            },
            lambda con: audiences.build_audiences(con, config, project.data),
            deps=READS,
            numbers=lambda con: {f"members_{name}": size for name, size in audiences.sizes(con).items()},
        )
    ]
