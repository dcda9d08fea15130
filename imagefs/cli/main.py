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
from imagefs.cli import text
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
        result = command.main(args=arguments, prog_name="imagefs", standalone_mode=False)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        _say("Interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has enough. Python would complain when it flushes again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except click.ClickException as error:
        _trace(arguments)
        message = re.sub(r"\s*\n\s*", " ", error.format_message())
        _say(f"{message.rstrip('.')}{_hint(error)}")
        return EXIT_USAGE if isinstance(error, click.UsageError) else error.exit_code
    except ImagefsError as error:
        _trace(arguments)
        _say(str(error))
        return error.exit_code
    except OSError as error:
        _trace(arguments)
        name = os.fsdecode(error.filename) if error.filename else "Input or output"
        _say(f"{name}: {error.strerror}")
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001 - nothing may end in a traceback nobody asked for
        _trace(arguments)
        _say(f"{type(error).__name__}: {error} (this is a bug; --debug says more)")
        return EXIT_FAILED
    # click answers with the code that a command asked it to exit with.
    return result if isinstance(result, int) else 0


def _hint(error: click.ClickException) -> str:
    context: Any = getattr(error, "ctx", None)
    return f"; `{context.command_path} --help` says more" if context is not None else ""


def _trace(arguments: Sequence[str] | None) -> None:
    if "--debug" in (sys.argv[1:] if arguments is None else arguments):
        import traceback

        traceback.print_exc()


def _say(message: str) -> None:
    lines = map(text.safe, message.splitlines() or [""])
    print("imagefs: " + "\n".join(lines), file=sys.stderr)
