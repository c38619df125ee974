"""From arrays back to a LABELS frame: no Python string per text, shares as views of one array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from consenso.tables import LABELS

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def labels_frame(text_ids: pd.Index, columns: Mapping[str, Any]) -> pd.DataFrame:
    """Return a LABELS frame of distinct, non-null text ids; optional columns that are not given get their default.

    Other columns follow at the end. It is what `check` would return, without the search for repeated keys.
    """
    import pandas as pd

    given = {"text_id": text_ids, **columns}
    defaults = {name: column.default for name, column in LABELS.columns.items() if not column.required}
    ordered = {name: given[name] if name in given else defaults[name] for name in LABELS.columns if name != "method"}
    others = {name: values for name, values in given.items() if name not in LABELS.columns}
    frame = pd.DataFrame({**ordered, **others}, index=range(len(text_ids)))
    method = columns.get("method", LABELS.columns["method"].default)
    frame.insert(1, "method", text_column(_zeros(len(frame)), [method]) if isinstance(method, str) else method)
    return frame


def text_column(codes: np.ndarray, names: Sequence[str]) -> pd.Series:
    """Return names by their positions, null where the code is −1, in the type that pandas has for text."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    narrow = codes.astype(np.int32, copy=False)
    try:
        values = pa.array(names, type=pa.large_string())
    except UnicodeError:  # half a surrogate pair: no text to Arrow
        return pd.Series(np.array([*names, None], dtype=object)[narrow], dtype=object)
    column = pa.DictionaryArray.from_arrays(pa.array(narrow, mask=narrow < 0), values)
    return column.cast(pa.large_string()).to_pandas()


def names_column(names: Sequence[str | None]) -> pd.Series:
    """Return a column of names, in the type that pandas has for text; half a surrogate pair stays an object."""
    import pandas as pd

    try:
        return pd.Series(names)
    except UnicodeError:
        return pd.Series(names, dtype=object)


def rows_column(rows: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return a column of the rows of (n, K) as views, None where a row is not known."""
    import numpy as np

    column = np.fromiter(rows, dtype=object, count=len(rows))
    column[~known] = None
    return column


def top_two(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest and the second largest value of each row of (n, K); zero where there is none."""
    import numpy as np

    first, second = np.zeros(len(rows)), np.zeros(len(rows))
    for column in rows.T:
        np.maximum(second, np.minimum(first, column), out=second)
        np.maximum(first, column, out=first)
    return first, second


def _zeros(n: int) -> np.ndarray:
    import numpy as np

    return np.zeros(n, dtype=np.int32)
