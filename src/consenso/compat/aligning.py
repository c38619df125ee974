"""Two labelled frames brought to the same texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.compat.cells import plain
from consenso.compat.warned import warn
from consenso.errors import DataError, JoinError
from consenso.text import normalise

if TYPE_CHECKING:
    import pandas as pd


class DatasetAligner:
    """Brings two labelled frames to the same texts in the same order."""

    def __init__(self, id_column: str, gt_label: str, ann_label: str) -> None:
        self.id_column, self.gt_label, self.ann_label = id_column, gt_label, ann_label

    def align(self, df_gt: pd.DataFrame, df_ann: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return both frames with the texts that have a label in both: same ids, same order (that of `df_gt`).

        Each gets the column `label` (from `gt_label` and `ann_label`); other columns stay. Ids are compared as text: 7,
        7.0, "7" and "7\\n" are one id. Left out, and counted by a warning: ids with contradicting labels, annotations
        that are no label (null, "ERROR", −1 unless the gold has it), ids that name different texts in the two frames.
        Raises `DataError` for a missing column or id, `JoinError` if no text is left or most ids name different texts.
        """
        notes: list[str] = []
        gt = self._labelled(df_gt, self.gt_label, "df_gt", notes)
        reserved = () if -1 in set(gt["label"]) else (-1,)
        ann = self._labelled(df_ann, self.ann_label, "df_ann", notes, reserved)
        common = gt.index[gt.index.isin(ann.index)]
        if not len(common):
            found = [str(df[self.id_column].iloc[0]) if len(df) else "no rows" for df in (df_gt, df_ann)]
            raise JoinError(
                f"df_gt and df_ann share no labelled text by {self.id_column!r}; found for example {found[0]!r} and "
                f"{found[1]!r}; make both ids in the same way"
            )
        gt, ann = gt.loc[common], ann.loc[common]
        same = self._same_texts(gt, ann, notes)
        gt, ann = gt[same].reset_index(drop=True), ann[same].reset_index(drop=True)
        if notes:
            warn(f"{len(gt)} texts aligned; left out: {'; '.join(notes)}")
        return gt, ann.assign(**{self.id_column: gt[self.id_column]})

    def _labelled(
        self, df: pd.DataFrame, column: str, where: str, notes: list[str], reserved: tuple[int, ...] = ()
    ) -> pd.DataFrame:
        """One row for each id that has one label, indexed by the id as text."""
        import pandas as pd

        if missing := [name for name in (self.id_column, column) if name not in df.columns]:
            raise DataError(f"{where}: missing column(s) {missing}; found {list(df.columns)}")
        ids = [plain(value) for value in df[self.id_column]]
        if empty := sum(value is None for value in ids):
            raise DataError(f"{where}: {empty} row(s) without {self.id_column!r}; fill or drop them")
        labels = pd.Series([plain(value) for value in df[column]], index=df.index, dtype=object)
        usable = labels.notna() & ~labels.isin([*reserved, "ERROR"])
        frame = df.assign(label=labels).set_axis(pd.Index(map(str, ids), dtype=object))[usable.to_numpy()]
        contradicted = frame["label"].groupby(level=0).transform("nunique") > 1
        for count, what in (
            ((~usable).sum(), "without a usable label"),
            (contradicted.sum(), "with contradicting labels"),
        ):
            if count:
                notes.append(f"{count} row(s) of {where} {what}")
        frame = frame[~contradicted & ~frame.index.duplicated()]
        whole = len(frame) and all(isinstance(label, int) for label in frame["label"])
        return frame.astype({"label": "int64"}) if whole else frame

    @staticmethod
    def _same_texts(gt: pd.DataFrame, ann: pd.DataFrame, notes: list[str]) -> list[bool]:
        if "text" not in gt.columns or "text" not in ann.columns:
            return [True] * len(gt)
        same = [normalise(str(a)) == normalise(str(b)) for a, b in zip(gt["text"], ann["text"])]
        if (different := same.count(False)) > len(same) / 2:
            found = f"{different} of {len(same)} shared ids name different texts in df_gt and df_ann"
            raise JoinError(f"{found}; join by the text (id_column='text'), or mend the ids")
        if different:
            notes.append(f"{different} id(s) that name different texts")
        return same
