"""Which packs of which regions hold an object, and which trees are known to be in regions.

A database derived from the regions alone: lost or damaged, it is made anew, and fills as
images are listed and read. Several processes may have it open; every method may be called from
any thread. What it says is what indexes of packs claim: a claim is believed only when the
object's bytes have its id.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Self

from imagefs.disk import Disk
from imagefs.errors import Corrupt
from imagefs.format.region import (
    Descriptor,
    IndexedRecord,
    PackName,
    decode_descriptor,
    encode_descriptor,
)
from imagefs.model import CHUNK_SIZE, ObjectId
from imagefs.store.derived import DerivedDatabase

log = logging.getLogger(__name__)

REGION_INDEX_VERSION: Final = 1
WINDOW: Final = 2 * (CHUNK_SIZE + 1024)
"""Bytes of records in a row that are fetched at once: two chunks that do not get smaller fit."""

_SCHEMA = (
    # Packs whose indexes are in `object` and `window`. Numbers are never used twice.
    """CREATE TABLE pack (
        number INTEGER PRIMARY KEY AUTOINCREMENT, region TEXT NOT NULL, id BLOB NOT NULL,
        length INTEGER NOT NULL, size INTEGER NOT NULL, UNIQUE (region, id, length))""",
    # One row per object and pack: the record, its place in the table, and the window around it.
    """CREATE TABLE object (
        id BLOB NOT NULL, pack INTEGER NOT NULL, offset INTEGER NOT NULL, size INTEGER NOT NULL,
        ordinal INTEGER NOT NULL, window INTEGER NOT NULL, span INTEGER NOT NULL,
        PRIMARY KEY (id, pack)) WITHOUT ROWID""",
    # Runs of records that are fetched at once.
    """CREATE TABLE window (
        pack INTEGER NOT NULL, offset INTEGER NOT NULL, size INTEGER NOT NULL,
        PRIMARY KEY (pack, offset)) WITHOUT ROWID""",
    # Records that arrived damaged: what is in them is sent anew.
    """CREATE TABLE damage (
        pack INTEGER NOT NULL, offset INTEGER NOT NULL, PRIMARY KEY (pack, offset)) WITHOUT ROWID""",
    # Trees that regions say they hold; `learned` when all packs of the descriptor are in `pack`.
    """CREATE TABLE image (
        region TEXT NOT NULL, manifest BLOB NOT NULL, descriptor BLOB NOT NULL,
        learned INTEGER NOT NULL, PRIMARY KEY (region, manifest)) WITHOUT ROWID""",
)
_FIND = "SELECT pack, offset, size, ordinal, window, span FROM object WHERE id = ? ORDER BY pack"
_ADD_PACK = "INSERT OR IGNORE INTO pack (region, id, length, size) VALUES (?, ?, ?, ?)"
_ADD_OBJECT = "INSERT OR IGNORE INTO object VALUES (?, ?, ?, ?, ?, ?, ?)"
_REMEMBER = """INSERT INTO image VALUES (?, ?, ?, 0) ON CONFLICT (region, manifest) DO UPDATE
    SET descriptor = excluded.descriptor, learned = 0 WHERE descriptor != excluded.descriptor"""
_WINDOWS = "SELECT offset, size FROM window WHERE pack = ? AND offset >= ? ORDER BY offset LIMIT ?"


class Place(NamedTuple):
    """Where an object is: the pack's number, the record and the place in its table, and where
    the window around the record begins and how many bytes it has."""

    pack: int
    offset: int
    size: int
    ordinal: int
    window: int
    span: int


class KnownPack(NamedTuple):
    """A pack that is in the index. `size` is all its bytes."""

    region: str
    name: PackName
    size: int


class RegionIndex(DerivedDatabase):
    """The index of all regions of one store."""

    SCHEMA = _SCHEMA
    VERSION = REGION_INDEX_VERSION
    NOUN = "Index of regions"
    REMEDY = "stop every imagefs on this store and start again, it is made anew"

    @classmethod
    def make(cls, path: Path, disk: Disk) -> tuple[Self, bool]:
        """Open the index, a new one in place of a missing or damaged one; and whether it is new.

        Raises StoreError when the file cannot be used.
        """
        fresh = disk.size_of(path) is None
        try:
            index = cls.open(path)
        except Corrupt as error:
            log.warning("%s", error)
        else:
            try:
                index.probe()
            except Corrupt as error:
                log.warning("%s", error)
                index.close()
            else:
                return index, fresh
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                disk.unlink(f"{path}{suffix}")
        return cls.open(path), True

    def probe(self) -> None:
        """Raises Corrupt where it shows at once that the file is damaged."""
        for table in ("pack", "object", "window", "damage", "image"):
            self._query(f"SELECT * FROM {table} LIMIT 1")

    # -- packs and objects --------------------------------------------------------------

    def find(self, oid: ObjectId) -> list[Place]:
        """Where an object is said to be, also what another process added a moment ago."""
        return [Place._make(row) for row in self._query(_FIND, (oid,))]

    def pack(self, number: int) -> KnownPack | None:
        """The pack with that number."""
        rows = self._query("SELECT region, id, length, size FROM pack WHERE number = ?", (number,))
        for region, oid, length, size in rows:
            return KnownPack(region, PackName(oid, length), size)
        return None

    def packs(self, region: str) -> dict[PackName, int]:
        """The packs of a region that are in the index, and their numbers."""
        rows = self._query("SELECT id, length, number FROM pack WHERE region = ?", (region,))
        return {PackName(oid, length): number for oid, length, number in rows}

    def windows(self, pack: int, start: int, limit: int) -> list[tuple[int, int]]:
        """Offset and size of the windows of a pack from an offset on."""
        return [(offset, size) for offset, size in self._query(_WINDOWS, (pack, start, limit))]

    def objects(self) -> int:
        """Objects that are somewhere, counting one for each pack that has it; reads them all."""
        return int(self._query("SELECT count(*) FROM object")[0][0])

    def add(self, region: str, pack: PackName, size: int, records: Iterable[IndexedRecord]) -> None:
        """Adds a pack of `size` bytes and what its index lists; nothing when it is there."""
        windows = split(records)
        with self._transaction() as connection:
            cursor = connection.execute(_ADD_PACK, (region, pack.id, pack.index_length, size))
            if cursor.rowcount == 0:
                return
            number = cursor.lastrowid
            rows = [
                (oid, number, record.offset, record.size, ordinal, window, span)
                for window, span, inside in windows
                for record in inside
                for ordinal, oid in enumerate(record.objects)
            ]
            connection.executemany(_ADD_OBJECT, sorted(rows))
            connection.executemany(
                "INSERT INTO window VALUES (?, ?, ?)",
                [(number, window, span) for window, span, _ in windows],
            )

    def drop(self, pack: int) -> None:
        """Takes out a pack that is no longer there; images that need it are to be learned anew."""
        known = self.pack(pack)
        if known is None:
            return
        with self._transaction() as connection:
            for table in ("object", "window", "damage"):
                connection.execute(f"DELETE FROM {table} WHERE pack = ?", (pack,))
            connection.execute("DELETE FROM pack WHERE number = ?", (pack,))
            connection.execute("UPDATE image SET learned = 0 WHERE region = ?", (known.region,))

    def forget(self, region: str) -> list[PackName]:
        """Takes out all of a region; returns the packs of which windows may be on disk."""
        packs = self.packs(region)
        with self._transaction() as connection:
            for table in ("object", "window", "damage"):
                connection.execute(
                    f"DELETE FROM {table} WHERE pack IN (SELECT number FROM pack WHERE region = ?)",
                    (region,),
                )
            for table in ("pack", "image"):
                connection.execute(f"DELETE FROM {table} WHERE region = ?", (region,))
        return list(packs)

    # -- damage -------------------------------------------------------------------------

    def note_damage(self, pack: int, offset: int) -> None:
        """Notes that a record is not what it should be: who sends does not count on it. It can be
        read all the same when it is good again."""
        with self._transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO damage VALUES (?, ?)", (pack, offset))

    def damaged(self) -> set[tuple[int, int]]:
        """Pack and offset of the records that were found damaged."""
        return set(self._query("SELECT pack, offset FROM damage"))

    # -- images -------------------------------------------------------------------------

    def remember(self, region: str, descriptors: Sequence[Descriptor]) -> bool:
        """Notes that a region holds these trees; whether that was news."""
        rows = [(region, found.manifest, encode_descriptor(found)) for found in descriptors]
        with self._transaction() as connection:
            return connection.executemany(_REMEMBER, rows).rowcount > 0

    def learned(self, region: str, descriptor: Descriptor) -> None:
        """Notes that all packs of an image are in the index."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE image SET learned = 1 WHERE region = ? AND manifest = ? AND descriptor = ?",
                (region, descriptor.manifest, encode_descriptor(descriptor)),
            )

    def images(self) -> list[tuple[str, ObjectId, bool]]:
        """Region and manifest of every tree that is known, and whether it is learned."""
        rows = self._query("SELECT region, manifest, learned FROM image")
        return [(region, ObjectId(oid), bool(learned)) for region, oid, learned in rows]

    def descriptor(self, region: str, manifest: ObjectId) -> Descriptor | None:
        """What a region said of a tree."""
        rows = self._query(
            "SELECT descriptor FROM image WHERE region = ? AND manifest = ?", (region, manifest)
        )
        return decode_descriptor(rows[0][0]) if rows else None


class Window(NamedTuple):
    """Records in a row, where the first begins and how many bytes they have together."""

    offset: int
    size: int
    records: list[IndexedRecord]


def split(records: Iterable[IndexedRecord]) -> list[Window]:
    """Cut the records of a pack into windows: of `WINDOW` bytes at most, or of one record."""
    found: list[Window] = []
    for record in records:
        if found:
            last = found[-1]
            follows = last.offset + last.size == record.offset
            if follows and last.size + record.size <= WINDOW:
                last.records.append(record)
                found[-1] = last._replace(size=last.size + record.size)
                continue
        found.append(Window(record.offset, record.size, [record]))
    return found
