"""The command line: thin commands over the core. Nothing heavy is imported before a command needs it.

`shell` holds what all commands share, `main` the daily work; a group of commands has a module of its own.
"""

from profile_pipeline.cli.audiences import commands as audience_commands
from profile_pipeline.cli.batches import commands as batch_commands
from profile_pipeline.cli.batches import rebuild
from profile_pipeline.cli.computed import commands as computed_commands
from profile_pipeline.cli.events import commands as event_commands
from profile_pipeline.cli.explain import explain
from profile_pipeline.cli.ids import commands as ids_commands
from profile_pipeline.cli.main import app
from profile_pipeline.cli.model import commands as model_commands
from profile_pipeline.cli.policy import commands as policy_commands
from profile_pipeline.cli.report import report
from profile_pipeline.cli.review import commands as review_commands
from profile_pipeline.cli.serve import serve
from profile_pipeline.cli.sharing import commands as sharing_commands
from profile_pipeline.cli.simulate import simulate
from profile_pipeline.cli.values import commands as values_commands
from profile_pipeline.cli.watch import watch

app.add_typer(audience_commands, name="audience")
app.add_typer(batch_commands, name="batch")
app.add_typer(computed_commands, name="computed")
app.add_typer(event_commands, name="events")
app.add_typer(ids_commands, name="ids")
app.add_typer(model_commands, name="model")
app.add_typer(policy_commands, name="policy")
app.add_typer(review_commands, name="review")
app.add_typer(sharing_commands, name="share")
app.add_typer(values_commands, name="values")
app.command()(simulate)
app.command()(report)
app.command()(explain)
app.command()(rebuild)
app.command()(serve)
app.command()(watch)

__all__ = ["app"]
