"""The command's entry: finding the sub-command, and turning errors into lines and exit codes."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

import imagefs
from imagefs.cli import log
from imagefs.errors import EXIT_FAILED, EXIT_USAGE, ImagefsError

_COMMANDS = {
    "mount": "mounting",
    "umount": "mounting",
    "ls": "looking",
    "show": "looking",
    "status": "looking",
    "import": "importing",
    "clone": "changing",
    "commit": "changing",
    "reset": "changing",
    "seal": "changing",
    "rm": "changing",
    "undelete": "changing",
    "share": "sharing",
    "unshare": "sharing",
    "copy": "copying",
    "region": "regions",
    "diff": "comparing",
    "dump": "comparing",
    "verify": "verifying",
    "completion": "completing",
}
"""Command name to the module that has it, in the order of the help text."""

_INTERRUPTED = 130


class _Commands(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        loaded = importlib.import_module(f"imagefs.cli.{module}")
        command: click.Command = getattr(loaded, f"{cmd_name}_command")
        return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
)
@click.option("--debug", is_flag=True, help="Show where errors come from.")
@click.version_option(imagefs.__version__, message="imagefs %(version)s")
@click.pass_context
def command(ctx: click.Context, debug: bool) -> None:
    """Images and instances of whole systems as ordinary files."""
    ctx.obj = debug
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(EXIT_USAGE)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    try:
        return _run(arguments)
    finally:
        log.end()


def _run(arguments: Sequence[str] | None) -> int:
    debug = "--debug" in (sys.argv[1:] if arguments is None else arguments)
    try:
        result = command.main(args=arguments, prog_name="imagefs", standalone_mode=False)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        log.say("Interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has enough. Python would complain when it flushes again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except click.ClickException as error:
        message = re.sub(r"\s*\n\s*", " ", error.format_message())
        log.fail(f"{message.rstrip('.')}{_hint(error)}", debug=debug)
        return EXIT_USAGE if isinstance(error, click.UsageError) else error.exit_code
    except ImagefsError as error:
        log.fail(str(error), debug=debug)
        return error.exit_code
    except OSError as error:
        name = os.fsdecode(error.filename) if error.filename else "Input or output"
        log.fail(f"{name}: {error.strerror}", debug=debug)
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001 - nothing may end in a traceback nobody asked for
        log.fail(f"{type(error).__name__}: {error} (this is a bug; --debug says more)", debug=debug)
        return EXIT_FAILED
    # click answers with the code that a command asked it to exit with.
    return result if isinstance(result, int) else 0


def _hint(error: click.ClickException) -> str:
    context: Any = getattr(error, "ctx", None)
    return f"; `{context.command_path} --help` says more" if context is not None else ""
