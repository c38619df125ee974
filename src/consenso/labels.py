"""LabelSchema: which labels exist, in order, with the id and the description of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from consenso.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


class LabelSchema:
    """The labels of a task. Tables store names; ids exist only where a model or a file wants numbers.

    The position of a label (0 … K−1, the order given) is the class index of every model and of every list of shares
    or probabilities. Ids are the user's own integers (−1, 1 … 10 are fine); where nobody gave any (`ids_given` False) they
    are the positions, and no stored number may be read by them.
    """

    def __init__(
        self, id2label: Mapping[int, str], descriptions: Mapping[str, str] | None = None, *, ids_given: bool = True
    ) -> None:
        names = [str(name) for name in id2label.values()]
        if len(names) < 2:
            raise DataError(f"labels: a schema needs at least two labels; found {names}")
        if repeated := sorted({name for name in names if names.count(name) > 1 or not name.strip()}):
            raise DataError(f"labels: names must be distinct and not empty; repeated or empty: {repeated}")
        if strange := sorted(set(descriptions or {}) - set(names)):
            raise DataError(f"labels: descriptions for unknown labels {strange}; the labels are {names}")
        self._ids = tuple(int(key) for key in id2label)
        self._names = tuple(names)
        self._descriptions = {name: str((descriptions or {}).get(name) or "") for name in names}
        self._index = {name: position for position, name in enumerate(names)}
        self._ids_given = ids_given

    @classmethod
    def from_names(
        cls, names: Iterable[str], descriptions: Mapping[str, str] | None = None, *, ids_given: bool = True
    ) -> Self:
        """Make a schema whose ids are the positions 0 … K−1."""
        return cls(dict(enumerate(names)), descriptions, ids_given=ids_given)

    @classmethod
    def from_dataframe(cls, df: pd.DataFrame) -> Self:
        """Make a schema from the distinct pairs of the columns label (id) and label_description (name), by id."""
        if missing := [column for column in ("label", "label_description") if column not in df.columns]:
            raise DataError(f"labels: missing column(s) {missing}; found {list(df.columns)}")
        pairs = df[["label", "label_description"]].dropna().drop_duplicates().sort_values("label")
        if pairs["label"].duplicated().any():
            raise DataError("labels: one id has two descriptions; each label id needs exactly one name")
        return cls({int(row.label): str(row.label_description) for row in pairs.itertuples()})

    @classmethod
    def of(cls, labels: LabelSchema | Iterable[str] | None) -> LabelSchema | None:
        """Return a schema of what a caller may give: a schema, label names in order, or None."""
        if labels is None or isinstance(labels, LabelSchema):
            return labels
        if isinstance(labels, str):
            raise DataError(f"labels: expected a LabelSchema or the label names in order; found the text {labels!r}")
        return cls.from_names(map(str, labels))

    @property
    def names(self) -> tuple[str, ...]:
        """Label names, in schema order."""
        return self._names

    @property
    def descriptions(self) -> dict[str, str]:
        """Name → definition ('' where none was given)."""
        return dict(self._descriptions)

    @property
    def id2label(self) -> dict[int, str]:
        """The user's id → name."""
        return dict(zip(self._ids, self._names))

    @property
    def label2id(self) -> dict[str, int]:
        """Name → the user's id."""
        return dict(zip(self._names, self._ids))

    @property
    def ids_given(self) -> bool:
        """Whether the user or the data say which id is which label; else the ids are mere positions."""
        return self._ids_given

    def with_ids_given(self, ids_given: bool) -> Self:
        """Return the same labels, saying whether their ids were given."""
        return type(self)(self.id2label, self.descriptions, ids_given=ids_given)

    def num_labels(self) -> int:
        """Return K, the number of labels."""
        return len(self._names)

    def index(self, name: str) -> int:
        """Return the position of a label."""
        return self._index[name]

    def codes(self, names: pd.Series) -> np.ndarray:
        """Return positions as int64, −1 where the name is null; an unknown name raises `DataError`."""

        missing = names.isna().to_numpy()
        found = names.map(self._index)
        if (strange := names[found.isna() & ~missing]).size:
            raise DataError(
                f"labels: unknown label(s) {sorted(set(map(str, strange)))[:5]}; the labels are {list(self.names)}"
            )
        codes: np.ndarray = found.fillna(-1).to_numpy(dtype="int64")
        return codes

    def read(self, value: Any) -> str | None:
        """Return the label a stored value means (exact name, then id, then name whatever its case), or None."""
        if _is_missing(value):
            return None
        word = str(value).strip()
        if word in self._index:
            return word
        number = word[:-2] if word.endswith(".0") else word
        if is_whole(number) and int(number) in self._ids:
            return self._names[self._ids.index(int(number))]
        folded = [name for name in self._names if name.casefold() == word.casefold()]
        return folded[0] if len(folded) == 1 else None

    def read_by_id(self, value: Any) -> bool:
        """Return whether a stored value means a label by its id alone: a bare number that is no label's name."""
        if _is_missing(value):
            return False
        word = str(value).strip()
        number = word.removesuffix(".0")
        return not {word, number} & set(self._index) and is_whole(number) and int(number) in self._ids

    def read_column(self, values: pd.Series) -> pd.Series:
        """Return label names (object dtype, None where a value is null or means no label), index kept."""
        import pandas as pd

        meaning = {value: self.read(value) for value in values.dropna().unique()}
        read = [None if _is_missing(value) else meaning.get(value) for value in values]
        return pd.Series(read, index=values.index, dtype=object)

    def as_records(self) -> list[dict[str, Any]]:
        """Return [{id, name, description}, …] in order: what is stored and hashed."""
        return [{"id": i, "name": n, "description": self._descriptions[n]} for i, n in zip(self._ids, self._names)]

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, Any]]) -> Self:
        """Make a schema from what `as_records` returned."""
        rows = list(records)
        return cls(
            {int(r["id"]): str(r["name"]) for r in rows},
            {str(r["name"]): str(r.get("description") or "") for r in rows},
        )

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelSchema) and self.as_records() == other.as_records()

    def __hash__(self) -> int:
        return hash((self._ids, self._names))

    def __repr__(self) -> str:
        return f"LabelSchema({self.id2label})"

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(
            f"<tr><td>{r['id']}</td><td>{escape(r['name'])}</td><td>{escape(r['description'])}</td></tr>"
            for r in self.as_records()
        )
        return f"<table><tr><th>id</th><th>label</th><th>description</th></tr>{rows}</table>"


def is_whole(word: str) -> bool:
    """Return whether a word is a whole number, and nothing else."""
    return word.removeprefix("-").isdecimal()


def _is_missing(value: Any) -> bool:
    import pandas as pd

    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
