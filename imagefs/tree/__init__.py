"""Immutable trees of names and attributes over stored objects: read, build, compare."""

from imagefs.tree.tree import Tree

__all__ = ["Tree"]
