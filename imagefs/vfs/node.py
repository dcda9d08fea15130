"""Node ids and entries: what a file operation answers about one inode.

A node id is the tree's number in the upper half and the inode number inside that tree in
the lower half; tree 0 is the namespace above the trees. It is also the st_ino that programs
see, so it is the same after every mount.
"""

from __future__ import annotations

import msgspec

from imagefs.model import Attributes, Ino, NodeId, TreeNumber

INO_BITS = 32
INO_MASK = (1 << INO_BITS) - 1
NAMESPACE = TreeNumber(0)

LASTING = 86400.0
"""Seconds the kernel may keep names and attributes that only this daemon changes: it is
told when one comes to stand for something else, so a longer time would win nothing."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One inode as the kernel is to know it; timeouts in seconds."""

    node: NodeId
    attributes: Attributes
    entry_timeout: float = LASTING
    attribute_timeout: float = LASTING


class Superseded(msgspec.Struct, frozen=True):
    """A name above the trees stands for something else now: the kernel must forget it."""

    parent: NodeId
    name: bytes


class Withdrawn(msgspec.Struct, frozen=True):
    """An inode whose content nobody may see here any more: the kernel must forget its pages."""

    node: NodeId


Forgotten = Superseded | Withdrawn
"""What the kernel is told to forget."""


def node_id(tree: TreeNumber, ino: Ino) -> NodeId:
    """The node id of an inode of a tree."""
    return NodeId(tree << INO_BITS | ino)


def tree_of(node: NodeId) -> TreeNumber:
    """The tree that a node belongs to."""
    return TreeNumber(node >> INO_BITS)


def ino_of(node: NodeId) -> Ino:
    """The inode number of a node inside its tree."""
    return Ino(node & INO_MASK)
