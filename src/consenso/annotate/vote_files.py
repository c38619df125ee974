"""Finding and reading the file that a vote import names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from consenso.errors import DataError, nearest
from consenso.files import candidates, find_path
from consenso.readers import read_file

if TYPE_CHECKING:
    import pandas as pd


def find_source(source: str | Path, base: Path | None = None) -> Path:
    """Return the path of a source: below `base`, the working folder or CONSENSO_DATA."""
    if (path := find_path(source, base)) is not None:
        return path
    tried = candidates(source, base)
    beside = [path.name for folder in {path.parent for path in tried} if folder.is_dir() for path in folder.iterdir()]
    hint = nearest(Path(source).name, beside)
    raise DataError(f"votes: no file or folder {source}; looked for {', '.join(map(str, tried))}.{hint}")


def read_votes_file(path: Path) -> pd.DataFrame:
    """Read one table of votes; the cells of text files stay text, so that ids such as 007 keep their form."""
    frame = read_file(path).frame
    frame.columns = [str(name).strip() for name in frame.columns]
    return frame
