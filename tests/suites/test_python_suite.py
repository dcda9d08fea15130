"""CPython's tests of everything that touches files have the same outcome as on the host's disk."""

from pathlib import Path

import pytest

from tests.suites.ground import FULL, Ground
from tests.suites.python_suite import available, both, differing, summary

pytestmark = pytest.mark.mount


def words(text: str) -> list[str]:
    return text.split()


QUICK = words("""
    test_bufio test_dbm test_dbm_dumb test_dbm_gnu test_dbm_ndbm test_fcntl test_file
    test_filecmp test_fileinput test_fileio test_fileutils test_fnmatch test_genericpath
    test_getpath test_imp test_import test_linecache test_mmap test_netrc test_os test_pathlib
    test_pkg test_pkgutil test_posix test_posixpath test_py_compile test_shutil test_site
    test_sqlite3 test_stat test_tempfile test_unicode_file test_unicode_file_functions
    test_univnewlines test_uu test_zipapp test_zipfile test_zipimport
""")
SLOW = words("""
    test_aifc test_bdb test_bz2 test_cgi test_cmd_line_script test_codecs test_compileall
    test_configparser test_cprofile test_csv test_dataclasses test_distutils test_eintr
    test_epoll test_file_eintr test_gettext test_glob test_gzip test_hashlib test_httpservers
    test_importlib test_io test_largefile test_logging test_lzma test_mailbox test_marshal
    test_mimetypes test_modulefinder test_multibytecodec test_pdb test_pickle test_pipes
    test_plistlib test_poll test_popen test_pstats test_pyclbr test_pydoc test_runpy test_sax
    test_script_helper test_select test_selectors test_shelve test_socketserver
    test_source_encoding test_subprocess test_sunau test_support test_tabnanny test_tarfile
    test_threadedtempfile test_tokenize test_trace test_unittest test_urllib test_venv
    test_wave test_zipfile64 test_zipimport_support test_zoneinfo
""")
CORE = words("""
    test_fcntl test_fileio test_genericpath test_os test_posix test_shutil test_stat test_tempfile
""")
# Debian 12 leaves these out of its package; later releases may have them, or have dropped others.
MAY_BE_ABSENT = {"test_sqlite3"}

KNOWN = {"test_selectors test.test_selectors.EpollSelectorTestCase.test_register_file"}
KNOWN_PRIVATE = {
    "test_os test.test_os.ChownFileTests.test_chown_without_permission",
    "test_posix test.test_posix.PosixTester.test_chown",
    "test_posix test.test_posix.PosixTester.test_fchown",
    "test_posix test.test_posix.PosixTester.test_lchown",
    "test_shutil test.test_shutil.TestRmTree.test_on_error",
    "test_shutil test.test_shutil.TestWhich.test_non_matching_mode",
    "test_shutil test.test_shutil.TestWhichBytes.test_non_matching_mode",
    "test_tempfile test.test_tempfile.TestMkdtemp.test_read_only_directory",
    "test_tempfile test.test_tempfile.TestMkstempInner.test_read_only_directory",
}


def compare(ground: Ground, modules: list[str], known: set[str]) -> None:
    there, absent = available(modules)
    assert set(absent) <= MAY_BE_ABSENT
    host, instance = both(ground, there)
    found = differing(host, instance)
    print(f"CPython, {len(there)} modules as {ground.runner.name}: {summary(instance)};")
    print(
        f"{len(found)} different:", *(f"{name}: {what}" for name, what in found.items()), sep="\n"
    )
    assert len(instance) > 5 * len(there), "hardly any test was run"
    assert found.keys() == {name for name in known if name.split()[0] in there}


def test_outcomes_are_those_of_the_host(ground: Ground) -> None:
    compare(ground, QUICK + SLOW * FULL, KNOWN)


def test_outcomes_in_a_private_mount_are_those_of_the_host(private_ground: Ground) -> None:
    # Other modules would only add to the list of those that expect to be refused something.
    compare(private_ground, CORE, KNOWN | KNOWN_PRIVATE)


@pytest.mark.root
def test_outcomes_of_an_ordinary_user_are_those_of_the_host(public_ground: Ground) -> None:
    compare(public_ground, QUICK + SLOW if FULL else CORE, KNOWN)


def test_the_differences_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs/differences.md").read_text(encoding="utf-8")
    assert not [name for name in KNOWN | KNOWN_PRIVATE if name.split(".")[-1] not in page]
