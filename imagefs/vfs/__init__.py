"""What the file system means: operations by inode, and the life of images and instances.

Knows neither pyfuse3 nor arguments nor the environment. See docs/design.md, "Steps".
"""

from imagefs.vfs.caller import Caller, Credentials, MountOptions
from imagefs.vfs.handles import FileHandle, SyncPoint
from imagefs.vfs.information import ImageInformation, Information, InstanceInformation
from imagefs.vfs.lifecycle import Lifecycle
from imagefs.vfs.node import Entry, Forgotten, Superseded, Withdrawn
from imagefs.vfs.vfs import Vfs

__all__ = [
    "Caller",
    "Credentials",
    "Entry",
    "FileHandle",
    "Forgotten",
    "ImageInformation",
    "Information",
    "InstanceInformation",
    "Lifecycle",
    "MountOptions",
    "Superseded",
    "SyncPoint",
    "Vfs",
    "Withdrawn",
]
