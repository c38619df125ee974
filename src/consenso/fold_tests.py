"""Which test texts folds may have: all the same, or each its own; what lies between has no valid interval."""

from __future__ import annotations

from collections.abc import Mapping, Set
from itertools import combinations
from typing import Any


def uneven_test_texts(tests: Mapping[int, Set[Any]]) -> str:
    """Return in words how the folds' test texts (fold → ids) overlap in part; '' where all are the same or all apart."""
    same, apart = "", ""
    for (a, first), (b, second) in combinations(sorted(tests.items()), 2):
        if first == second:
            same = same or f"folds {a} and {b} test the same texts"
        elif common := len(first & second):
            return f"folds {a} and {b} share {common:,} of their {len(first):,} and {len(second):,} test texts"
        else:
            apart = apart or f"folds {a} and {b} other ones"
    return f"{same}, {apart}" if same and apart else ""
