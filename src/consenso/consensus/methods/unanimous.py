"""Unanimous: majority, decided only where all valid votes agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.consensus.methods.majority import majority
from consenso.consensus.methods.shape import Options, Shares

if TYPE_CHECKING:
    from consenso.consensus.votematrix import CodedVotes


def unanimous(votes: CodedVotes, options: Options) -> Shares:
    """Return majority's shares; that the winner needs all of them is `decide`'s."""
    return majority(votes, options)
