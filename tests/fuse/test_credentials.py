"""What is looked up of the process behind a request."""

import os
import subprocess

from imagefs.fuse.credentials import credentials
from imagefs.vfs import Credentials


def test_groups_of_a_process() -> None:
    assert credentials(os.getpid()).groups == frozenset(os.getgroups())


def test_root_keeps_set_id_bits_and_others_do_not() -> None:
    found = credentials(os.getpid())
    assert found.keeps_set_id == (os.geteuid() == 0)


def test_a_process_that_is_gone_has_no_rights() -> None:
    with subprocess.Popen(["/bin/true"]) as gone:
        pass
    assert credentials(gone.pid) == Credentials()
