"""What a person should act on, shown below the cell of a notebook."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

_HERE = Path(__file__).parent


class ConsensoWarning(UserWarning):
    """Something in a notebook that a person should act on: shown below the cell."""


def warn(message: str) -> None:
    """Warn at the line of the notebook, however deep inside this package the reason was found."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and Path(frame.f_code.co_filename).parent == _HERE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, ConsensoWarning, stacklevel=level)
