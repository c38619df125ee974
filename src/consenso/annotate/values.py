"""Stored values → labels: what a cell of a vote file means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from consenso.errors import ConfigError, nearest
from consenso.labels import LabelSchema

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_WHOLE = re.compile(r"-?\d+\.0+")
_WORD_CHARACTER = re.compile(r"\w")
_BLANK = frozenset({"", "nan", "<na>"})
"""What an empty cell looks like once someone has turned it into text."""


def word_of(value: Any) -> str:
    """Return a stored value as a word: without surrounding blanks, `2.0` as `2`."""
    word = str(value).strip()
    return word.partition(".")[0] if _WHOLE.fullmatch(word) else word


class ValueReader:
    """Reads stored values against a schema, the file's own value → label map, and the values that mean abstained."""

    def __init__(
        self, schema: LabelSchema, labels: Mapping[str, str] | None = None, abstain: Iterable[str] = ()
    ) -> None:
        self._schema = schema
        self._labels = {word_of(value): _known(name, schema) for value, name in (labels or {}).items()}
        self._abstain = frozenset(word_of(value) for value in abstain)

    def read(self, value: Any) -> tuple[str | None, str]:
        """Return (label, status). In order: the file's own map, abstentions, name, id, "ERROR", blank, the rest."""
        stripped, word = str(value).strip(), word_of(value)
        if word in self._labels:
            return self._labels[word], "ok"
        if word in self._abstain:
            return None, "abstained"
        if (label := self._schema.read(stripped) or self._schema.read(word)) is not None:
            return label, "ok"
        if word.casefold() == "error":  # what the earlier system wrote when a call failed
            return None, "failed"
        if word.casefold() in _BLANK or not _WORD_CHARACTER.search(word):
            return None, "unparsable"
        return None, "invalid_label"

    def read_column(self, values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels (None where there is none) and the statuses; each distinct value is read once."""
        import numpy as np
        import pandas as pd

        codes, distinct = pd.factorize(values)
        readings = [self.read(value) for value in distinct] + [self.read("")]  # code -1, a null, takes the last
        labels = np.array([label for label, _ in readings], dtype=object)
        statuses = np.array([status for _, status in readings], dtype=object)
        return labels[codes], statuses[codes]

    def share_read(self, values: pd.Series) -> float:
        """Return the share of labels, abstentions and errors among the values that say something; 0 where none does."""
        import numpy as np
        import pandas as pd

        codes, distinct = pd.factorize(values)
        statuses = ["unparsable" if word_of(value).casefold() in _BLANK else self.read(value)[1] for value in distinct]
        counts = np.bincount(codes[codes >= 0], minlength=len(distinct))
        said = int(sum(count for count, status in zip(counts, statuses) if status != "unparsable"))
        strange = int(sum(count for count, status in zip(counts, statuses) if status == "invalid_label"))
        return 1 - strange / said if said else 0.0


def words_of(values: pd.Series) -> pd.Series:
    """Return a column's values as words, nulls kept; each distinct value is converted once."""
    import numpy as np
    import pandas as pd

    codes, distinct = pd.factorize(values)
    words = np.array([*(word_of(value) for value in distinct), None], dtype=object)
    return pd.Series(words[codes], index=values.index, dtype=object)


def is_blank(values: pd.Series) -> pd.Series:
    """Return which values are null or an empty cell."""
    import numpy as np
    import pandas as pd

    codes, distinct = pd.factorize(values)
    blank = np.array([word_of(value).casefold() in _BLANK for value in distinct] + [True], dtype=bool)
    return pd.Series(blank[codes], index=values.index)


def _known(name: str, schema: LabelSchema) -> str:
    if name not in schema:
        hint = nearest(name, schema) or f" The labels are {list(schema)}."
        raise ConfigError(f"annotate: `labels` maps to {name!r}, which is no label.{hint}")
    return name
