"""Dates and times as text that keeps everything: ISO 8601, with the zone's name and the fold in brackets after it.

`2026-03-29T01:30:00+01:00[Europe/Berlin]` (RFC 9557), `2026-10-25T02:30:00[fold=1]`, `PT1H` style durations as
days, seconds and microseconds in ISO 8601: `P1DT3600.000001S`.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

_BRACKETS = re.compile(r"\A([^\[\]]{1,40})((?:\[[^\[\]]{1,100}\]){0,2})\Z")
_DURATION = re.compile(r"\A(-?)P(\d{1,10})DT(\d{1,5})(?:\.(\d{6}))?S\Z", re.ASCII)
_DATE = re.compile(r"\A\d{4}-\d\d-\d\d\Z", re.ASCII)
_CLOCK = r"\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d(?::\d\d(?:\.\d{6})?)?)?"
_DATETIME = re.compile(rf"\A\d{{4}}-\d\d-\d\d[T ]{_CLOCK}\Z", re.ASCII)
_TIME = re.compile(rf"\A{_CLOCK}\Z", re.ASCII)


def format_moment(value: datetime | time) -> str:
    """Return the text of a datetime or time.

    Raises:
        ValueError: Its tzinfo is not `datetime.timezone` or `zoneinfo.ZoneInfo`.
    """
    text = value.isoformat()
    zone = value.tzinfo
    if zone is not None and zone is not UTC:
        text += _zone_suffix(zone)
    return f"{text}[fold=1]" if value.fold else text


def _zone_suffix(zone: tzinfo) -> str:
    if isinstance(zone, ZoneInfo) and zone.key and not set(zone.key) & set("[]"):
        return f"[{zone.key}]"
    if type(zone) is timezone:
        name = zone.tzname(None)
        if name == timezone(zone.utcoffset(None)).tzname(None):
            return ""
        if name and len(name) < 99 and not set(name) & set("[]"):
            return f"[={name}]"
    if type(zone).__module__ in ("pydantic_core._pydantic_core", "pydantic_core"):
        return ""
    raise ValueError(f"a time zone of class {type(zone).__qualname__} cannot be stored; use zoneinfo.ZoneInfo")


def parse_datetime(text: str) -> datetime:
    """Return the datetime of a text written by `format_moment`, or of any ISO 8601 date and time.

    Raises:
        ValueError: The text is something else, or its zone is not known here.
    """
    plain, zone, fold = _split(text)
    if not _DATETIME.match(plain):
        raise ValueError(f"not an ISO 8601 date and time: {text[:60]!r}")
    value = datetime.fromisoformat(plain)
    return value.replace(tzinfo=_zone(zone, value.tzinfo) if zone else value.tzinfo, fold=fold)


def parse_time(text: str) -> time:
    """Return the time of a text written by `format_moment`, or of any ISO 8601 time of day.

    Raises:
        ValueError: The text is something else, or its zone is not known here.
    """
    plain, zone, fold = _split(text)
    if not _TIME.match(plain):
        raise ValueError(f"not an ISO 8601 time: {text[:60]!r}")
    value = time.fromisoformat(plain)
    return value.replace(tzinfo=_zone(zone, value.tzinfo) if zone else value.tzinfo, fold=fold)


def parse_date(text: str) -> date:
    """Return the date of `YYYY-MM-DD`.

    Raises:
        ValueError: The text is something else.
    """
    if not _DATE.match(text):
        raise ValueError(f"not an ISO 8601 date: {text[:60]!r}")
    return date.fromisoformat(text)


def _split(text: str) -> tuple[str, str, int]:
    """Return (ISO part, zone in brackets or "", fold)."""
    match = _BRACKETS.match(text)
    if match is None:
        raise ValueError(f"not an ISO 8601 text: {text[:60]!r}")
    zone, fold = "", 0
    for part in match[2].strip("[]").split("][") if match[2] else ():
        if part == "fold=1":
            fold = 1
        elif zone:
            raise ValueError(f"two time zones: {text[:60]!r}")
        else:
            zone = part
    return match[1], zone, fold


def _zone(name: str, offset: tzinfo | None) -> tzinfo:
    if name.startswith("="):
        if offset is None:
            raise ValueError(f"zone {name!r} without an offset")
        return timezone(offset.utcoffset(None) or timedelta(), name[1:])
    try:
        return ZoneInfo(name)
    except (LookupError, OSError) as error:
        raise ValueError(f"time zone {name!r} is not known here") from error


def format_duration(value: timedelta) -> str:
    """Return the ISO 8601 text of a timedelta in days and seconds."""
    sign = "-" if value.days < 0 else ""
    value = -value if sign else value
    fraction = f".{value.microseconds:06d}" if value.microseconds else ""
    return f"{sign}P{value.days}DT{value.seconds}{fraction}S"


def parse_duration(text: str) -> timedelta:
    """Return the timedelta of a text written by `format_duration`.

    Raises:
        ValueError: The text is something else, or out of range.
    """
    match = _DURATION.match(text)
    if match is None:
        raise ValueError(f"not a duration like P1DT3600S: {text[:60]!r}")
    try:
        if match[1]:
            return timedelta(days=-int(match[2]), seconds=-int(match[3]), microseconds=-int(match[4] or 0))
        return timedelta(days=int(match[2]), seconds=int(match[3]), microseconds=int(match[4] or 0))
    except OverflowError as error:
        raise ValueError(f"duration out of range: {text[:60]!r}") from error
