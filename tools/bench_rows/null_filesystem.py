"""A file system that does nothing, on plain pyfuse3 and trio: every file takes whatever is
written and answers zeros. Run as a program with the mountpoint as its argument."""

import errno
import stat
import sys
from functools import cache
from itertools import count

import pyfuse3
import trio
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    SetattrFields,
)

TIMEOUT = 3600.0

# Not even making the answer is to cost anything.
zeros = cache(bytes)


class NullFilesystem(pyfuse3.Operations):
    """One directory of files that have a size and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[bytes, InodeT] = {}
        self._sizes: dict[int, int] = {}
        self._numbers = count(pyfuse3.ROOT_INODE + 1)

    def _attributes(self, inode: InodeT) -> EntryAttributes:
        entry = EntryAttributes()
        is_root = inode == pyfuse3.ROOT_INODE
        entry.st_ino = inode
        entry.st_mode = ModeT(stat.S_IFDIR | 0o755 if is_root else stat.S_IFREG | 0o644)
        entry.st_nlink = 1
        entry.st_size = self._sizes.get(inode, 0)
        entry.entry_timeout = entry.attr_timeout = TIMEOUT
        return entry

    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        if name not in self._names:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._attributes(self._names[name])

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return self._attributes(inode)

    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        if fields.update_size:
            self._sizes[inode] = attr.st_size
        return self._attributes(inode)

    async def create(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        mode: ModeT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> tuple[FileInfo, EntryAttributes]:
        inode = self._names[name] = InodeT(next(self._numbers))
        return FileInfo(fh=FileHandleT(inode)), self._attributes(inode)

    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        self._sizes.pop(self._names.pop(name), None)

    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        return FileInfo(fh=FileHandleT(inode))

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        length = max(0, min(size, self._sizes.get(fh, 0) - off))
        return zeros(length)

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        self._sizes[fh] = max(self._sizes.get(fh, 0), off + len(buf))
        return len(buf)

    async def flush(self, fh: FileHandleT) -> None:
        pass

    async def release(self, fh: FileHandleT) -> None:
        pass

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return FileHandleT(inode)

    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        pass


def main(mountpoint: str) -> None:
    pyfuse3.init(NullFilesystem(), mountpoint, {*pyfuse3.default_options, "fsname=null"})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main(sys.argv[1])
