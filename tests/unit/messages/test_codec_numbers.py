"""Decimals and UUIDs, whose parts the codec reads from the interpreter's memory: each is written as Python writes it."""

from __future__ import annotations

import decimal
import random
from decimal import Decimal
from uuid import UUID

import pytest

from lexigram.events import EventCodec, SerializationError

JSON, BINARY = EventCodec(), EventCodec(format="binary")
BINARY_DECIMAL, BINARY_UUID = 17, 9
"""Their tags in the binary form."""


def decimals() -> list[Decimal]:
    """Return decimals around every limit: of digits, exponents, words of the coefficient, kinds."""
    coefficients = [0, 1, 7, 10, 99, 100, 1234567, 2**64 - 1, 2**64, 2**128, 10**77]
    coefficients += [10**power + more for power in (5, 6, 7, 17, 18, 19, 20, 38) for more in (-1, 0, 1)]
    exponents = [-(10**6), *range(-45, 12), 400]
    exact = [Decimal((sign, tuple(map(int, str(c))), e)) for sign in (0, 1) for c in coefficients for e in exponents]
    chosen = random.Random(0)
    some = [Decimal(chosen.randrange(10 ** chosen.randrange(1, 30))).scaleb(-chosen.randrange(40)) for _ in range(2000)]
    odd = [Decimal(text) for text in ("NaN", "-NaN", "sNaN", "NaN123", "Infinity", "-Infinity")]
    return [*exact, *some, *odd, Decimal("-0"), Decimal("0E+3"), Decimal(3) / 7, Decimal(5).copy_negate()]


def test_decimals_are_written_as_their_text() -> None:
    """In both forms, with every exponent and length; and they are read again with the same digits."""
    for number in decimals():
        text = str(number).encode()
        assert JSON.encode_value(number, Decimal) == b'"' + text + b'"'
        data = BINARY.encode_value(number, Decimal)
        assert data[1:] == bytes([BINARY_DECIMAL, len(text)]) + text
        assert BINARY.decode_value(data, Decimal).as_tuple() == number.as_tuple()


@pytest.mark.parametrize("capitals", [0, 1])
def test_a_context_changes_nothing_about_plain_decimals(capitals: int) -> None:
    """Neither its precision nor its traps; its letter for the exponent is the one that `str` takes."""
    numbers = [number for number in decimals() if not number.is_snan()]
    with decimal.localcontext(decimal.Context(prec=2, capitals=capitals, traps=[decimal.Inexact])):
        for number in numbers:
            assert JSON.encode_value(number, Decimal) == f'"{number}"'.encode()


class Money(Decimal):
    """A class of its own, which is not written as a plain decimal."""


@pytest.mark.parametrize("codec", [JSON, BINARY])
def test_subclasses_are_not_taken_for_decimals(codec: EventCodec) -> None:
    """A class of its own is written with its name, which brings it back."""
    found = codec.decode_value(codec.encode_value(Money("1.5"), Decimal), Decimal)
    assert (type(found), found) == (Money, Decimal("1.5"))


def test_uuids_are_written_as_their_bytes() -> None:
    """Whatever the length of the integer inside: none of its digits, one, some, all of them full."""
    numbers = [0, 1, 2**128 - 1]
    numbers += [
        2**bits + more for bits in (15, 29, 30, 31, 59, 60, 63, 64, 90, 91, 119, 120, 121, 127) for more in (-1, 0, 1)
    ]
    chosen = random.Random(1)
    numbers += [chosen.getrandbits(chosen.randrange(1, 129)) for _ in range(2000)]
    for number in numbers:
        uuid = UUID(int=number)
        assert JSON.encode_value(uuid, UUID) == f'"{uuid}"'.encode()
        data = BINARY.encode_value(uuid, UUID)
        assert data[1:] == bytes([BINARY_UUID]) + uuid.bytes
        assert BINARY.decode_value(data, UUID) == uuid


@pytest.mark.parametrize("inside", [-1, -(2**127), 2**128, 2**200, 1.5, "7", None])
def test_a_uuid_that_holds_something_else_is_an_error(inside: object) -> None:
    """Set past the checks of `UUID`: more bits, another sign or another type are never taken for sixteen bytes."""
    uuid = UUID(int=5)
    object.__setattr__(uuid, "int", inside)
    for codec in (JSON, BINARY):
        with pytest.raises(SerializationError):
            codec.encode_value(uuid, UUID)
