"""Compares a version of a read model with another one, or with a recomputation from the log."""

from __future__ import annotations

import asyncio
import copy
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Self

from lexigram.events.exceptions import ProjectionRebuildError
from lexigram.events.projections.applier import BatchApplier
from lexigram.events.projections.base import ProjectionCheckpoint
from lexigram.events.projections.durable import DurableProjection
from lexigram.events.projections.log import LogReader, PartitionReader
from lexigram.events.projections.read_model_sql import ReadModelSql, TakeRows

_SHOWN: Final = 10
_NEAR: Final = 1000
_AGAIN_SECONDS: Final = 0.005
_MEETING_SECONDS: Final = 5.0

Row = tuple[Any, ...]
Reader = LogReader | PartitionReader


@dataclass(frozen=True)
class TableComparison:
    """How one table of a version compares.

    Args:
        table: The name that readers use.
        columns: The columns compared: those that both have.
        rows: How many rows the version has, and the other side.
        checksums: Over all rows, whatever their order; of the version, and of the other side.
        sampled: How many rows were compared one by one.
        differences: Up to ten of those that differ: key, row and other row (None = missing).
    """

    table: str
    columns: tuple[str, ...]
    rows: tuple[int, int]
    checksums: tuple[int, int]
    sampled: int
    differences: tuple[tuple[Row, Row | None, Row | None], ...]

    @property
    def ok(self) -> bool:
        """Whether both sides are the same."""
        return self.rows[0] == self.rows[1] and self.checksums[0] == self.checksums[1] and not self.differences


@dataclass(frozen=True)
class Verification:
    """What `BlueGreenRebuild.verify` has found.

    Args:
        version: The version that was verified.
        against: The version it was compared with; None = a recomputation from the log.
        position: The position of both sides.
        tables: One comparison for each table.
    """

    version: int
    against: int | None
    position: int
    tables: tuple[TableComparison, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no difference."""
        return all(table.ok for table in self.tables)


class TableDigest:
    """Count, checksum and a sample of the rows of one table, fed in chunks.

    The sample has the rows with the lowest hashes of their keys, so that two tables give the same keys.

    Args:
        key: Which columns identify a row.
        sample: Number of rows, from 0.
    """

    def __init__(self, key: Sequence[int], sample: int) -> None:
        self.rows = self.checksum = 0
        self._key, self._sample = tuple(key), sample
        self._kept: dict[Row, tuple[int, Row]] = {}
        self._limit = 2**32

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Take more rows."""
        self.rows += len(rows)
        for row in map(tuple, rows):
            self.checksum += int.from_bytes(blake2b(repr(row).encode(), digest_size=8).digest())
            key = tuple(row[index] for index in self._key)
            place = zlib.crc32(repr(key).encode())
            if place < self._limit:
                self._kept[key] = (place, row)
        self.checksum &= 2**64 - 1
        if len(self._kept) > 4 * self._sample:
            places = sorted(place for place, _ in self._kept.values())
            self._limit = places[self._sample]
            self._kept = {key: kept for key, kept in self._kept.items() if kept[0] < self._limit}

    def compare(self, other: TableDigest, table: str, columns: Sequence[str]) -> TableComparison:
        """Return the comparison with the digest of the other side."""
        limit = min(self._limit, other._limit)
        mine, others = self._below(limit), other._below(limit)
        keys = sorted(mine.keys() | others.keys(), key=repr)
        differing = [(key, mine.get(key), others.get(key)) for key in keys if mine.get(key) != others.get(key)]
        return TableComparison(
            table,
            tuple(columns),
            (self.rows, other.rows),
            (self.checksum, other.checksum),
            len(keys),
            tuple(differing[:_SHOWN]),
        )

    def _below(self, limit: int) -> dict[Row, Row]:
        return {key: row for key, (place, row) in self._kept.items() if place < limit}


class Replay:
    """Applies the log to tables of one version, without moving its stored positions; effects are suppressed.

    Args:
        suffix: Of the tables.
        readers: One for each partition, by the name of its checkpoint.
        positions: Where to begin in each partition; 0 where it lacks.
        batch_size: Events per transaction, or per step inside a unit of work.
    """

    def __init__(
        self,
        store: Any,
        projection: DurableProjection,
        suffix: str,
        readers: Mapping[str, Reader],
        positions: Mapping[str, int],
        batch_size: int,
    ) -> None:
        self._store, self._batch_size = store, batch_size
        self._projection = _copy(projection, suffix, 0)
        self._parts = {
            name: (BatchApplier(_copy(projection, suffix, positions.get(name, 0)), store), reader)
            for name, reader in readers.items()
        }

    def table_name(self, table: str) -> str:
        """Return the name of the table that it fills."""
        return self._projection._physical(table)

    async def approach(self, positions: Mapping[str, int]) -> None:
        """Apply the log up to and including a position in each partition.

        Raises:
            ProjectionBuildError: LEX_ERR_EVT_015; an event cannot be applied.
        """
        for name, (applier, reader) in self._parts.items():
            until, projection = positions.get(name, 0), applier.projection
            while projection.position < until:
                batch = [item for item in await reader.read(projection.position, self._batch_size) if item[1] <= until]
                if batch:
                    await applier.apply(batch, strict=True)
                else:
                    projection.advance(until)


class Recomputation(Replay):
    """The whole read model computed anew, into tables that go away again."""

    async def __aenter__(self) -> Self:
        await self._drop()
        async with self._store.unit_of_work():
            await self._projection.create_schema()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._drop()

    async def _drop(self) -> None:
        async with self._store.unit_of_work() as unit:
            for table in self._projection.tables:
                await unit.execute(f'DROP TABLE IF EXISTS "{self.table_name(table)}"')


def _copy(projection: DurableProjection, suffix: str, position: int) -> DurableProjection:
    """Return a copy that writes into certain tables and is nobody's version."""
    copied: Any = copy.copy(projection)
    copied._suffix, copied.read_model, copied._model_state = suffix, "", None
    copied.restore_checkpoint(ProjectionCheckpoint(projection.name, position))
    copied._effects_after = 2**63 - 1
    return copied  # type: ignore[no-any-return]


class Comparison:
    """What is compared: the tables, columns and keys that both sides have, and what has been read of them.

    Args:
        pairs: By the name that readers use: the table of the version, and that of the other side.
        sample: Rows of each table compared one by one.
    """

    def __init__(self, sql: ReadModelSql, pairs: Mapping[str, tuple[str, str]], sample: int) -> None:
        self._sql, self._pairs, self._sample = sql, pairs, sample
        self._columns: dict[str, list[str]] = {}
        self._digests: dict[str, tuple[TableDigest, TableDigest]] = {}

    async def prepare(self, reader: Any) -> None:
        """Find the columns.

        Raises:
            ProjectionRebuildError: LEX_ERR_EVT_016; there are none in common.
        """
        for table, (mine, other) in self._pairs.items():
            columns, key = await self._sql.columns(reader, mine)
            others, _ = await self._sql.columns(reader, other)
            columns = [column for column in columns if column in others]
            known = bool(key) and all(column in columns for column in key)
            indexes = [columns.index(column) for column in key] if known else list(range(len(columns)))
            if columns:
                self._columns[table] = columns
                self._digests[table] = TableDigest(indexes, self._sample), TableDigest(indexes, self._sample)
        if not self._columns:
            raise ProjectionRebuildError("the two sides have no table in common; compare the version with the log")

    def scans(self, side: int) -> list[tuple[str, TakeRows]]:
        """Return the queries of one side (0 is the version) with those who take their rows."""
        found: list[tuple[str, TakeRows]] = []
        for table, columns in self._columns.items():
            listed = ", ".join(f'"{column}"' for column in columns)
            found.append((f'SELECT {listed} FROM "{self._pairs[table][side]}"', self._digests[table][side].add))
        return found

    def result(self) -> tuple[TableComparison, ...]:
        """Return the comparison of each table."""
        return tuple(mine.compare(other, table, self._columns[table]) for table, (mine, other) in self._digests.items())


async def compare_with_log(
    sql: ReadModelSql, projection: DurableProjection, readers: Mapping[str, Reader], *, sample: int, batch_size: int
) -> Verification:
    """Compare a version with a recomputation up to the position of a snapshot of it; nobody waits for that."""
    names, engine = list(readers), sql.store.engine
    suffix = f"{projection._physical('')}_check"
    async with Recomputation(sql.store, projection, suffix, readers, {}, batch_size) as again:
        pairs = {table: (projection._physical(table), again.table_name(table)) for table in projection.tables}
        comparison = Comparison(sql, pairs, sample)
        await comparison.prepare(engine)
        await again.approach(await sql.positions(engine, names))
        found = await sql.in_snapshot(names, comparison.scans(0))
        await again.approach(found)
        await sql.in_snapshot(names, comparison.scans(1))
        return Verification(projection.version, None, min(found.get(name, 0) for name in names), comparison.result())


async def compare_with_version(
    sql: ReadModelSql,
    projection: DurableProjection,
    other: DurableProjection,
    readers: tuple[Mapping[str, Reader], Mapping[str, Reader]],
    *,
    sample: int,
    timeout: float,
) -> Verification:
    """Compare two versions in a snapshot in which both are at one position, for which nobody waits.

    If there is none for a while, both are held up, and the one that is behind is led to the other's position, which is
    undone afterwards.

    Args:
        readers: Of both versions, in the same order.
        timeout: Seconds that it may take.
    """
    names = [list(side) for side in readers]
    pairs = {table: (projection._physical(table), other._physical(table)) for table in projection.tables}
    comparison = Comparison(sql, {table: pairs[table] for table in pairs if table in other.tables}, sample)
    meeting = Meeting((projection, other), readers)
    await comparison.prepare(sql.store.engine)
    async with asyncio.timeout(timeout):
        until = time.monotonic() + min(_MEETING_SECONDS, timeout / 4)
        while time.monotonic() < until:
            scans = [*comparison.scans(0), *comparison.scans(1)]
            found = await sql.in_snapshot([*names[0], *names[1]], scans, meeting.is_in)
            if meeting.is_in(found):
                return Verification(projection.version, other.version, meeting.position(found), comparison.result())
            await meeting.look(found)
            await asyncio.sleep(_AGAIN_SECONDS)
    try:
        async with sql.store.unit_of_work(timeout_seconds=timeout) as unit:
            await sql.lock(unit)
            stored = [await sql.positions(unit, side) for side in names]
            pairwise = list(zip(*names, strict=True))
            places = [max(stored[0].get(mine, 0), stored[1].get(its, 0)) for mine, its in pairwise]
            for side, one in enumerate((projection, other)):
                replay = Replay(sql.store, one, one._physical(""), readers[side], stored[side], 1000)
                await replay.approach(dict(zip(names[side], places, strict=True)))
            for side in (0, 1):
                await sql.scan(unit, comparison.scans(side))
            raise _Undo
    except _Undo:
        return Verification(projection.version, other.version, min(places), comparison.result())
    except Exception as error:
        if not sql.is_busy(error):
            raise
        raise ProjectionRebuildError(f"Batches of {projection.name!r} or {other.name!r} do not end") from error


class Meeting:
    """Where two versions are at one position: in each partition the same one, or with nothing between that concerns them.

    Args:
        versions: Both.
        readers: One for each partition, by the name of its checkpoint; of both versions, in the same order.
    """

    def __init__(
        self,
        versions: tuple[DurableProjection, DurableProjection],
        readers: tuple[Mapping[str, Reader], Mapping[str, Reader]],
    ) -> None:
        self._versions = versions
        self._pairs = list(zip(readers[0].items(), readers[1].items(), strict=True))
        self._as_good: set[tuple[int, int, int]] = set()

    def is_in(self, found: Mapping[str, int]) -> bool:
        """Return whether stored positions are those of a meeting."""
        return all(here == there or (part, here, there) in self._as_good for part, here, there in self._places(found))

    def position(self, found: Mapping[str, int]) -> int:
        """Return the position that both sides have reached in every partition."""
        return min(max(here, there) for _, here, there in self._places(found))

    async def look(self, found: Mapping[str, int]) -> None:
        """Find out where only events that do not concern the side behind are between the two."""
        for part, here, there in self._places(found):
            side = 0 if here < there else 1
            _, reader = self._pairs[part][side]
            batch = [] if here == there else await reader.read(min(here, there), _NEAR)
            # A full batch that ends before the other side: too far apart to be looked through again and again.
            if len(batch) == _NEAR and batch[-1][1] < max(here, there):
                continue
            between = [event for event, position in batch if position <= max(here, there)]
            if not any(map(self._versions[side].can_handle, between)):
                self._as_good.add((part, here, there))

    def _places(self, found: Mapping[str, int]) -> list[tuple[int, int, int]]:
        return [(part, found.get(mine, 0), found.get(its, 0)) for part, ((mine, _), (its, _)) in enumerate(self._pairs)]


class _Undo(Exception):
    """Takes everything back that was done to compare."""
