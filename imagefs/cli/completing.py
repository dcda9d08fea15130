"""`imagefs completion`: scripts that let a shell complete commands, images and instances."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_IMAGEFS_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    For bash, put eval "$(imagefs completion bash)" into ~/.bashrc; for zsh the same with zsh
    into ~/.zshrc; for fish, imagefs completion fish | source into its config.fish.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "imagefs", _VARIABLE).source())
