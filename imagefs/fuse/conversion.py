"""The vfs's values in pyfuse3's form, and the other way round."""

from __future__ import annotations

from pyfuse3 import EntryAttributes, RequestContext, SetattrFields, StatvfsData

from imagefs.disk import Space
from imagefs.fuse.credentials import credentials
from imagefs.model import CHUNK_SIZE, MAX_NAME, AttributeChange, bounded_time
from imagefs.vfs import Caller, Entry
from imagefs.vfs.node import LASTING


def caller(ctx: RequestContext) -> Caller:
    """Who asks."""
    return Caller(ctx.uid, ctx.gid, ctx.pid, ctx.umask, credentials)


def attributes(entry: Entry) -> EntryAttributes:
    """One inode in pyfuse3's form. Fields that are zero there already are not set: each
    assignment costs, and this runs for every name of a listing."""
    known = entry.attributes
    answer = EntryAttributes()
    answer.st_ino = entry.node
    answer.st_mode = known.mode
    answer.st_blksize = CHUNK_SIZE
    answer.entry_timeout = entry.entry_timeout
    answer.attr_timeout = entry.attribute_timeout
    answer.st_mtime_ns = known.mtime
    answer.st_ctime_ns = known.ctime
    answer.st_atime_ns = known.atime
    if known.nlink != 1:
        answer.st_nlink = known.nlink
    if known.uid:
        answer.st_uid = known.uid
    if known.gid:
        answer.st_gid = known.gid
    if known.rdev:
        answer.st_rdev = known.rdev
    if known.size:
        answer.st_size = known.size
        answer.st_blocks = known.blocks
    return answer


def absent() -> EntryAttributes:
    """The answer to a lookup that finds nothing: the kernel remembers that, too."""
    answer = EntryAttributes()
    answer.entry_timeout = LASTING
    return answer


def attribute_change(attr: EntryAttributes, fields: SetattrFields) -> AttributeChange:
    """What setattr is to change."""
    return AttributeChange(
        mode=attr.st_mode & 0o7777 if fields.update_mode else None,
        uid=attr.st_uid if fields.update_uid else None,
        gid=attr.st_gid if fields.update_gid else None,
        size=attr.st_size if fields.update_size else None,
        atime=bounded_time(attr.st_atime_ns) if fields.update_atime else None,
        mtime=bounded_time(attr.st_mtime_ns) if fields.update_mtime else None,
        ctime=bounded_time(attr.st_ctime_ns) if fields.update_ctime else None,
    )


def statistics(space: Space) -> StatvfsData:
    """What statfs answers."""
    data = StatvfsData()
    data.f_bsize = data.f_frsize = space.block_size
    data.f_blocks = space.blocks
    data.f_bfree = space.blocks_free
    data.f_bavail = space.blocks_available
    data.f_files = space.files
    data.f_ffree = data.f_favail = space.files_free
    data.f_namemax = MAX_NAME
    return data
