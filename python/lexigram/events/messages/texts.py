"""Texts from elsewhere, such as the words of an error, in a form that every backend can store."""

from __future__ import annotations


def storable(text: str) -> str:
    r"""Return a text without what some database refuses: NUL and lone surrogates become escapes such as `\x00`."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", r"\x00").encode("utf-8", "backslashreplace").decode()
