"""The mutable layer over a tree: names and inodes in a database, changed content in a heap."""

from imagefs.overlay.overlay import Overlay

__all__ = ["Overlay"]
