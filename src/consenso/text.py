"""The one text normalisation: how texts are compared, and how an id is made from a text."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_WORD = re.compile(r"\w+")


def clean(text: str) -> str:
    """Return the text in Unicode NFC without surrounding white space; equal results are exact duplicates."""
    return unicodedata.normalize("NFC", text).strip()


def normalise(text: str) -> str:
    """Return NFKC, case-folded `\\w+` tokens joined by single spaces; equal results are normalised duplicates."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def text_hash(text: str) -> str:
    """Return the first 16 hex digits of the sha256 of the cleaned text: the id of a text that brings none."""
    return hashlib.sha256(clean(text).encode("utf-8", "surrogatepass")).hexdigest()[:16]
