"""`propulsion adapters …`: the adapter store on the command line."""

import typer

from adapters.commands.collecting import gc
from adapters.commands.diff import diff
from adapters.commands.pointing import alias_command, split_command
from adapters.commands.publishing import import_command, publish
from adapters.commands.reading import list_command, pull, show, verify
from adapters.commands.taking_out import export, merge

app = typer.Typer(
    name="adapters", help="Publish, list, verify and exchange adapters.", no_args_is_help=True
)

app.command("list")(list_command)
app.command("show")(show)
app.command("publish")(publish)
app.command("pull")(pull)
app.command("verify")(verify)
app.command("alias")(alias_command)
app.command("split")(split_command)
app.command("import")(import_command)
app.command("export")(export)
app.command("merge")(merge)
app.command("diff")(diff)
app.command("gc")(gc)
