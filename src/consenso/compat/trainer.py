"""Model, metrics and a transformers Trainer with the batches of the student `encoder`."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consenso import encoders
from consenso.compat.arguments import transformers_or_extra
from consenso.compat.rows import features, length, positions
from consenso.finetune.batches import training_batches
from consenso.finetune.metrics import macro_f1
from consenso.finetune.students import encoder as student
from consenso.labels import LabelSchema

if TYPE_CHECKING:
    import numpy as np


class ModelFactory:
    """Makes an encoder with a fresh classification head."""

    def __init__(self, model_name: str, label_schema: LabelSchema) -> None:
        self.model_name, self.label_schema = model_name, label_schema

    def create(self) -> Any:
        """Return a transformers model; its head is drawn from torch's random state (seed first)."""
        model = encoders.load_classifier(self.model_name, self.label_schema)
        if getattr(model.config, "pad_token_id", None) is None:
            model.config.pad_token_id = encoders.load_tokenizer(self.model_name).pad_token_id
        model.label_schema = self.label_schema
        return model


class MetricsComputer:
    """Accuracy and macro-F1, as the student `encoder` computes them."""

    def __call__(self, eval_pred: Any) -> dict[str, float]:
        """Return {"accuracy", "f1_macro"} of an EvalPrediction, or of a pair (logits, class positions)."""
        logits, codes = logits_of(eval_pred)
        predicted = logits.argmax(axis=-1)
        return {"accuracy": float((predicted == codes).mean()), "f1_macro": macro_f1(codes, predicted)}


def logits_of(eval_pred: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and class positions of an EvalPrediction, or of a pair of them."""
    import numpy as np

    logits, codes = tuple(eval_pred)[:2]
    return np.asarray(logits[0] if isinstance(logits, tuple) else logits), np.asarray(codes)


class TrainerBuilder:
    """Makes a transformers Trainer whose batches hold texts of similar length."""

    def __init__(self, training_args: Any, metrics_computer: Any) -> None:
        self.training_args, self.metrics_computer = training_args, made(metrics_computer)

    def build(self, model: Any, train_ds: Any, eval_ds: Any = None) -> Any:
        """Return a `transformers.Trainer` for encoded datasets (input_ids and label: what `HFTokenizer` leaves).

        Training batches are those of the student `encoder`, each padded to its longest text; `eval_ds` is sorted by
        length. With train_sampling_strategy "sequential" or "batch_rebalance", and with several processes, the
        Trainer's own batches are kept.
        """
        args, schema = self.training_args, getattr(model, "label_schema", None) or LabelSchema(model.config.id2label)
        if args.dataloader_pin_memory and args.device.type != "cuda":  # where it cannot pin, torch warns in every epoch
            args = copy.copy(args)
            args.dataloader_pin_memory = False
        return _trainer_class()(
            model=model,
            args=args,
            data_collator=_Collator(getattr(model.config, "pad_token_id", None) or 0, schema),
            train_dataset=features(train_ds, schema, "training set"),
            eval_dataset=None if eval_ds is None else sorted(features(eval_ds, schema, "evaluation set"), key=length),
            compute_metrics=self.metrics_computer,
        )


def made(thing: Any, *arguments: Any) -> Any:
    """An instance: callers pass classes or instances."""
    return thing(*arguments) if isinstance(thing, type) else thing


@dataclass(frozen=True)
class _Collator:
    """Rows → tensors, padded to the longest row of the batch."""

    pad_id: int
    schema: LabelSchema

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        torch = encoders.import_torch()
        tokens, mask = encoders.pad([row["input_ids"] for row in rows], self.pad_id)
        batch = {"input_ids": torch.from_numpy(tokens), "attention_mask": torch.from_numpy(mask)}
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([int(row["labels"]) for row in rows])
        elif "label" in rows[0]:
            batch["labels"] = torch.tensor(positions([row["label"] for row in rows], self.schema, "dataset"))
        return batch


class _LengthBatches:
    """The batches of one pass after another: those of the student `encoder` under the same seed."""

    def __init__(self, lengths: np.ndarray, batch_size: int, drop_last: bool, seed: int) -> None:
        self.lengths, self.batch_size, self.drop_last, self.epoch = lengths, batch_size, drop_last, 0
        self.seed = student.stream(seed, student.ORDER)

    def set_epoch(self, epoch: float) -> None:
        self.epoch = int(epoch)

    def __len__(self) -> int:
        full, rest = divmod(len(self.lengths), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        steps = -(-len(self.lengths) // self.batch_size)
        batches = training_batches(self.lengths, self.batch_size, steps * (self.epoch + 1), self.seed)
        for step, batch in enumerate(batches):
            if step >= steps * self.epoch and not (self.drop_last and len(batch) < self.batch_size):
                yield batch.tolist()


@functools.cache
def _trainer_class() -> Any:
    import numpy as np
    from torch.utils.data import DataLoader, SequentialSampler

    class LengthAwareTrainer(transformers_or_extra().Trainer):  # type: ignore[misc]
        """A transformers Trainer whose training batches hold texts of similar length."""

        def get_train_dataloader(self) -> Any:
            args = self.args
            if args.world_size > 1 or args.train_sampling_strategy in {"sequential", "batch_rebalance"}:
                return super().get_train_dataloader()
            lengths, seed = np.array([*map(length, self.train_dataset)]), args.data_seed
            batches = _LengthBatches(
                lengths, self._train_batch_size, args.dataloader_drop_last, args.seed if seed is None else seed
            )
            loader = DataLoader(
                self.train_dataset,
                batch_sampler=batches,
                collate_fn=self.data_collator,
                num_workers=args.dataloader_num_workers,
                pin_memory=args.dataloader_pin_memory,
                persistent_workers=args.dataloader_persistent_workers,
            )
            return self.accelerator.prepare(loader)

        def _get_eval_sampler(self, eval_dataset: Any) -> Any:
            # transformers' group_by_length would let `predict` answer in another order than that of the rows.
            alone = self.args.world_size <= 1
            return SequentialSampler(eval_dataset) if alone else super()._get_eval_sampler(eval_dataset)

    return LengthAwareTrainer
