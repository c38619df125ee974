"""What a run folder holds, for the report: tables that may be absent, the record, and which texts may be looked at."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from consenso.labels import LabelSchema
from consenso.report.settings import ReportSettings
from consenso.tables import TABLES

if TYPE_CHECKING:
    import pandas as pd

    from consenso.store import RunFolder

TABLES_OF = {
    "data": ("texts", "folds", "leaks", "duplicates"),
    "annotate": ("annotators", "votes", "variant_votes", "variants", "candidates", "recall", "gold_used"),
    "consensus": (
        "labels", "agreement", "final_labels", "confidence",
        "consensus_gold", "reliability", "panels", "missed", "gold_noise", "gold_bound",
    ),
    "finetune": ("arms", "trainings", "curves", "predictions"),
    "compare": (
        "scores", "guards", "comparison", "class_differences", "seed_differences", "calibration", "calibration_bins",
        "learning_curve", "value", "frontier", "multiverse",
    ),
}  # fmt: skip
STAGE_OF = {table: stage for stage, tables in TABLES_OF.items() for table in tables}
"""The stage that writes each table."""
SINCE = frozenset(
    {
        "consensus_gold", "reliability", "panels", "missed", "gold_noise", "gold_bound", "class_differences",
        "seed_differences", "calibration", "calibration_bins", "learning_curve", "value", "frontier", "multiverse",
    }
)  # fmt: skip
"""Tables that earlier versions of their stage did not write."""

METRICS = {"macro_f1": "macro-F1", "accuracy": "accuracy"}


class Facts:
    """The tables of a run folder, read when first asked for."""

    def __init__(self, folder: RunFolder, settings: ReportSettings) -> None:
        self.folder = folder
        self.settings = settings
        self.record: dict[str, Any] = folder.record()
        self._tables: dict[str, pd.DataFrame | None] = {}

    def table(self, name: str) -> pd.DataFrame | None:
        """Return a table with all its columns, or None where it was never written or holds no row."""
        if name not in self._tables:
            frame = self.folder.read(name) if self.folder.has(name) else None
            if frame is not None:
                lacking = [column for column in TABLES[name].columns if column not in frame.columns]
                frame = frame.assign(**dict.fromkeys(lacking)) if lacking else frame
            self._tables[name] = None if frame is None or frame.empty else frame
        return self._tables[name]

    def why_absent(self, *names: str) -> str:
        """Return a sentence that says which table is missing, and which stage writes it."""
        for name in names:
            if name in SINCE and not self.folder.has(name) and any(map(self.folder.has, TABLES_OF[STAGE_OF[name]])):
                return f"Not in this run: its stage “{STAGE_OF[name]}” was done before there was a table {name}. Run it again."
            if not self.folder.has(name):
                return f"Not there yet: the stage “{STAGE_OF[name]}” has not been run (it writes the table {name})."
            if self.table(name) is None:
                return f"Nothing to show: the table {name} is empty."
        return "Nothing to show."

    def state(self, stage: str) -> Literal["current", "stale", "unfinished"]:
        """Return whether a stage's tables belong to the present settings; current where run.json knows of no stage."""
        stages = self.record.get("stages")
        if not stages:
            return "current"
        if not stages.get(stage):
            return "unfinished"
        return "stale" if stages[stage].get("stale") else "current"

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.settings.title or self.record.get("name") or self.folder.path.resolve().name)

    def setting(self, section: str, key: str, default: Any = None) -> Any:
        """Return one effective setting of the run, or `default` where the record has none."""
        found = (self.record.get("settings") or {}).get(section)
        value = found.get(key) if isinstance(found, dict) else None
        return default if value is None else value

    @cached_property
    def label_names(self) -> list[str]:
        """The labels in schema order; where the record has none, those found, by name."""
        if self.schema is not None:
            return list(self.schema.names)
        texts, votes = self.table("texts"), self.table("votes")
        found: set[str] = set()
        for frame, column in ((texts, "gold"), (votes, "label"), (self.table("labels"), "label")):
            if frame is not None:
                found |= set(frame[column].dropna().astype(str))
        return sorted(found)

    @cached_property
    def schema(self) -> LabelSchema | None:
        """The run's labels, or None where run.json has none."""
        records = self.record.get("labels")
        return LabelSchema.from_records(records) if records else None

    @cached_property
    def gold(self) -> pd.Series | None:
        """text_id → gold of every text that has one, or None where no text has."""
        texts = self.table("texts")
        if texts is None:
            return None
        gold = texts.set_index("text_id")["gold"].dropna().astype(str)
        return gold if len(gold) else None

    @cached_property
    def open_ids(self) -> pd.Index | None:
        """The texts of train and dev that no fold tests on, or None where nothing is known of folds.

        A text in no part is not among them: the leakage guard removed it, and its gold is that of its test twin.
        """
        folds = self.table("folds")
        if folds is None:
            return None
        closed = folds.loc[folds["part"] == "test", "text_id"]
        ids = folds.loc[folds["part"].isin(["train", "dev"]), "text_id"]
        return ids[~ids.isin(closed)].drop_duplicates().pipe(_index)

    @cached_property
    def voted_ids(self) -> pd.Index | None:
        """The texts that anyone was asked about, or None where there is no table of votes."""
        votes = self.table("votes")
        return None if votes is None else _index(votes["text_id"].drop_duplicates())

    @cached_property
    def open_gold(self) -> pd.Series | None:
        """Gold that labels may be judged by: of voted texts, of train and dev where there are folds; None without."""
        gold = self.gold
        for ids in (self.open_ids, self.voted_ids):
            if gold is not None and ids is not None:
                gold = gold[gold.index.isin(ids)]
        return gold if gold is not None and len(gold) else None

    @property
    def open_words(self) -> str:
        """How to call the texts of `open_gold`."""
        if self.open_ids is None:
            return "texts with votes and gold"
        return "training and dev texts with votes and gold (test gold is kept for the verdict)"

    @cached_property
    def voted_labels(self) -> pd.DataFrame | None:
        """The consensus of the texts that anyone was asked about."""
        labels = self.consensus
        if labels is None or self.voted_ids is None:
            return labels
        return labels[labels["text_id"].isin(self.voted_ids)]

    @cached_property
    def consensus(self) -> pd.DataFrame | None:
        """The labels of the method in use, one row per text."""
        labels = self.table("labels")
        if labels is None or labels["method"].nunique() == 1:
            return labels
        used = self.setting("consensus", "method")
        return labels[labels["method"] == (used if used in set(labels["method"]) else min(labels["method"]))]

    @property
    def how(self) -> Mapping[str, Any]:
        """What the consensus stage noted of its method: method, converged, iterations, note; empty in old runs."""
        noted = self.record.get("consensus")
        return noted if isinstance(noted, Mapping) else {}

    @cached_property
    def method(self) -> str:
        """The name of the method that made the consensus; '' without labels."""
        labels = self.consensus
        return "" if labels is None else str(labels["method"].iloc[0])

    @cached_property
    def posterior(self) -> bool:
        """Whether the method estimates posteriors: they, not vote shares, are then in entropy, margin and shares."""
        return self.consensus is not None and bool(self.consensus["posterior"].notna().any())

    @cached_property
    def students(self) -> list[str]:
        """Students with any result, compared or not, as the settings order them; others by name, variants last."""
        found: set[str] = set()
        for name in ("comparison", "scores", "trainings", "predictions"):
            if (frame := self.table(name)) is not None:
                found |= set(frame["student"].unique())
        listed = [s for s in self.setting("finetune", "students", []) if s in found]
        others = sorted(found - set(listed))
        return sorted(listed + others, key=lambda student: is_variation(student, found))

    @cached_property
    def is_own_predictions(self) -> bool:
        """Whether there are predictions of one's own and their comparison, and no run made them."""
        compared = self.folder.has("predictions") or self.folder.has("comparison")
        labelled = any(map(self.folder.has, ("texts", "votes", "labels")))
        return self.record.get("kind") == "predictions" or (compared and not labelled)

    @cached_property
    def resampling(self) -> frozenset[str]:
        """The students whose seeds draw bootstrap resamples: their training rows hold some text several times.

        Without the table of arms, those whose comparison says so.
        """
        arms, comparison = self.table("arms"), self.table("comparison")
        if arms is None:
            rows = None if comparison is None else comparison[comparison["replication"] == "bootstrap"]
            return frozenset() if rows is None else frozenset(rows["student"])
        rows = arms[(arms["part"] == "train") & ~arms["arm"].isin(REPEATING) & ~arms["arm"].str.startswith("floor")]
        found: set[str] = set()
        for _, first in rows.drop_duplicates("student").iterrows():
            run = rows[
                (rows[["student", "arm", "fold", "seed"]] == first[["student", "arm", "fold", "seed"]]).all(axis=1)
            ]
            if run["text_id"].duplicated().any():
                found |= set(self.students) if first["student"] == "all" else {str(first["student"])}
        return frozenset(found)

    @cached_property
    def main_students(self) -> list[str]:
        """The students without those that are a declared variation of another."""
        return [student for student in self.students if self.variation(student) is None]

    def variation(self, student: str) -> tuple[str, str] | None:
        """Return (student, what was varied) of a student under a declared variation, `frozen (gold dev)`; else None."""
        base, _, varied = student.partition(" (")
        return (base, varied.removesuffix(")")) if is_variation(student, self.students) else None

    def same_texts(self, student: str, arm: str, control: str) -> bool:
        """Return whether two arms train on the same texts in every run; by their names where `arms` does not tell."""
        table = self.table("arms")
        if table is not None:
            table = table[(table["part"] == "train") & table["student"].isin([student, "all"])]
            rows = table.groupby("arm")[["fold", "seed", "text_id"]]
            held = [set(map(tuple, rows.get_group(name).to_numpy())) for name in (arm, control) if name in rows.groups]
            if len(held) == 2:
                return held[0] == held[1]
        return {arm, control} in SAME_TEXTS

    @cached_property
    def metric(self) -> str:
        """The declared metric, else the first that was computed."""
        declared = str(self.setting("compare", "metric", "macro_f1"))
        frame = self.table("comparison") if self.table("comparison") is not None else self.table("scores")
        if frame is None or declared in set(frame["metric"]):
            return declared
        return str(min(frame["metric"]))

    def contrasts(
        self,
        student: str | None = None,
        metric: str | None = None,
        attempt: str = "as_run",
        scope: str | None = "all",
    ) -> pd.DataFrame | None:
        """Return rows of the comparison, the primary contrast first; None where there are none.

        `scope` None: the groups of test texts. `is_primary` holds for one contrast in every metric and attempt.
        """
        comparison = self.table("comparison")
        if comparison is None:
            return None
        first = comparison["is_primary"].fillna(False).astype(bool)
        primary = set(zip(comparison.loc[first, "student"], comparison.loc[first, "contrast"]))
        chosen = (comparison["attempt"] == attempt) & (comparison["metric"] == (metric or self.metric))
        chosen &= comparison["scope"] != "all" if scope is None else comparison["scope"] == scope
        if student is not None:
            chosen &= comparison["student"] == student
        frame = comparison[chosen]
        effects = {name: k for k, name in enumerate(CONTRAST_ORDER)}
        order = {
            "_student": frame["student"].map({name: k for k, name in enumerate(self.students)}),
            "_later": [pair not in primary for pair in zip(frame["student"], frame["contrast"])],
            "_effect": frame["effect"].map(effects).fillna(len(effects)),
        }
        frame = frame.assign(**order).sort_values([*order, "contrast", "scope"])
        frame = frame.assign(is_primary=~frame["_later"].astype(bool)).drop(columns=list(order))
        return None if frame.empty else frame

    def primary(self, student: str, attempt: str = "as_run") -> pd.Series | None:
        """Return the primary contrast of a student, or None."""
        frame = self.contrasts(student, attempt=attempt)
        frame = None if frame is None else frame[frame["is_primary"]]
        return None if frame is None or frame.empty else frame.iloc[0]

    @property
    def no_gold(self) -> str:
        """Why the labels cannot be held against gold."""
        if self.gold is None:
            return "there is no gold"
        if self._all_tested:
            return "every text with gold is a test text of some fold; test gold is kept for the verdict"
        return f"no voted {self._parts}text has gold"

    @property
    def _all_tested(self) -> bool:
        """Whether there are several folds, and each voted text with gold in any part is tested on in one of them."""
        folds = self.table("folds")
        if folds is None or self.gold is None or folds["fold"].nunique() < 2:
            return False
        held = folds[folds["text_id"].isin(self.gold.index)]
        if self.voted_ids is not None:
            held = held[held["text_id"].isin(self.voted_ids)]
        return len(held) > 0 and bool(held["text_id"].isin(held.loc[held["part"] == "test", "text_id"]).all())

    @property
    def _parts(self) -> str:
        return "" if self.open_ids is None else "train or dev "


SAME_TEXTS = ({"consensus", "gold-aligned"}, {"consensus-kept", "gold-kept"})
"""Arms that differ in their labels only."""

REPEATING = ("perspectivist", "consensus-repeated")
"""Arms whose texts have several rows in every run."""

CONTRAST_ORDER = (
    "label effect", "total effect", "label effect on easy texts", "label and filtering effect", "coverage effect",
    "filtering effect", "cost of the error's structure", "sanity",
)  # fmt: skip
"""Effects in the order that a reader wants them; others follow by name."""

ARM_ORDER = (
    "gold", "gold-aligned", "consensus", "consensus-kept", "consensus-random", "gold-kept", "gold-noised",
    "consensus-soft", "perspectivist", "consensus-repeated", "consensus-selected", "consensus-selected-random",
    "permuted", "floor",
)  # fmt: skip


def is_variation(student: str, students: Collection[str]) -> bool:
    """Return whether a student is another one of these under a declared variation: `frozen (gold dev)`."""
    base, opened, _ = student.partition(" (")
    return bool(opened) and base in students


def in_arm_order(arms: Any) -> list[str]:
    """Return arm names, the known ones first and in the order of the design."""
    found = {str(arm) for arm in arms}
    known = [arm for arm in ARM_ORDER if arm in found]
    floors = [arm for arm in sorted(found) if arm.startswith("floor")]
    others = sorted(found - set(known) - set(floors), key=lambda arm: [*map(_as_number, re.split(r"(\d+)", arm))])
    return [arm for arm in known if arm not in floors] + others + floors


def _as_number(part: str) -> tuple[int, str]:
    """Numbers inside names sort by size: gold@500 before gold@1000."""
    return (int(part), "") if part.isdecimal() else (-1, part)


def _index(values: pd.Series) -> pd.Index:
    import pandas as pd

    return pd.Index(values)
