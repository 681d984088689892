"""Which partition a stream belongs to: the same on every backend, in every process and language."""

from __future__ import annotations

from zlib import crc32


def partition_hash(stream_id: str) -> int:
    """Return the CRC-32 (ISO 3309) of the stream id in UTF-8: 0 to 2**32 - 1. SQL backends store it with the stream."""
    return crc32(stream_id.encode())


def partition_of(stream_id: str, total_partitions: int) -> int:
    """Return the partition of a stream, 0 to `total_partitions` - 1: `partition_hash(stream_id) % total_partitions`."""
    return crc32(stream_id.encode()) % total_partitions
