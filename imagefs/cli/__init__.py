"""The `imagefs` command: arguments, environment, terminal, exit codes.

Each command is a module, imported when it is asked for, and imports what it needs itself:
a command that talks to a daemon starts in some tens of milliseconds.
"""

from imagefs.cli.main import main

__all__ = ["main"]
