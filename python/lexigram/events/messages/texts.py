"""Texts from elsewhere, such as the words of an error, in a form that every backend can store."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

_MAX_KEY_LENGTH: Final = 255


def words_of(error: BaseException) -> str:
    """Return the text of an error; an error whose text cannot be made is an error all the same."""
    try:
        return str(error)
    except Exception as failure:
        return f"(its text cannot be made: {type(failure).__name__})"


def storable(text: str) -> str:
    r"""Return a text without what some database refuses: NUL and lone surrogates become escapes such as `\x00`."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", r"\x00").encode("utf-8", "backslashreplace").decode()


def storable_key(text: str) -> str:
    """Return a storable text that an index can hold: of a very long one its beginning and its digest."""
    if len(text) > _MAX_KEY_LENGTH:
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        text = f"{text[: _MAX_KEY_LENGTH - len(digest) - 1]}~{digest}"
    return storable(text)
