"""Stored values → labels: what a cell of a vote file means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from consenso.errors import ConfigError, DataError, nearest
from consenso.labels import LabelSchema, is_whole

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_WHOLE = re.compile(r"-?\d+\.0+")
_WORD_CHARACTER = re.compile(r"\w")
_BLANK = frozenset({"", "nan", "<na>"})
"""What an empty cell looks like once someone has turned it into text."""
RETURN_NAMES = "let the function return names, or give each label its id in [[data.labels]]"
"""What to do about a function that returns numbers."""


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
        names = [name for name in (stripped, word) if name in self._schema]
        if (label := names[0] if names else self._schema.read(stripped) or self._schema.read(word)) is not None:
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

    def undeclared(self, values: pd.Series) -> list[str]:
        """Return the bare numbers among values of which one is read only by an id that nobody gave; else none."""
        if self._schema.ids_given:
            return []
        words = {word_of(value) for value in values.dropna().unique()} - set(self._labels) - self._abstain
        if not any(self._schema.read_by_id(word) for word in words):
            return []
        return sorted((word for word in words if is_whole(word) and word not in self._schema), key=int)

    def refuse_undeclared(self, values: pd.Series, who: str, todo: str) -> None:
        """Raise `DataError` where a value is read only by an id that nobody gave: it could mean any label."""
        if numbers := self.undeclared(values):
            names = ", ".join(self._schema.names[:12]) + (", …" if len(self._schema) > 12 else "")
            shown = ", ".join(numbers[:12]) + (", …" if len(numbers) > 12 else "")
            pairs = ", ".join(f'"{number}" = "…"' for number in numbers[:12])
            raise DataError(
                f"{who} are numbers ({shown}), the labels are names ({names}), and nothing says which is which: "
                f"{todo.format(pairs=pairs)}"
            )

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
