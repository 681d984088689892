"""Logs as files: JSON Lines, each line one CloudEvent. Source: cloudevents.io/spec/v1.0, design, section stores.

The first line says where the log ends and what was removed from it, the last one how many events there are and their
checksum. Everything between is one event a line, in order of position.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final
from uuid import UUID

from lexigram.events.exceptions import EventError, EventPersistenceError, EventValidationError
from lexigram.events.messages.codec import EventCodec
from lexigram.events.stores._validation import MAX_POSITION, check_number, check_stream_id
from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.stores.migration import (
    Copier,
    Entry,
    LogDigest,
    MigrationResult,
    Progress,
    batches,
    removed_versions,
)

__all__ = ["export_events", "import_events"]

BEGIN: Final = "lexigram.events.log.begin"
END: Final = "lexigram.events.log.end"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_EXPORTS: Final = 5

Facts = tuple[Any, ...]
"""What `LogDigest.facts` describes one event with."""


async def export_events(
    store: AbstractEventStore,
    path: str | os.PathLike[str],
    *,
    source: str = "lexigram-events",
    batch_size: int = 500,
    on_progress: Progress | None = None,
) -> MigrationResult:
    """Write the whole log, up to its present head, to a JSON Lines file of CloudEvents 1.0.

    The file appears under its name once it is complete; a crash leaves only `<path>.part`. Where events are removed
    meanwhile, it is written anew, up to five times.

    Args:
        path: The file; one that exists is replaced.
        source: The CloudEvents attribute `source` of every line: a URI-reference that names this log.
        batch_size: Events read at a time, from 1.
        on_progress: Called with (position, head) after each batch.

    Raises:
        EventPersistenceError: LEX_ERR_EVT_012; events were removed each time.
        EventValidationError: LEX_ERR_EVT_024.
        OSError: The file cannot be written.
    """
    if not isinstance(store, AbstractEventStore):
        raise EventValidationError(f"store must be a store of this library, got {type(store).__name__}", field="store")
    if not isinstance(source, str) or not source:
        raise EventValidationError("source must be a non-empty URI-reference", field="source")
    size, partial, started = (
        check_number(batch_size, "batch_size", 1),
        Path(f"{os.fspath(path)}.part"),
        datetime.now(UTC),
    )
    for _ in range(_MOST_EXPORTS):
        removed = await removed_versions(store)
        with partial.open("wb") as file:
            result = await _export(store, file, removed, source, size, on_progress)
            file.flush()
            os.fsync(file.fileno())
        if await removed_versions(store) == removed:
            break
        # Of what was removed meanwhile the file may hold one part and not the other.
    else:
        raise EventPersistenceError(
            f"events were removed during each of {_MOST_EXPORTS} attempts; export while nothing is compacted or deleted"
        )
    partial.replace(path)
    result.started_at, result.completed_at = started, datetime.now(UTC)
    return result


async def _export(
    store: AbstractEventStore,
    file: BinaryIO,
    removed: Mapping[str, int],
    source: str,
    size: int,
    on_progress: Progress | None,
) -> MigrationResult:
    """Write the events up to the present head, of which `removed` are known to be missing."""
    head, codec, streams = await store.head(), EventCodec(store._registry), set[str]()
    digest, begin = LogDigest(codec), {"head": head, "removed": removed}
    attributes = {"specversion": "1.0", "id": f"begin-{head}", "source": source, "type": BEGIN}
    _write(file, {**attributes, "data": begin})
    async for batch in batches(store, 0, head, size):
        for entry in batch:
            digest.add(entry)
            streams.add(entry.stream_id)
            file.write(_line(codec, entry, source))
        if on_progress is not None:
            on_progress(batch[-1].event.sequence_number, head)
    end = {"count": digest.count, "sha256": digest.hexdigest()}
    attributes = {"specversion": "1.0", "id": f"end-{head}", "source": source, "type": END}
    _write(file, {**attributes, "beginsha256": _sha256(begin), "data": end})
    return MigrationResult(digest.count, len(streams), checksum=digest.hexdigest())


async def import_events(
    path: str | os.PathLike[str],
    store: AbstractEventStore,
    *,
    batch_size: int = 500,
    on_progress: Progress | None = None,
) -> MigrationResult:
    """Store the events of a file that `export_events` wrote, with their ids, versions, positions, times and tags.

    The whole file is read and checked (form, count and checksum) before anything is written. The store must be empty or
    hold the beginning of the same import: after an interruption, call it again and it goes on.

    Args:
        path: The file.
        store: Any store of this library; nobody else may write to it meanwhile.
        batch_size: Events per transaction, from 1.
        on_progress: Called with (position, head) after each batch.

    Raises:
        EventValidationError: LEX_ERR_EVT_024; names line and field. Nothing was written.
        EventPersistenceError: LEX_ERR_EVT_012; the store holds something else.
        OSError: The file cannot be read.
    """
    if not isinstance(store, AbstractEventStore):
        raise EventValidationError(f"store must be a store of this library, got {type(store).__name__}", field="store")
    size, codec = check_number(batch_size, "batch_size", 1), EventCodec(store._registry)
    digest, held, done = LogDigest(codec), LogDigest(codec), await store.head()
    begin: Mapping[str, Any] = {}
    last = 0
    with Path(path).open("rb") as file:
        begin = _begin(file)
        for entry, facts in _entries(file, codec):
            digest.add_facts(facts)
            if entry.event.sequence_number <= done:
                held.add(entry)
            last = entry.event.sequence_number
        if last > begin["head"]:
            raise _bad(1, "data.head", f"{begin['head']} is less than the last position, {last}")
        _check_end(file, digest, _sha256(begin))
    await _check_held(store, done, held, codec)
    result, head = MigrationResult(checksum=digest.hexdigest()), begin["head"]
    if done > head:
        raise EventPersistenceError(f"the store is at position {done}, beyond the file's {head}; use an empty store")
    copier, streams = Copier(store, done), set[str]()
    await copier.learn(begin["removed"])
    with Path(path).open("rb") as file:
        _begin(file)
        batch: list[Entry] = []
        for entry, _ in _entries(file, codec):
            if entry.event.sequence_number <= done:
                continue
            batch.append(entry)
            streams.add(entry.stream_id)
            if len(batch) == size:
                await _copy(copier, batch, result, on_progress, head)
                batch = []
        if batch:
            await _copy(copier, batch, result, on_progress, head)
    await copier.finish(head)
    result.streams_migrated, result.completed_at = len(streams), datetime.now(UTC)
    return result


async def _copy(
    copier: Copier, batch: list[Entry], result: MigrationResult, on_progress: Progress | None, head: int
) -> None:
    await copier.copy(batch)
    result.events_migrated += len(batch)
    if on_progress is not None:
        on_progress(copier.position, head)


async def _check_held(store: AbstractEventStore, done: int, expected: LogDigest, codec: EventCodec) -> None:
    """Refuse a store that holds anything but the beginning of the file."""
    from lexigram.events.stores.migration import RemovedEventPlaceholder

    held = LogDigest(codec)
    async for batch in batches(store, 0, done, 500):
        for entry in batch:
            if type(entry.event) is not RemovedEventPlaceholder:
                held.add(entry)
    if held.hexdigest() != expected.hexdigest():
        raise EventPersistenceError("the store holds other events than the beginning of the file; use an empty store")


def _line(codec: EventCodec, entry: Entry, source: str) -> bytes:
    stream_id, event = entry
    event_id, type_name, event_type, occurred_at_us, tags, payload = codec.encode(event)
    attributes: dict[str, Any] = {
        "specversion": "1.0",
        "id": str(UUID(bytes=bytes(event_id))),
        "source": source,
        "type": type_name,
        "subject": stream_id,
        "time": (_EPOCH + timedelta(microseconds=occurred_at_us)).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        # Extension attributes; CloudEvents allows lower-case letters and digits, and no lists.
        "eventtype": event_type,
        "streamversion": event.version,
        "position": event.sequence_number,
    }
    if tags:
        attributes["tags"] = json.dumps(list(tags), ensure_ascii=False)
    # The payload goes in as it is stored, so that events of unknown classes stay the same byte for byte.
    head = json.dumps(attributes, ensure_ascii=False, separators=(",", ":"))[:-1]
    return b"".join((head.encode(), b',"data":', bytes(payload), b"}\n"))


def _write(file: BinaryIO, attributes: Mapping[str, Any]) -> None:
    file.write(json.dumps(attributes, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


def _begin(file: BinaryIO) -> Mapping[str, Any]:
    line = _parse(file.readline(), 1)
    data = line.get("data")
    if line.get("type") != BEGIN or not isinstance(data, dict):
        raise _bad(1, "type", f"the first line must be of type {BEGIN!r}; is this a file of export_events?")
    head, removed = data.get("head"), data.get("removed")
    if type(head) is not int or not 0 <= head <= MAX_POSITION:
        raise _bad(1, "data.head", f"a position expected, got {head!r:.80}")
    if not isinstance(removed, dict):
        raise _bad(1, "data.removed", "a JSON object expected")
    for stream_id, version in removed.items():
        if type(version) is not int or not 1 <= version <= head:
            raise _bad(1, "data.removed", f"a version from 1 to {head} expected, got {version!r:.80}")
        try:
            check_stream_id(stream_id)
        except EventError as error:
            raise _bad(1, "data.removed", str(error)) from error
    return data


def _sha256(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _entries(file: BinaryIO, codec: EventCodec) -> Iterator[tuple[Entry, Facts]]:
    """Yield the events up to the last line, which is left in the file's place for `_check_end`.

    With each of them comes what the file says of it: a class that has changed since may say it otherwise.
    """
    previous = 0
    number = 1
    versions: dict[str, int] = {}
    while True:
        start = file.tell()
        raw = file.readline()
        number += 1
        if not raw:
            raise _bad(number, "type", f"the file ends without its last line, of type {END!r}; it is not complete")
        line = _parse(raw, number)
        if line.get("type") == END:
            file.seek(start)
            return
        entry, facts = _entry(line, raw, number, codec)
        if entry.event.sequence_number <= previous:
            raise _bad(number, "position", f"{entry.event.sequence_number} does not come after {previous}")
        previous = entry.event.sequence_number
        before, version = versions.get(entry.stream_id, 0), entry.event.version
        if version <= before:
            raise _bad(number, "streamversion", f"{version} does not come after {before} of the same stream")
        versions[entry.stream_id] = version
        yield entry, facts


def _entry(line: Mapping[str, Any], raw: bytes, number: int, codec: EventCodec) -> tuple[Entry, Facts]:
    wanted = {"subject": str, "type": str, "eventtype": str, "streamversion": int, "position": int, "data": dict}
    for name, kind in wanted.items():
        if type(line.get(name)) is not kind:
            raise _bad(number, name, f"{kind.__name__} expected, got {line.get(name)!r:.80}")
    for name in ("streamversion", "position"):
        if not 1 <= line[name] <= MAX_POSITION:
            raise _bad(number, name, f"a number from 1 to 2**63 - 1 expected, got {line[name]!r:.80}")
    payload = _payload(raw, line["data"])
    try:
        check_stream_id(line["subject"])
    except EventError as error:
        raise _bad(number, "subject", str(error)) from error
    try:
        event = codec.decode(line["type"], line["eventtype"], payload, line["streamversion"], line["position"])
    except (EventError, UnicodeEncodeError) as error:
        raise _bad(number, "data", str(error)) from error
    if str(event.event_id) != line.get("id"):
        raise _bad(number, "id", f"{line.get('id')!r} is not the id in data, {event.event_id}")
    facts = (
        *(line["position"], line["subject"], line["streamversion"]),
        *(event.event_id.bytes, line["type"], line["eventtype"], _time(line, number), _tags(line, number), payload),
    )
    return Entry(line["subject"], event), facts


def _time(line: Mapping[str, Any], number: int) -> int:
    """Return the event's time in microseconds since 1970."""
    try:
        return (datetime.fromisoformat(line["time"]) - _EPOCH) // timedelta(microseconds=1)
    except (KeyError, TypeError, ValueError) as error:
        raise _bad(number, "time", f"a time with a time zone expected, got {line.get('time')!r:.80}") from error


def _tags(line: Mapping[str, Any], number: int) -> tuple[str, ...]:
    if "tags" not in line:
        return ()
    try:
        tags = json.loads(line["tags"])
    except (TypeError, ValueError, RecursionError):
        tags = None
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise _bad(number, "tags", f"a JSON list of strings in a string expected, got {line['tags']!r:.80}")
    return tuple(tags)


def _payload(raw: bytes, data: Mapping[str, Any]) -> bytes:
    """Return the text of `data` as it stands in a line of our own, else a new one."""
    _, _, rest = raw.partition(b',"data":')
    text = rest.rstrip()[:-1]
    with suppress(ValueError):
        if json.loads(text) == data:
            return text
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


def _check_end(file: BinaryIO, digest: LogDigest, begin: str) -> None:
    number = digest.count + 2
    line = _parse(file.readline(), number)
    expected = {"count": digest.count, "sha256": digest.hexdigest()}
    if line.get("data") != expected:
        raise _bad(number, "data", f"the events of the file are {expected}, its last line says {line.get('data')}")
    if line.get("beginsha256", begin) != begin:  # older files have none
        raise _bad(1, "data", f"it is not what the last line has a checksum of: {begin} expected")
    if file.read().strip():
        raise _bad(number + 1, "line", "something follows the last line; one file holds one log")


def _parse(raw: bytes, number: int) -> dict[str, Any]:
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _bad(number, "line", f"not JSON: {error}") from error
    if not isinstance(line, dict) or line.get("specversion") != "1.0":
        raise _bad(number, "specversion", "a CloudEvent of version 1.0 expected")
    return line


def _bad(number: int, field: str, reason: str) -> EventValidationError:
    return EventValidationError(f"line {number}, {field}: {reason}", field=field)
