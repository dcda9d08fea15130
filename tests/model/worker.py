"""The process of an actor; run as `python -m tests.model.worker UID:GID:GROUPS`.

It reads pickled requests from standard input and answers each on standard output. Requests are
("enter", host, instance), ("leave",), ("close_all",), ("look",) and (name, arguments) of a method
of `Side`; the answer to the last is one Outcome for each tree.
"""

import errno
import os
import pickle
import stat
import sys
import traceback
from typing import Any

from tests.acceptance.child import become
from tests.model import system
from tests.model.actor import SLOTTED, Outcome, Trouble
from tests.model.side import Side


def perform(side: Side, name: str, arguments: tuple[Any, ...]) -> Outcome:
    try:
        value = None if name == "look" else getattr(side, name)(*arguments)
    except OSError as error:
        return Outcome(errno.errorcode[error.errno or 0])
    facts = side.facts(name, arguments[0]) if name in SLOTTED else None
    return Outcome(None, value, facts)


def opens_device(side: Side, name: str, arguments: tuple[Any, ...]) -> bool:
    """Mounts that others may enter have no devices that work: those stay closed on both sides."""
    if name not in {"open", "truncate"}:
        return False
    try:
        status = os.stat(side.named(arguments[name == "open"]))
    except OSError:
        return False
    return stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)


class Worker:
    """Answers requests; `sides` are the two trees it is in."""

    def __init__(self) -> None:
        self.sides: list[Side] = []

    def answer(self, name: str, *arguments: Any) -> Any:
        if name == "enter":
            self.sides = [Side(top) for top in arguments]
        elif name == "leave":
            for side in self.sides:
                side.leave()
            self.sides = []
        elif name == "close_all":
            for side in self.sides:
                side.close_all()
        elif name == "look":
            slots = self.sides[0].files
            return {slot: self.each("look", (slot,)) for slot in slots}
        elif opens_device(self.sides[0], name, arguments[0]):
            return Outcome("device"), Outcome("device")
        else:
            return self.each(name, arguments[0])
        return None

    def each(self, name: str, arguments: tuple[Any, ...]) -> tuple[Outcome, ...]:
        return tuple(perform(side, name, arguments) for side in self.sides)


def serve() -> None:
    worker = Worker()
    while True:
        request = pickle.load(sys.stdin.buffer)
        try:
            answer = worker.answer(*request)
        except Exception:  # noqa: BLE001 - the other end tells of it
            answer = Trouble(traceback.format_exc())
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.buffer.flush()


def become_user(user: str) -> None:
    uid, gid, groups = user.split(":")
    os.umask(0)
    if int(uid):
        become(int(uid), int(gid), [int(group) for group in groups.split(",")])
        system.be_inspectable()


if __name__ == "__main__":
    become_user(sys.argv[1])
    try:
        serve()
    except EOFError:
        sys.exit(0)
