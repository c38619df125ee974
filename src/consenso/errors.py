"""Every deliberate error of consenso.

ConsensoError                 the command line prints its one line; anything else is a bug and keeps its traceback
├── ConfigError               experiment.toml, an option or an argument is wrong
├── DataError                 a file or table is wrong
│   └── JoinError             two tables that should share texts do not
├── ModelError                a model folder or name is not usable
├── MissingExtraError         a feature needs `pip install "consenso[extra]"`
├── BusyError                 another process works in this run folder
├── StorageError              a write failed (disk full): finished work stays, run again
├── EndpointError             no annotator could be asked
├── IncompleteError           some votes are missing: the same command goes on
├── BudgetError               the budget is reached: raise it and go on
├── TrainingError             a final model could not be trained: collapsed, or out of memory; nothing was written
└── StoppedError              interrupted or terminated: what was answered is kept
"""

from __future__ import annotations


class ConsensoError(Exception):
    """A mistake a user can mend: what is wrong, what was found, what to do, in one line."""

    exit_code = 2
    """1: failed, can be resumed; 2: usage or bad input; 3: incomplete; 5: budget reached; 130: interrupted."""


class ConfigError(ConsensoError):
    """experiment.toml, an option or an argument is wrong."""


class DataError(ConsensoError):
    """A file or table is wrong."""


class JoinError(DataError):
    """Two tables that should share texts do not."""


class ModelError(ConsensoError):
    """A model folder or name is not usable."""


class MissingExtraError(ConsensoError):
    """A feature needs an extra that is not installed."""

    def __init__(self, feature: str, extra: str, *, by_hand: str = "") -> None:
        super().__init__(
            f"{feature} needs packages that are not installed and that no extra brings: pip install {by_hand}"
            if by_hand
            else f'{feature} needs the {extra!r} extra, which is not installed: pip install "consenso[{extra}]"'
        )


class BusyError(ConsensoError):
    """Another process works in this run folder."""

    exit_code = 1


class StorageError(ConsensoError):
    """A write failed; finished work stays, and the same command resumes."""

    exit_code = 1


class EndpointError(ConsensoError):
    """No annotator could be asked."""

    exit_code = 1

    def __init__(self, message: str, *, misconfigured: bool = False) -> None:
        super().__init__(message)
        if misconfigured:
            self.exit_code = 2


class IncompleteError(ConsensoError):
    """Some votes are missing; the same command goes on."""

    exit_code = 3


class BudgetError(ConsensoError):
    """The budget is reached; with a larger one the same command goes on."""

    exit_code = 5


class TrainingError(ConsensoError):
    """A final model could not be trained: it collapsed, or memory ran out; nothing was written."""

    exit_code = 1


class StoppedError(ConsensoError):
    """A signal ended the work; what was answered is kept, and the same command goes on."""

    exit_code = 130

    def __init__(self, message: str, *, terminated: bool = False) -> None:
        super().__init__(message)
        if terminated:
            self.exit_code = 3


def nearest(word: str, choices: object) -> str:
    """Return ` Did you mean 'x'?` for the closest of `choices`, or an empty string."""
    import difflib

    found = difflib.get_close_matches(word, [str(choice) for choice in choices], n=1, cutoff=0.6)  # type: ignore[attr-defined]
    return f" Did you mean {found[0]!r}?" if found else ""
