"""Extended attributes: which there may be, who sees them, and what ACLs among them cause.

Steps as those of the vfs, for nodes inside of volumes. The kernel checks rights; what is
left is which namespaces there are (xattr(7)), that attributes of imagefs itself are
read-only, and that mode and access ACL agree.
"""

from __future__ import annotations

from collections.abc import Sequence

from imagefs.errors import InvalidArgument, NotPermitted, NotSupported
from imagefs.model import Ino
from imagefs.vfs import acl, rights
from imagefs.vfs.caller import Caller, MountOptions
from imagefs.vfs.information import PREFIX
from imagefs.vfs.volume import Volume

_NAMESPACES = (b"user.", b"trusted.", b"security.")
_TRUSTED = b"trusted."


def listed(volume: Volume, ino: Ino, caller: Caller) -> Sequence[bytes]:
    """The names that the caller sees: those below `trusted.` are for root."""
    names = volume.overlay.list_xattr(ino)
    if caller.uid == 0:
        return names
    return [name for name in names if not name.startswith(_TRUSTED)]


def change(
    volume: Volume, ino: Ino, name: bytes, value: bytes, caller: Caller, options: MountOptions
) -> None:
    """Set an extended attribute; an access ACL sets the mode too."""
    _require_changeable(name)
    overlay = volume.require_changeable()
    if name in acl.NAMES:
        rights.set_acl(overlay, ino, name, value, caller, options)
    else:
        overlay.set_xattr(ino, name, value)


def remove(volume: Volume, ino: Ino, name: bytes) -> bool:
    """Remove an extended attribute; false if there was nothing to do. Raises NoAttribute."""
    _require_changeable(name)
    overlay = volume.require_changeable()
    if name in acl.NAMES and name not in overlay.list_xattr(ino):
        return False  # as other file systems: the mode says it all
    overlay.remove_xattr(ino, name)
    return True


def require_known(name: bytes) -> None:
    """Raise NotSupported or InvalidArgument unless there may be an attribute of that name."""
    if name in acl.NAMES:
        return
    if not name.startswith(_NAMESPACES):
        raise NotSupported(f"Attribute {name.decode(errors='replace')} is not supported")
    if name in _NAMESPACES:
        raise InvalidArgument(f"Attribute {name.decode()} lacks the rest of its name")


def _require_changeable(name: bytes) -> None:
    require_known(name)
    if name.startswith(PREFIX):
        raise NotPermitted(f"Attribute {name.decode(errors='replace')} is read-only")
