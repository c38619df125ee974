"""What arms are made from: the tables, read and checked once, and the train and dev texts of one fold as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from consenso.errors import DataError, JoinError
from consenso.finetune.selection import InstanceSelection, WeakOpinion, weak_opinion
from consenso.labels import LabelSchema
from consenso.tables import VOTES, check, with_text_ids

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Soft = Literal["shares", "votes"]
SOURCES = ("gold", "consensus", "human", "permuted", "noised", "vote", "panel")
GOLD, CONSENSUS, HUMAN, PERMUTED, NOISED, VOTE, PANEL = range(len(SOURCES))


@dataclass(frozen=True)
class Votes:
    """Valid votes, sorted by text, annotator and repetition."""

    annotators: tuple[str, ...]
    """Those with a valid vote on any text, sorted."""
    text: np.ndarray
    """Positions of the texts."""
    annotator: np.ndarray
    """Positions in `annotators`."""
    code: np.ndarray
    """Class positions."""

    def own_labels(self, annotator: int, n: int, n_classes: int) -> np.ndarray:
        """Return one annotator's label for each of n texts: most of its repetitions, −1 for a tie or no vote."""
        import numpy as np

        mine = self.annotator == annotator
        counts = np.zeros((n, n_classes), dtype="int64")
        np.add.at(counts, (self.text[mine], self.code[mine]), 1)
        most = counts.max(axis=1, keepdims=True)
        labels: np.ndarray = np.where((most[:, 0] > 0) & ((counts == most).sum(axis=1) == 1), counts.argmax(axis=1), -1)
        return labels

    def shares(self, n: int, n_classes: int) -> np.ndarray:
        """Return the shares of the valid votes, (n, K); each annotator counts once, rows without a vote are 0."""
        import numpy as np

        pair = self.text * len(self.annotators) + self.annotator
        _, place, repetitions = np.unique(pair, return_inverse=True, return_counts=True)
        found = np.zeros((n, n_classes))
        np.add.at(found, (self.text, self.code), 1 / repetitions[place])
        shares: np.ndarray = found / np.maximum(found.sum(axis=1, keepdims=True), 1e-300)
        return shares


@dataclass(frozen=True)
class FoldTexts:
    """The train and dev texts of one fold, in the order of their ids; test texts are not in it."""

    fold: int
    """Which fold."""
    ids: pd.Index
    """Text ids, sorted."""
    n_classes: int
    """K, the labels of the schema."""
    is_train: np.ndarray
    """True: part train; False: part dev."""
    gold: np.ndarray
    """Positions of the gold labels in the schema, −1 where there is none."""
    consensus: np.ndarray
    """Positions of the consensus labels, −1 where there is none."""
    source: np.ndarray
    """Whose label the consensus label is: position in SOURCES."""
    aligned: np.ndarray
    """True: with a consensus label, and with gold where an arm on aligned texts needs it; the same for all arms."""
    is_problematic: np.ndarray
    """True: the consensus stage calls the label problematic."""
    score: np.ndarray
    """How sure the consensus is, −inf where that is not known."""
    shares: np.ndarray | None
    """Soft targets, (n, K); None unless an arm asks for them."""
    votes: Votes | None
    panels: dict[str, np.ndarray]
    """Arm name → class positions by a sub-panel, −1 where it gives none."""
    words: np.ndarray | None
    """The texts; None unless an arm asks for them."""
    selection: InstanceSelection

    @property
    def kept(self) -> np.ndarray:
        """True: aligned and not problematic."""
        kept: np.ndarray = self.aligned & ~self.is_problematic
        return kept

    @cached_property
    def opinion(self) -> WeakOpinion | None:
        """What a weak classifier, fitted on the consensus labels of the aligned training texts, says of these."""
        assert self.words is not None
        at = self.aligned & self.is_train
        return weak_opinion(self.words[at], self.consensus[at], self.selection.folds)

    def rows(self, chosen: np.ndarray, copies: np.ndarray) -> np.ndarray:
        """Return the positions of the chosen train texts, each as often as it was drawn."""
        import numpy as np

        positions = np.flatnonzero(chosen & self.is_train)
        return np.repeat(positions, copies[positions])


@dataclass(frozen=True)
class ArmTables:
    """The tables that arms are made from, checked, with string ids as index."""

    schema: LabelSchema
    texts: pd.DataFrame
    labels: pd.DataFrame
    votes: pd.DataFrame | None
    """Valid votes: text_id, annotator, repetition, label."""
    panels: dict[str, pd.DataFrame]
    needs: frozenset[str]
    """What the arms read: gold, aligned gold, labels, shares, score, votes, text, panel."""
    soft: Soft
    selection: InstanceSelection

    def of_fold(self, fold: pd.DataFrame) -> FoldTexts:
        """Return the train and dev texts of one fold; gold of test texts is not looked at."""
        import numpy as np
        import pandas as pd

        parts = fold.set_index("text_id")["part"].sort_index()
        parts = parts[parts != "test"]  # from here on nothing knows of the test texts
        if (unknown := ~parts.index.isin(self.texts.index)).any():
            raise JoinError(
                f"folds: {unknown.sum()} text id(s) are not in texts, {parts.index[unknown][0]!r} among them"
            )
        voted = self._voted(parts.index)
        codes = self.schema.codes(voted["label"])
        wants_gold = "gold" in self.needs
        gold = self.schema.codes(self.texts.loc[parts.index, "gold"]) if wants_gold else np.full(len(parts), -1)
        aligned = (codes >= 0) & ((gold >= 0) if "aligned gold" in self.needs else True)
        source = voted["source"] if "source" in voted else pd.Series("consensus", index=voted.index)
        source = source.map({name: i for i, name in enumerate(SOURCES)}).fillna(CONSENSUS).to_numpy(dtype="int64")
        problematic = voted.get("is_problematic", pd.Series(False, index=voted.index)).eq(True).to_numpy(dtype=bool)
        score = pd.to_numeric(voted["score"]).fillna(-np.inf) if "score" in voted else pd.Series(-np.inf, voted.index)
        votes = self._votes(parts.index)
        return FoldTexts(
            fold=int(fold["fold"].iloc[0]),
            ids=parts.index,
            n_classes=len(self.schema),
            is_train=(parts == "train").to_numpy(),
            gold=gold,
            consensus=codes,
            source=source,
            aligned=aligned,
            is_problematic=problematic,
            score=score.to_numpy(dtype="float64"),
            shares=self._shares(voted, codes, source, aligned, votes) if "shares" in self.needs else None,
            votes=votes,
            panels={
                name: self.schema.codes(frame["label"].reindex(parts.index)) for name, frame in self.panels.items()
            },
            words=self.texts.loc[parts.index, "text"].to_numpy(dtype=object) if "text" in self.needs else None,
            selection=self.selection,
        )

    def _voted(self, ids: pd.Index) -> pd.DataFrame:
        labels = self.labels
        if "labels" in self.needs and not ids.isin(labels.index).any():
            example = repr(labels.index[0]) if len(labels) else "none"
            raise JoinError(
                f"labels: none of the {len(labels)} labelled text ids ({example}, …) is in train or dev, whose ids look "
                f"like {ids[0]!r}; check that both tables use the same ids"
            )
        return labels.reindex(ids)

    def _votes(self, ids: pd.Index) -> Votes | None:
        import pandas as pd

        if self.votes is None:
            return None
        known = pd.Index(sorted(self.votes["annotator"].unique()))
        here = self.votes[self.votes["text_id"].isin(ids)]
        text, annotator = ids.get_indexer(here["text_id"]), known.get_indexer(here["annotator"])
        return Votes(tuple(known), text, annotator, self.schema.codes(here["label"]))

    def _shares(
        self, voted: pd.DataFrame, codes: np.ndarray, source: np.ndarray, aligned: np.ndarray, votes: Votes | None
    ) -> np.ndarray:
        """Soft targets of the aligned texts, rows that sum to 1; a label that a human gave is certain."""
        import numpy as np

        n, K = len(codes), len(self.schema)
        found: np.ndarray = np.eye(K)[codes]
        asked = aligned & (source == CONSENSUS)
        if votes is not None and self.soft == "votes":
            found[asked] = votes.shares(n, K)[asked]
        else:
            given = [np.asarray(row, dtype="float64") for row in voted["shares"].to_numpy()[asked]]
            if wrong := sum(row.shape != (K,) for row in given):
                raise DataError(
                    f"labels: {wrong} of {len(given)} 'shares' do not hold {K} numbers, one per label of "
                    f"{list(self.schema.names)}; join them from the labels table, or pass schema="
                )
            found[asked] = np.array(given).reshape(-1, K)
        sums = found[asked].sum(axis=1)
        bad = ~(np.isfinite(found[asked]).all(axis=1) & (found[asked] >= 0).all(axis=1) & (sums > 0))
        if bad.any():
            raise DataError(
                f"consensus-soft: {int(bad.sum())} text(s) with a consensus label, {voted.index[asked][bad][0]!r} for one, "
                f"have no {'valid vote' if self.soft == 'votes' else 'usable shares'}; decide the labels again from these votes"
            )
        found[asked] /= sums[:, None]
        return found


def read_tables(
    texts: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    schema: LabelSchema,
    needs: frozenset[str],
    votes: pd.DataFrame | None,
    panel_labels: Mapping[str, pd.DataFrame],
    soft: Soft,
    selection: InstanceSelection,
) -> ArmTables:
    """Check the tables as far as the arms need them; raises `DataError` for what is missing or stands twice."""
    wanted = sorted({"gold", "text"} & needs)
    columns = [name for name in ("shares", "score") if name in needs and not (name == "shares" and soft == "votes")]
    return ArmTables(
        schema=schema,
        texts=_by_id(texts, wanted, "texts"),
        labels=_by_id(labels, ["label", *columns], "labels"),
        votes=valid_votes(votes) if votes is not None and "votes" in needs else None,
        panels={name: _by_id(frame, ["label"], f"panel_labels[{name!r}]") for name, frame in panel_labels.items()},
        needs=needs,
        soft=soft,
        selection=selection,
    )


def valid_votes(votes: pd.DataFrame) -> pd.DataFrame:
    """Return the valid votes (a label, status ok), string ids, sorted by text, annotator and repetition."""
    found = check(votes, VOTES)
    found = found.loc[found["label"].notna() & found["status"].fillna("ok").eq("ok"), [*VOTES.key, "label"]]
    return with_text_ids(found).sort_values(list(VOTES.key), ignore_index=True)


_READ = ("text_id", "text", "gold", "label", "is_problematic", "source", "method", "score", "shares")


def _by_id(frame: pd.DataFrame, needed: list[str], name: str) -> pd.DataFrame:
    import pandas as pd

    if missing := [column for column in ("text_id", *needed) if column not in frame.columns]:
        raise DataError(f"{name}: missing column(s) {missing}; found {list(frame.columns)}")
    found = with_text_ids(frame[[column for column in _READ if column in frame.columns]])
    if (again := found["text_id"].duplicated()).any():
        methods = sorted(found["method"].unique()) if "method" in found else []
        hint = f"choose one of the methods {methods}" if len(methods) > 1 else "each text may stand once"
        raise DataError(
            f"{name}: {again.sum()} repeated text id(s), {found['text_id'][again].iloc[0]!r} for one; {hint}"
        )
    for column in [c for c in ("gold", "label") if c in found]:
        if pd.api.types.is_numeric_dtype(found[column]) and found[column].notna().any():
            raise DataError(f"{name}: {column!r} must hold label names; found {found[column].dtype} values")
    return found.set_index("text_id")
