"""One step of a script: who does what. Written as a line, so that a failure can be replayed.

    root.open(0, 'a', 'O_RDWR|O_CREAT', 420)
    alice.rename('dir/b', '@2/c', 0)
    life.remount()

`root`, `alice` and `bob` are processes of different users that make system calls; `life` is what
happens to the instance as a whole. A path that begins with `@2` starts at the open directory 2.
"""

import ast
from collections.abc import Iterable
from typing import Any, NamedTuple

LIFE = "life"
PATHS = {"open": (1,), "symlink": (1,), "link": (0, 1), "link_open": (1,), "rename": (0, 1)}
"""Which arguments are paths; of other steps it is the first."""


class Operation(NamedTuple):
    who: str
    name: str
    arguments: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.who}.{self.name}({', '.join(map(repr, self.arguments))})"

    @property
    def paths(self) -> list[str]:
        """What it names in the tree; an open file is a number and not among them."""
        given = [self.arguments[index] for index in PATHS.get(self.name, (0,)) if self.arguments]
        return [path for path in given if isinstance(path, str)]


def parse(line: str) -> Operation:
    call = ast.parse(line.strip(), mode="eval").body
    assert isinstance(call, ast.Call), line
    assert isinstance(call.func, ast.Attribute), line
    assert isinstance(call.func.value, ast.Name), line
    arguments = tuple(ast.literal_eval(argument) for argument in call.args)
    return Operation(call.func.value.id, call.func.attr, arguments)


def parse_script(lines: Iterable[str]) -> list[Operation]:
    """The steps; empty lines and comments are left out."""
    return [parse(line) for line in lines if line.strip() and not line.lstrip().startswith("#")]
