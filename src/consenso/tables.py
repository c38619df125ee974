"""What each table must look like: columns, kinds, key, and which columns are volatile.

A verb's first line is `check(frame, TABLE)`; below that line the frame is trusted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from consenso.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["text", "integer", "number", "flag", "list", "any"]


@dataclass(frozen=True)
class Column:
    """One column: what kind of value it holds and what stands in when a frame lacks it."""

    kind: Kind
    """text, integer, number (float), flag (true or false), list (of floats, in schema order), any."""
    required: bool = True
    """False: `check` adds the column with `default` where a frame lacks it."""
    default: Any = None
    """The value of an absent optional column."""
    volatile: bool = False
    """Times, rates and costs: excluded from every claim that two runs are identical."""
    nullable: bool = True
    """False: a null in this column is an error."""
    values: tuple[str, ...] = ()
    """The allowed values of a text column; empty: any."""


@dataclass(frozen=True)
class Table:
    """One table of the run folder."""

    name: str
    """The file is tables/<name>.parquet."""
    key: tuple[str, ...]
    """The columns that name a row; unique together, never null. Rows are stored in the order of the key."""
    columns: dict[str, Column] = field(default_factory=dict)
    """All columns, the key first."""
    more: bool = False
    """True: further columns are kept (the source's own columns, for example)."""

    @property
    def volatile(self) -> tuple[str, ...]:
        """Names of the columns that differ between identical runs."""
        return tuple(name for name, column in self.columns.items() if column.volatile)


def _key(kind: Kind = "text", default: Any = None, values: tuple[str, ...] = ()) -> Column:
    return Column(kind, required=default is None, default=default, nullable=False, values=values)


def _maybe(kind: Kind, default: Any = None, values: tuple[str, ...] = ()) -> Column:
    return Column(kind, required=False, default=default, values=values)


def _volatile(kind: Kind = "number") -> Column:
    return Column(kind, required=False, volatile=True)


SPLITS = ("train", "dev", "test", "pool")
PARTS = ("train", "dev", "test")
VOTE_STATUSES = ("ok", "abstained", "unparsable", "invalid_label", "refused", "truncated", "failed", "settled")
CONFIDENCE_KINDS = ("token probabilities", "label probabilities", "softmax of cosines", "as imported")
LABEL_STATUSES = ("decided", "tied", "below_threshold", "no_votes")
OUTCOMES = ("passed", "failed", "warned", "not_checked")

TEXTS = Table(
    "texts",
    ("text_id",),
    {
        "text_id": _key("any"),
        "text": Column("text", nullable=False),
        "gold": _maybe("text"),
        "split": _maybe("text", values=SPLITS),
        "group": _maybe("text"),
        "copies": _maybe("integer", 1),
    },
    more=True,
)
DUPLICATES = Table(
    "duplicates",
    ("row",),
    {
        "row": _key("integer"),  # position in the source, from 0
        "text_id": Column("any"),
        "kept": Column("flag"),  # False: collapsed into the row with the same text_id
        "level": Column("text", values=("exact", "normalised")),
        "duplicate_group": Column("text"),
        "gold": Column("text"),
        "conflicting_gold": Column("flag"),
    },
)
FOLDS = Table(
    "folds",
    ("fold", "text_id"),
    {"fold": _key("integer"), "text_id": _key("any"), "part": Column("text", nullable=False, values=PARTS)},
)
LEAKS = Table(
    "leaks",
    ("fold", "text_id", "other_id"),
    {
        "fold": _key("integer"),
        "text_id": _key("any"),  # the removed text
        "part": Column("text", values=PARTS),  # where it stood
        "other_id": _key("any"),  # the text it repeats, which stays
        "other_part": Column("text", values=PARTS),
        "level": Column("text", values=("exact", "normalised", "near", "group")),
        "similarity": Column("number"),
        "same_gold": Column("any"),
    },
)
ANNOTATORS = Table(
    "annotators",
    ("annotator",),
    {
        "annotator": _key(),
        "kind": Column("text", values=("llm", "model", "human", "imported")),
        "model": _maybe("text"),
        "family": _maybe("text"),
        "variant_of": _maybe("text"),
        "repetitions": _maybe("integer", 1),
        "confidence_kind": _maybe("text", values=CONFIDENCE_KINDS),
        "digest": _maybe("text"),  # of everything that can change an answer; names it in the vote log
        "settings": _maybe("text"),  # JSON
    },
)
VOTES = Table(
    "votes",
    ("text_id", "annotator", "repetition"),
    {
        "text_id": _key("any"),
        "annotator": _key(),
        "repetition": _key("integer", 0),
        "label": Column("text"),
        "status": _maybe("text", "ok", VOTE_STATUSES),
        "confidence": _maybe("number"),
        "reply": _maybe("text"),
        "tokens_in": _maybe("integer"),
        "tokens_out": _maybe("integer"),
        "cost": _maybe("number"),
        "latency_s": _volatile(),
    },
)
VARIANT_VOTES = Table("variant_votes", VOTES.key, VOTES.columns)
"""Votes of variants, apart from the votes: the same model asked otherwise is no further annotator."""
VARIANTS = Table(
    "variants",
    ("annotator", "variant"),
    {
        "annotator": _key(),
        "variant": _key(),
        "n": Column("integer"),  # texts with a label from both
        "flipped": Column("integer"),  # of these, texts with another label
        "flip_rate": Column("number"),
        "low": Column("number"),  # Wilson, 95 %
        "high": Column("number"),
        "kappa": Column("number"),
        "invalid_rate": Column("number"),
        "largest_shift": Column("number"),  # of one label's share, in absolute terms
        "shifted_label": _maybe("text"),
        "n_consensus": Column("integer"),  # texts with a majority before and after
        "consensus_flipped": Column("integer"),  # of these, with another majority once the variant stands in
        "consensus_flip_rate": Column("number"),
    },
)
CANDIDATES = Table(
    "candidates",
    ("text_id",),
    {"text_id": _key("any"), "offered": Column("text", nullable=False)},  # JSON list of label names, in schema order
)
RECALL = Table(
    "recall",
    ("k",),
    {
        "k": _key("integer"),
        "recall": Column("number"),  # share of texts whose gold is among the k candidates
        "recall_macro": Column("number"),  # mean over classes
        "n": Column("integer"),
    },
)
GOLD_USED = Table(
    "gold_used",
    ("text_id",),
    {"text_id": _key("any"), "purpose": Column("text", nullable=False, values=("examples", "candidates"))},
)
CONSENSUS_GOLD = Table(
    "consensus_gold",
    ("text_id",),
    {"text_id": _key("any"), "purpose": Column("text", nullable=False, values=("consensus",))},
)
"""Training texts whose gold consensus learned from; they train no aligned arm."""
RELIABILITY = Table(
    "reliability",
    ("annotator",),
    {
        "annotator": _key(),
        "n": Column("integer"),
        "accuracy": Column("number"),  # estimated from the votes alone
        "low": Column("number"),
        "high": Column("number"),
        "weakest": Column("text"),  # the true label that it recognises least
        "weakest_accuracy": Column("number"),
        "taken_for": Column("text"),
        "reason": _maybe("text"),  # why there is no estimate
    },
)
PANELS = Table(
    "panels",
    ("size",),
    {
        "size": _key("integer"),
        "annotators": Column("text", nullable=False),  # joined by " + "
        "cost": _maybe("number"),  # per text, in the currency of the votes
        "accuracy": Column("number"),  # against gold; without gold: agreement with the consensus of all
        "low": Column("number"),
        "high": Column("number"),
        "loss": Column("number"),  # against all annotators
        "loss_high": Column("number"),
        "is_chosen": _maybe("flag", False),  # the smallest panel that loses less than the tolerance
    },
)
MISSED = Table(
    "missed",
    ("annotator",),
    {
        "annotator": _key(),
        "accuracy_alone": Column("number"),
        "agreement_with_others": Column("number"),
        "added": Column("number"),  # what is lost without it
        "low": Column("number"),
        "high": Column("number"),
    },
)
GOLD_NOISE = Table(
    "gold_noise",
    ("text_id",),
    {
        "text_id": _key("any"),
        "rank": Column("integer"),
        "gold": Column("text"),
        "label": Column("text"),
        "score": Column("number"),
        "margin": Column("number"),
        "self_confidence": Column("number"),
        "n_votes": Column("number"),
        "confident": _maybe("flag", False),
    },
)
GOLD_BOUND = Table(
    "gold_bound",
    ("gold",),
    {
        "gold": _key(),
        "n": Column("integer"),
        "unanimous": Column("integer"),  # texts whose annotators all give one and the same other label
        "share": Column("number"),
        "low": Column("number"),
        "high": Column("number"),
        "expected_independent": Column("number"),
        "expected_together": Column("number"),
        "n_confident": Column("integer"),
        "share_confident": Column("number"),
    },
)
CONFIDENCE = Table(
    "confidence",
    ("annotator",),
    {
        "annotator": _key(),
        "n": Column("integer"),
        "accuracy": Column("number"),
        "mean_confidence": Column("number"),
        "ece": Column("number"),
        "ece_calibrated": Column("number"),
        "brier": Column("number"),
        "brier_calibrated": Column("number"),
    },
)
LABELS = Table(
    "labels",
    ("text_id", "method"),
    {
        "text_id": _key("any"),
        "method": _key(default="majority"),
        "label": Column("text"),
        "status": _maybe("text", "decided", LABEL_STATUSES),
        "score": _maybe("number"),
        "posterior": _maybe("number"),
        "entropy_bits": _maybe("number"),
        "margin": _maybe("number"),
        "level": _maybe("text", values=("high", "medium", "low")),
        "n_votes": _maybe("number"),
        "shares": _maybe("list"),
        "is_problematic": _maybe("flag", False),
    },
)
AGREEMENT = Table(
    "agreement",
    ("measure", "scope"),
    {
        "measure": _key(),
        "scope": _key(),
        "value": Column("number"),
        "low": Column("number"),
        "high": Column("number"),
        "n": Column("integer"),
    },
)
FINAL_LABELS = Table(
    "final_labels",
    ("text_id",),
    {
        "text_id": _key("any"),
        "label": Column("text"),
        "source": Column("text", values=("gold", "consensus", "human")),
        "is_problematic": _maybe("flag", False),
    },
)
ARMS = Table(
    "arms",
    ("student", "arm", "fold", "seed", "part", "row"),
    {
        "student": _key(default="all"),  # students may differ in resampling; "all": the same rows for each
        "arm": _key(),
        "fold": _key("integer"),
        "seed": _key("integer"),
        "part": _key(values=("train", "dev")),
        "row": _key("integer"),  # a text drawn twice in a resample has two rows
        "text_id": Column("any", nullable=False),
        "target": Column("text", nullable=False),
        "source": Column(
            "text", nullable=False, values=("gold", "consensus", "human", "permuted", "noised", "vote", "panel")
        ),
        "shares": _maybe("list"),  # soft targets; `target` is then the label with the largest share
    },
)
_RUN = {
    "student": _key(),
    "arm": _key(),
    "fold": _key("integer"),
    "seed": _key("integer"),
    "attempt": _key(values=("as_run", "rescue")),
}
TRAININGS = Table(
    "trainings",
    tuple(_RUN),
    {
        **_RUN,
        "status": Column("text", values=("ok", "collapsed", "failed")),
        "reason": _maybe("text"),
        "best_step": _maybe("integer"),
        "steps": _maybe("integer"),
        "train_rows": _maybe("integer"),
        "train_loss": _maybe("number"),
        "dev_loss": _maybe("number"),
        "dev_accuracy": _maybe("number"),
        "dev_macro_f1": _maybe("number"),
        "C": _maybe("number"),  # inverse regularisation that dev chose; linear heads only
        "real_tokens": _maybe("integer"),
        "trained_seed": _maybe("integer"),  # the seed that was used: in a rescue it stands in for `seed`
        "flagged_at": _maybe("integer"),  # the step at which the collapse watch first found the run lost
        "stopped_at": _maybe("integer"),  # the step at which the collapse watch ended the run
        "key": _maybe("text"),
        "seconds": _volatile(),
        "samples_per_s": _volatile(),
    },
)
CURVES = Table(
    "curves",
    (*_RUN, "step"),
    {
        **_RUN,
        "step": _key("integer"),
        "epoch": _maybe("number"),
        "train_loss": _maybe("number"),
        "dev_loss": _maybe("number"),
        "dev_accuracy": _maybe("number"),
        "dev_macro_f1": _maybe("number"),
    },
)
PREDICTIONS = Table(
    "predictions",
    (*_RUN, "part", "text_id"),
    {
        "student": _key(default="given"),
        "arm": _key(),
        "fold": _key("integer", 0),
        "seed": _key("integer"),
        "attempt": _key(default="as_run", values=("as_run", "rescue")),
        "part": _key(default="test", values=("dev", "test")),
        "text_id": _key("any"),
        "predicted": Column("text", nullable=False),
        "probabilities": _maybe("list"),
    },
)
GUARDS = Table(
    "guards",
    ("guard", "scope"),
    {
        "guard": _key(),
        "scope": _key(default="all"),
        "outcome": Column("text", nullable=False, values=OUTCOMES),
        "invalidates": _maybe("flag", False),  # True: a failed outcome makes the verdict INVALID (or UNSTABLE RECIPE)
        "figures": _maybe("text"),  # JSON
        "reason": _maybe("text"),
    },
)
COMPARISON = Table(
    "comparison",
    ("dataset", "student", "contrast", "metric", "scope", "attempt"),
    {
        "dataset": _key(),
        "student": _key(),
        "contrast": _key(),
        "metric": _key(),
        "scope": _key(default="all"),
        "attempt": _key(default="as_run", values=("as_run", "rescue")),
        "arm": Column("text"),
        "control": Column("text"),
        "effect": _maybe("text"),
        "is_primary": Column("flag"),
        "arm_mean": Column("number"),
        "control_mean": Column("number"),
        "difference": Column("number"),
        "se": Column("number"),
        "df": Column("number"),
        "low": Column("number"),
        "high": Column("number"),
        "low90": Column("number"),
        "high90": Column("number"),
        "p": Column("number"),
        "p_holm": Column("number"),
        "margin": Column("number"),
        "verdict": Column("text"),
        "reason": _maybe("text"),
        "sentence": _maybe("text"),  # the answer with its numbers, in plain English
        "seeds_better": _maybe("number"),  # share of seeds with arm > control
        "S": Column("integer"),
        "n": Column("integer"),
        "sd_seed": _maybe("number"),
        "sd_item": _maybe("number"),
        "sd_error": _maybe("number"),
        "alpha": _maybe("number", 0.05),  # two-sided level of low and high; each TOST bound is at this level too
        "replication": _maybe("text", "seed", ("seed", "bootstrap", "fold", "training set")),
        "k": _maybe("integer"),  # folds behind the interval; null: seeds and items are
        "boot_low": _maybe("number"),  # crossed bootstrap over seeds and items, where it was asked for
        "boot_high": _maybe("number"),
        "detectable": _maybe("number"),  # the smallest true difference seen with power .8
    },
)
CLASS_DIFFERENCES = Table(
    "class_differences",
    ("dataset", "student", "contrast", "label", "attempt"),
    {
        "dataset": _key(),
        "student": _key(),
        "contrast": _key(),
        "label": _key(),
        "attempt": _key(default="as_run", values=("as_run", "rescue")),
        "arm_recall": Column("number"),
        "control_recall": Column("number"),
        "difference": Column("number"),
        "low": Column("number"),
        "high": Column("number"),
        "p": Column("number"),
        "p_holm": Column("number"),
        "n": Column("integer"),  # test texts with this gold label
        "S": Column("integer"),
    },
)
SEED_DIFFERENCES = Table(
    "seed_differences",
    ("dataset", "student", "contrast", "fold", "seed", "attempt"),
    {
        "dataset": _key(),
        "student": _key(),
        "contrast": _key(),
        "fold": _key("integer"),
        "seed": _key("integer"),
        "attempt": _key(default="as_run", values=("as_run", "rescue")),
        "macro_f1": Column("number"),  # arm minus control
        "accuracy": Column("number"),
        "only_arm": Column("integer"),  # test texts that only the arm gets right
        "only_control": Column("integer"),
        "p_mcnemar": Column("number"),  # description of one seed, no test of the labels
    },
)
CALIBRATION = Table(
    "calibration",
    ("student", "arm", "scope", "scaled"),
    {
        "student": _key(),
        "arm": _key(),
        "scope": _key(default="all"),  # all, or a stratum of the test texts' agreement
        "scaled": _key("flag"),  # True: after temperature scaling fitted on the arm's own dev labels
        "ece": Column("number"),
        "ece_low": Column("number"),
        "ece_high": Column("number"),
        "brier": Column("number"),
        "log_loss": Column("number"),
        "accuracy": Column("number"),
        "confidence": Column("number"),  # mean of the largest probability
        "temperature": Column("number"),  # geometric mean over runs; 1 where not scaled
        "S": Column("integer"),
        "n": Column("integer"),
    },
)
CALIBRATION_BINS = Table(
    "calibration_bins",
    ("student", "arm", "scope", "scaled", "bin"),
    {
        "student": _key(),
        "arm": _key(),
        "scope": _key(default="all"),
        "scaled": _key("flag"),
        "bin": _key("integer"),
        "confidence": Column("number"),
        "accuracy": Column("number"),
        "share": Column("number"),  # of the predictions
    },
)
LEARNING_CURVE = Table(
    "learning_curve",
    ("student", "n"),
    {
        "student": _key(),
        "n": _key("integer"),  # human labels, dev labels among them
        "arm": Column("text"),
        "mean": Column("number"),
        "low": Column("number"),
        "high": Column("number"),
        "fitted": Column("number"),  # isotonic in n
        "S": Column("integer"),
    },
)
VALUE = Table(
    "value",
    ("student", "quantity"),
    {
        "student": _key(),
        "quantity": _key(),
        "value": Column("number"),
        "low": Column("number"),
        "high": Column("number"),
        "unit": Column("text"),
        "beyond": _maybe("flag", False),  # True: value and high lie beyond what was tried ("> value")
        "sentence": Column("text"),
    },
)
FRONTIER = Table(
    "frontier",
    ("student", "arm"),
    {
        "student": _key(),
        "arm": _key(),
        "annotators": Column("text"),  # joined by " + "
        "cost": Column("number"),  # per text, in the currency of the votes
        "mean": Column("number"),
        "difference": Column("number"),  # to the control of the primary contrast
        "low": Column("number"),
        "high": Column("number"),
        "is_on_frontier": Column("flag"),  # none is both cheaper and better
    },
)
MULTIVERSE = Table(
    "multiverse",
    ("specification",),
    {
        "specification": _key("integer"),
        "student": Column("text"),
        "votes": Column("text"),  # which prompt or decoding variant gave the votes
        "aggregator": Column("text"),
        "threshold": Column("text"),
        "difference": Column("number"),
        "low": Column("number"),
        "high": Column("number"),
        "low90": Column("number"),
        "high90": Column("number"),
        "verdict": Column("text"),
        "S": Column("integer"),
        "n": Column("integer"),
        "train_texts": Column("integer"),
        "is_main": Column("flag"),  # the one that was declared
    },
)
SCORES = Table(
    "scores",
    (*_RUN, "part", "metric"),
    {**_RUN, "part": _key(values=("dev", "test")), "metric": _key(), "value": Column("number")},
)

TABLES = {
    table.name: table
    for table in (
        TEXTS, DUPLICATES, FOLDS, LEAKS, CANDIDATES, RECALL, GOLD_USED, ANNOTATORS, VOTES, VARIANT_VOTES, VARIANTS,
        CONFIDENCE, CONSENSUS_GOLD, LABELS, AGREEMENT, RELIABILITY, PANELS, MISSED, GOLD_NOISE, GOLD_BOUND, FINAL_LABELS,
        ARMS, TRAININGS,
        CURVES, PREDICTIONS, SCORES, GUARDS, COMPARISON, CLASS_DIFFERENCES, SEED_DIFFERENCES, CALIBRATION,
        CALIBRATION_BINS, LEARNING_CURVE, VALUE, FRONTIER, MULTIVERSE,
    )
}  # fmt: skip


def check(frame: pd.DataFrame, table: Table) -> pd.DataFrame:
    """Return the frame with the table's columns in order, absent optional ones filled; the input is not changed.

    Raises `DataError` for a missing column, a null or repeated key, a wrong kind or a value that is not allowed.
    Text ids keep the type they have; `with_text_ids` makes them strings where two tables are joined.
    """
    missing = [name for name, column in table.columns.items() if column.required and name not in frame.columns]
    if missing:
        raise DataError(f"{table.name}: missing column(s) {missing}; found {list(frame.columns)}")
    frame = frame.copy(deep=False)
    for name, column in table.columns.items():
        if name not in frame.columns:
            frame[name] = column.default
        _check_column(frame[name], name, column, table.name)
    names = list(table.columns)
    if table.more:
        names += [name for name in frame.columns if name not in table.columns]
    key = list(table.key)
    if (repeated := frame.duplicated(key)).any():
        example = frame.loc[repeated, key].iloc[0].to_dict()
        raise DataError(
            f"{table.name}: {int(repeated.sum())} repeated row(s), for example {example}; each {key} may stand once"
        )
    return frame[names]


def _check_column(values: pd.Series, name: str, column: Column, table: str) -> None:
    import pandas as pd

    missing = values.isna()
    if missing.any() and not column.nullable:
        raise DataError(f"{table}: {int(missing.sum())} empty value(s) in {name!r}; fill them or drop the rows")
    if column.values:
        strange = values[~missing & ~values.isin(column.values)]
        if strange.size:
            raise DataError(f"{table}: {name!r} holds {strange.iloc[0]!r}; allowed: {', '.join(column.values)}")
    if missing.all():
        return
    numeric = pd.api.types.is_numeric_dtype(values.dtype)
    if column.kind in {"integer", "number"} and not numeric and not pd.api.types.is_bool_dtype(values.dtype):
        number = pd.to_numeric(values[~missing], errors="coerce")
        if number.isna().any():
            found = values[~missing][number.isna()].iloc[0]
            raise DataError(f"{table}: {name!r} must hold numbers; found {found!r}")
    if column.kind == "text" and numeric:
        raise DataError(
            f"{table}: {name!r} must hold text; found {values.dtype} ({values[~missing].iloc[0]!r}); use .astype(str)"
        )


def with_text_ids(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Return the frame with text ids as strings, so that integer and string ids of two tables join."""
    import pandas as pd

    changed = {
        name: frame[name].map(str).astype(object) for name in columns or ("text_id",) if not _is_text(frame[name])
    }
    return frame.assign(**changed) if changed else pd.DataFrame(frame)


def _is_text(values: pd.Series) -> bool:
    return values.map(type).eq(str).all() if len(values) else True
