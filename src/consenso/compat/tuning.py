"""Fine-tuning one encoder on one training set, with warnings about leaks, collapse and unlike training sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from consenso import encoders
from consenso.compat.rows import codes_of, column_of, features, length, names_of
from consenso.compat.trainer import MetricsComputer, ModelFactory, TrainerBuilder, logits_of, made
from consenso.compat.warned import warn
from consenso.errors import ConfigError
from consenso.finetune.collapse import find_collapse
from consenso.finetune.metrics import softmax
from consenso.finetune.students import encoder as student
from consenso.labels import LabelSchema
from consenso.text import clean, normalise, text_hash

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


_FITTED: list[tuple[int, frozenset[str]]] = []
"""The training sets of this session: number of rows, hashes of the texts; the latest last."""


@dataclass
class _Recorder:
    """Metrics, and the logits they were computed from: one entry per evaluation."""

    compute: Any
    seen: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def __call__(self, eval_pred: Any) -> Any:
        self.seen.append(logits_of(eval_pred))
        return self.compute(eval_pred)


class SupervisedFineTuner:
    """Fine-tunes one encoder on one training set."""

    def __init__(  # noqa: PLR0917 - the order notebooks know
        self,
        model_name: str,
        training_args: Any,
        label_schema: LabelSchema,
        tokenizer: Any,
        model_factory: Any = ModelFactory,
        trainer_builder: Any = TrainerBuilder,
        metrics_computer: Any = MetricsComputer,
    ) -> None:
        self.model_name, self.training_args, self.label_schema = model_name, training_args, label_schema
        self.tokenizer = made(tokenizer, model_name)
        self.model_factory = made(model_factory, model_name, label_schema)
        self.metrics_computer = made(metrics_computer)
        self.trainer_builder = made(trainer_builder, training_args, self.metrics_computer)
        self.trainer: Any = None
        """The transformers Trainer of the last `fit`; `trainer.model` is the trained model."""

    def fit(self, train_ds: Any, eval_ds: Any = None) -> None:
        """Train a fresh model on the columns text and label (ids or names); `eval_ds` chooses the best state.

        The head is drawn after seeding with `training_args.seed`: equal data and settings give equal models. Warns if
        evaluation texts stand among the training texts, if the training texts are not those fitted before in this
        session, and if the run collapsed.
        """
        args = self.training_args
        if eval_ds is None and args.eval_strategy != "no":
            raise ConfigError('fit got no eval_ds, but eval_strategy wants one; give it, or set eval_strategy="no"')
        train, dev = self._encoded(train_ds), None if eval_ds is None else self._encoded(eval_ds)
        self._texts, self._codes = _texts(train), codes_of(train, self.label_schema, "training set")
        if dev is not None:
            _warn_of_leaks(self._texts, _texts(dev), "evaluation")
        _warn_of_other_texts(self._texts)
        trainer = self.trainer = self.trainer_builder.build(self._fresh_model(), train, dev)
        self._recorder = _Recorder(trainer.compute_metrics or self.metrics_computer)
        trainer.compute_metrics, self._judged = self._recorder, False
        if trainer.processing_class is None:  # so that a checkpoint is a whole model folder
            trainer.processing_class = getattr(self.tokenizer, "tokenizer", None)
        trainer.train()
        self._log = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
        if self._log:
            self._judge(self._best() if args.load_best_model_at_end else -1)
        self._recorder.seen.clear()

    def evaluate(self, test_ds: Any) -> dict[str, float]:
        """Return eval_loss, eval_accuracy, eval_f1_macro, eval_runtime (s), eval_…_per_second and epoch."""
        trainer, test = self._fitted(), self._encoded(test_ds)
        _warn_of_leaks(self._texts, _texts(test), "test")
        found = trainer.evaluate(sorted(features(test, self.label_schema, "test set"), key=length))
        if not self._judged:
            self._judge(-1)
        self._recorder.seen.clear()
        return {name: value for name, value in found.items() if name != "eval_model_preparation_time"}

    def best_val_metrics(self) -> dict[str, float]:
        """Return the log entry of the best evaluation during `fit` (by metric_for_best_model, else macro-F1)."""
        self._fitted()
        if not self._log:
            raise ConfigError('fit made no evaluation; give it an eval_ds, and set eval_strategy="epoch"')
        return dict(self._log[self._best()])

    def predict(self, dataset: Any) -> pd.DataFrame:
        """Return text_id (if given), label (your id), label_description, prob_0 … prob_{K−1}; rows as in `dataset`."""
        import numpy as np
        import pandas as pd

        trainer, schema, names = self._fitted(), self.label_schema, names_of(dataset)
        rows = [{"input_ids": ids} for ids in column_of(self._encoded(dataset), "input_ids", "dataset")]
        order = sorted(range(len(rows)), key=lambda row: length(rows[row]))
        shares = np.zeros((len(rows), len(schema)))
        shares[order] = softmax(logits_of(trainer.predict([rows[row] for row in order]))[0])
        found = [schema.names[code] for code in shares.argmax(axis=1)]
        frame = pd.DataFrame({"label": [schema.label2id[name] for name in found], "label_description": found})
        if "text_id" in names:
            frame.insert(0, "text_id", column_of(dataset, "text_id", "dataset"))
        return frame.assign(**{f"prob_{k}": shares[:, k] for k in range(len(schema))})

    def _encoded(self, dataset: Any) -> Any:
        return dataset if "input_ids" in names_of(dataset) else self.tokenizer.encode(dataset)

    def _fresh_model(self) -> Any:
        torch = encoders.import_torch()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(student.stream(self.training_args.seed, student.HEAD))
            return self.model_factory.create()

    def _fitted(self) -> Any:
        if self.trainer is None:
            raise ConfigError("nothing has been trained yet; call fit first")
        return self.trainer

    def _best(self) -> int:
        """Which evaluation is the best; the first of equals, as in transformers."""
        args, entries = self.training_args, self._log
        metric = f"eval_{(args.metric_for_best_model or 'f1_macro').removeprefix('eval_')}"
        metric = metric if metric in entries[0] else "eval_loss"
        larger = not metric.endswith("loss") if args.greater_is_better is None else args.greater_is_better
        return max(range(len(entries)), key=lambda i: entries[i][metric] if larger else -entries[i][metric])

    def _judge(self, evaluation: int) -> None:
        import numpy as np

        self._judged = True
        if not self._recorder.seen:  # prediction_loss_only
            return
        logits, codes = self._recorder.seen[evaluation]
        if reason := find_collapse(logits, codes, np.array(self._codes), seed=self.training_args.seed):
            warn(f"this run collapsed: {reason}; its scores say nothing about its labels. Try a lower learning rate")


def _texts(dataset: Any) -> list[str]:
    """The texts, or (of a dataset that kept its tokens only) the tokens in their place."""
    if "text" in names_of(dataset):
        return [str(text) for text in column_of(dataset, "text", "dataset")]
    return [" ".join(map(str, ids)) for ids in column_of(dataset, "input_ids", "dataset")]


def _warn_of_leaks(train: Sequence[str], asked: Sequence[str], which: str) -> None:
    exact, loose = set(map(clean, train)), set(map(normalise, train)) - {""}
    same = [text for text in asked if clean(text) in exact]
    alike = [text for text in asked if clean(text) not in exact and normalise(text) in loose]
    if found := same + alike:
        warn(
            f"{len(found)} of {len(asked)} {which} texts stand among the training texts ({len(same)} exactly, "
            f"{len(alike)} but for case or punctuation), for example {found[0].strip()[:60]!r}: "
            "the scores are too good. Remove them from the training texts"
        )


def _warn_of_other_texts(train: Sequence[str]) -> None:
    """Remember this training set; warn if it is new and not the first of the session."""
    this = (len(train), frozenset(map(text_hash, train)))
    if this in _FITTED:
        _FITTED.remove(this)
    elif _FITTED:
        rows, texts = _FITTED[-1]
        warn(
            f"this training set has {this[0]} rows, the one fitted before had {rows}, and {len(this[1] & texts)} texts "
            "are common: a difference between the two models mixes labels with texts. Train both on the same texts "
            "(DatasetAligner); folds of one arm may differ, the arms of one fold may not"
        )
    _FITTED.append(this)
