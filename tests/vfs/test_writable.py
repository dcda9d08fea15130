"""Which files of a tree are open for writing."""

from __future__ import annotations

import os

from tests.vfs.conftest import View


def test_files_that_are_open_for_writing_are_told(base: View) -> None:
    base.mkdir("instances/base/one")
    top = "instances/base/one"
    assert base.lifecycle("writable", "base/one") == []
    handles = [base.open_file(f"{top}/etc/hosts", flags) for flags in (os.O_RDWR, os.O_WRONLY)]
    read = base.open_file(f"{top}/big")
    new = base.create(f"{top}/new")
    nodes = {name: base.node(f"{top}/{name}") for name in ("etc/hosts", "new")}
    told = {(f"{top}/{name}".encode(), node) for name, node in nodes.items()}
    assert set(base.lifecycle("writable", "base/one")) == told
    base.unlink(f"{top}/new")
    told = {(f"{top}/etc/hosts".encode(), nodes["etc/hosts"])}
    assert set(base.lifecycle("writable", "base/one")) == told
    base.vfs.release(handles.pop())
    assert set(base.lifecycle("writable", "base/one")) == told
    for handle in (*handles, read, new):
        base.vfs.release(handle)
    assert base.lifecycle("writable", "base/one") == base.lifecycle("writable", "base") == []
