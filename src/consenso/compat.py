"""Door for notebooks written against the earlier system: the names they know, thin, on top of our own verbs.

Labels of a dataset are the user's ids (−1 and 1, 1 … 10 are fine) or names; class positions exist inside the model only.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import logging
import numbers
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from consenso import encoders
from consenso.errors import ConfigError, DataError, JoinError, MissingExtraError, nearest
from consenso.finetune.batches import training_batches
from consenso.finetune.collapse import find_collapse
from consenso.finetune.metrics import macro_f1, softmax
from consenso.finetune.students import encoder as student
from consenso.labels import LabelSchema
from consenso.text import clean, normalise, text_hash

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = [
    "ConsensoWarning", "DatasetAligner", "DatasetConfig", "HFTokenizer", "LabelSchema", "MetricsComputer", "ModelFactory",
    "SupervisedFineTuner", "TrainerBuilder", "TrainingArguments", "add_label_description", "load_hf_dataset_as_dataframe",
]  # fmt: skip

logger = logging.getLogger(__name__)


class ConsensoWarning(UserWarning):
    """Something in a notebook a person should act on: shown below the cell."""


def _warn(message: str) -> None:
    """Warn at the line of the notebook, however deep inside this file the reason was found."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, ConsensoWarning, stacklevel=level - 1)


# data


@dataclass
class DatasetConfig:
    """Which rows of a dataset are read."""

    split: str | None = None
    """One split."""
    combine_splits: Sequence[str] | None = None
    """Several splits, together; `split` is then ignored."""
    sample_size: int | None = None
    """At most so many texts, drawn at random."""
    random_state: int | None = 42
    """Seed of the draw and of the order; 0 or None keeps the source's order."""
    hf_file: str | None = None
    """One file of the repository; goes before the splits."""
    remove_texts: bool = False
    """Has no effect any more: consenso resumes by itself."""


def load_hf_dataset_as_dataframe(
    dataset_name: str,
    cache_dir: str | Path | None,
    dataset_global_config: DatasetConfig,
    dataset_specific_config: DatasetConfig | Mapping[str, Any] | None = None,
) -> tuple[pd.DataFrame, list[int]]:
    """Return a frame (text, label: id, label_description: name) in random order, and all label ids.

    `dataset_name`: a name of the catalog, a Hub id, a file or a folder; `cache_dir` is where Hub files are kept. What the
    specific configuration sets wins over the global one. Exact copies of a text become one row; a warning counts them.
    """
    import pandas as pd

    from consenso.data import load_dataset, schema_of

    config = _merged(dataset_global_config, dataset_specific_config)
    if config.remove_texts:
        _warn(
            "remove_texts has no effect: a run of consenso resumes by itself; drop texts from the frame if you want to"
        )
    several = [] if config.hf_file else list(config.combine_splits or ())
    with _hub_cache(cache_dir):
        texts = load_dataset(
            dataset_name,
            split=None if several or config.hf_file else config.split,
            combine_splits=several,
            hf_file=config.hf_file,
            sample_size=config.sample_size,
            sampling="simple",
            seed=config.random_state or 0,
            empty_texts="drop",
        )
    record = texts.attrs["record"]
    if dropped := {why: n for why, n in record["dropped"].items() if why != "not sampled"}:
        reasons = ", ".join(f"{n} {why}" for why, n in dropped.items())
        _warn(f"{dataset_name}: {record['rows_kept']} of {record['rows_read']} rows kept; left out: {reasons}")
    schema = schema_of(texts)
    label = texts["gold"].map(schema.label2id).astype("Int64")
    frame = pd.DataFrame(
        {
            "text": texts["text"],
            "label": label if label.isna().any() else label.astype("int64"),
            "label_description": texts["gold"],
        }
    )
    if config.random_state:
        frame = frame.sample(frac=1, random_state=config.random_state)
    return frame.reset_index(drop=True), list(schema.id2label)


def _merged(general: DatasetConfig, specific: DatasetConfig | Mapping[str, Any] | None) -> DatasetConfig:
    """The general configuration with what the specific one sets (a mapping's other keys describe the dataset itself)."""
    if isinstance(specific, DatasetConfig):
        plain = DatasetConfig()
        specific = {name: value for name, value in vars(specific).items() if value != getattr(plain, name)}
    known = {each.name for each in dataclasses.fields(DatasetConfig)}
    given = {name: value for name, value in (specific or {}).items() if name in known and value is not None}
    return dataclasses.replace(general, **given)


@contextlib.contextmanager
def _hub_cache(folder: str | Path | None) -> Iterator[None]:
    """Let the Hugging Face libraries keep what they fetch in `folder` while the block runs."""
    try:
        import datasets
        import huggingface_hub
    except ImportError:  # a local file needs neither; a Hub id then says which extra is missing
        yield
        return
    places = [(datasets.config, "HF_DATASETS_CACHE"), (huggingface_hub.constants, "HF_HUB_CACHE")]
    before = [getattr(module, name) for module, name in places]
    try:
        if folder is not None:
            for module, name in places:
                setattr(module, name, str(folder))
        yield
    finally:
        for (module, name), value in zip(places, before):
            setattr(module, name, value)


def add_label_description(df: pd.DataFrame, dataset_name: str, label_column: str = "label") -> pd.DataFrame:
    """Return a copy with the column label_description: the name of each label id in that dataset of the catalog.

    Values that are no label of the dataset (−1, "ERROR", blanks) get a null and a warning that counts them. An unknown
    dataset raises `ConfigError`, a missing label column `DataError`.
    """
    from consenso.data import catalog_entry

    schema = catalog_entry(dataset_name).schema()
    if label_column not in df.columns:
        raise DataError(
            f"missing column {label_column!r}; found {list(df.columns)}; rename your label column, or name it in label_column"
        )
    names = [_label_name(value, schema) for value in df[label_column]]
    if strange := sorted({str(value) for value, name in zip(df[label_column], names) if name is None}):
        count = sum(name is None for name in names)
        _warn(
            f"{count} of {len(df)} labels are none of {dataset_name}'s ({', '.join(strange[:5])}); their description is empty"
        )
    return df.assign(label_description=names)


def _label_name(value: Any, schema: LabelSchema) -> str | None:
    """The label a value means: a number is an id, never a name that happens to be a number."""
    if isinstance(value, numbers.Real):
        return schema.id2label.get(int(value)) if value == value and value == int(value) else None
    return schema.read(None if value is None or value != value else value)


class DatasetAligner:
    """Brings two labelled frames to the same texts in the same order."""

    def __init__(self, id_column: str, gt_label: str, ann_label: str) -> None:
        self.id_column, self.gt_label, self.ann_label = id_column, gt_label, ann_label

    def align(self, df_gt: pd.DataFrame, df_ann: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return both frames with the texts that have a label in both: same ids, same order (that of `df_gt`).

        Each gets the column `label` (from `gt_label` and `ann_label`); its other columns stay. Ids are compared as text, so
        7, 7.0 and "7" are one id, and white space around an id (or a text used as one) does not count. Left out, with a
        warning that counts them: ids whose rows contradict each other, annotations that are no label ("ERROR", or −1
        where the gold has no −1), and ids that name different texts in the two frames. Raises `JoinError` if no text is
        left or most shared ids name different texts, `DataError` for a missing column or id.
        """
        notes: list[str] = []
        gt = self._labelled(df_gt, self.gt_label, "df_gt", notes)
        valid = set(gt["label"])
        ann = self._labelled(df_ann, self.ann_label, "df_ann", notes, reserved=() if -1 in valid else (-1,))
        common = gt.index[gt.index.isin(ann.index)]
        if not len(common):
            found = [str(df[self.id_column].iloc[0]) if len(df) else "nothing" for df in (df_gt, df_ann)]
            raise JoinError(
                f"df_gt and df_ann share no labelled text by {self.id_column!r}; found for example {found[0]!r} and {found[1]!r}; "
                "check that both ids were made in the same way"
            )
        gt, ann = gt.loc[common], ann.loc[common]
        same = self._same_texts(gt, ann, notes)
        gt, ann = gt[same].reset_index(drop=True), ann[same].reset_index(drop=True)
        if notes:
            _warn(f"{len(gt)} texts aligned; left out: {'; '.join(notes)}")
        return gt, ann.assign(**{self.id_column: gt[self.id_column]})

    def _labelled(
        self, df: pd.DataFrame, column: str, where: str, notes: list[str], reserved: tuple[int, ...] = ()
    ) -> pd.DataFrame:
        """One row per id that has one label, indexed by the id as text."""
        import pandas as pd

        if missing := [name for name in (self.id_column, column) if name not in df.columns]:
            raise DataError(f"{where}: missing column(s) {missing}; found {list(df.columns)}")
        if df[self.id_column].isna().any():
            raise DataError(
                f"{where}: {int(df[self.id_column].isna().sum())} row(s) without {self.id_column!r}; fill or drop them"
            )
        labels = [None if (label := _plain(value)) in reserved else label for value in df[column]]
        ids = [str(_plain(value)) for value in df[self.id_column]]
        whole = all(isinstance(label, int) for label in labels if label is not None)
        frame = df.assign(label=pd.Series(labels, index=df.index, dtype=object)).set_axis(pd.Index(ids, dtype=object))
        unusable = frame["label"].isna()
        if unusable.any():
            notes.append(f"{int(unusable.sum())} row(s) of {where} without a usable label")
        frame = frame[~unusable]
        contradicted = frame["label"].groupby(level=0).nunique() > 1
        if contradicted.any():
            notes.append(f"{int(contradicted.sum())} id(s) of {where} with contradicting labels")
            frame = frame[~frame.index.isin(contradicted[contradicted].index)]
        frame = frame[~frame.index.duplicated()]
        return frame.astype({"label": "int64"}) if whole and len(frame) else frame

    @staticmethod
    def _same_texts(gt: pd.DataFrame, ann: pd.DataFrame, notes: list[str]) -> np.ndarray:
        import numpy as np

        same = np.ones(len(gt), dtype=bool)
        if "text" in gt.columns and "text" in ann.columns:
            same = np.array([normalise(str(a)) == normalise(str(b)) for a, b in zip(gt["text"], ann["text"])])
        if (different := int((~same).sum())) > len(gt) / 2:
            raise JoinError(
                f"{different} of {len(gt)} shared ids name different texts in df_gt and df_ann; join by the text, or mend the ids"
            )
        if different:
            notes.append(f"{different} id(s) that name different texts")
        return same


def _plain(value: Any) -> Any:
    """A cell as a whole number or as cleaned text; None for null, blank and the earlier system's ERROR."""
    if isinstance(value, numbers.Real):
        return None if value != value else int(value) if value == int(value) else value
    word = "" if value is None or value != value else clean(str(value))
    if word.removeprefix("-").isdecimal() and str(int(word)) == word:
        return int(word)
    return None if word in {"", "ERROR"} else word


# training arguments

_RENAMED = {
    "evaluation_strategy": "eval_strategy", "no_cuda": "use_cpu", "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs", "torchdynamo": "torch_compile_backend",
    "per_gpu_train_batch_size": "per_device_train_batch_size", "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "push_to_hub_token": "hub_token", "push_to_hub_model_id": "hub_model_id", "xpu_backend": "ddp_backend",
}  # fmt: skip
_REPLACED: dict[str, Callable[[Any], dict[str, Any]]] = {
    "warmup_ratio": lambda value: {"warmup_steps": float(value)} if value else {},  # below 1 it is a share of the steps
    "group_by_length": lambda value: {"train_sampling_strategy": "group_by_length"} if value else {},
    "adafactor": lambda value: {"optim": "adafactor"} if value else {},
    "include_inputs_for_metrics": lambda value: {"include_for_metrics": ["inputs"]} if value else {},
    "evaluate_during_training": lambda value: {"eval_strategy": "steps"} if value else {},
}
_GONE = {
    "overwrite_output_dir": "an existing folder is always written into",
    "logging_dir": "set the environment variable TENSORBOARD_LOGGING_DIR",
    "save_safetensors": "weights are always saved as safetensors",
    **dict.fromkeys(
        ("bf16_backend dispatch_batches fp16_backend fp16_opt_level fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap "
         "half_precision_backend include_tokens_per_second jit_mode_eval mp_parameters past_index push_to_hub_organization "
         "ray_scope sharded_ddp split_batches tpu_metrics_debug tpu_num_cores use_ipex use_legacy_prediction_loop "
         "use_mps_device").split(),
        "transformers no longer has it",
    ),
}  # fmt: skip


def TrainingArguments(output_dir: str | Path | None = None, **arguments: Any) -> Any:  # noqa: N802 - the name notebooks know
    """Return transformers' TrainingArguments; names that this transformers renamed or removed are translated, with one note.

    A new name beats the old one for the same thing. An unknown name raises `ConfigError`.
    """
    transformers = _transformers()
    fields = {each.name for each in dataclasses.fields(transformers.TrainingArguments) if each.init}
    found: dict[str, Any] = {} if output_dir is None else {"output_dir": str(output_dir)}
    notes: list[str] = []
    for name, value in arguments.items():
        replaced = _translated(name, value, fields)
        if replaced is None:
            found[name] = value
            continue
        taken = [new for new in replaced if arguments.get(new)]
        found |= {new: to for new, to in replaced.items() if new not in taken}
        if name in _GONE:
            notes.append(f"{name} dropped ({_GONE[name]})")
        else:
            told = ", ".join(f"{new}={to!r}" for new, to in replaced.items()) or "nothing (the default)"
            notes.append(f"{name} → {told}{' (not used: given as well)' if taken else ''}")
    if notes:
        _warn(f"TrainingArguments of transformers {transformers.__version__}: {'; '.join(notes)}")
    return transformers.TrainingArguments(**found)


def _translated(name: str, value: Any, fields: set[str]) -> dict[str, Any] | None:
    """What an old argument is called now; None for one that transformers still knows."""
    if _RENAMED.get(name) in fields:
        return {_RENAMED[name]: value}
    if name == "optim" and value == "adamw_hf":
        return {"optim": "adamw_torch"}
    if name in fields:
        return None
    if name in _REPLACED:
        return _REPLACED[name](value)
    if name in _GONE:
        return {}
    known = sorted(fields | set(_RENAMED) | set(_REPLACED))
    raise ConfigError(
        f"TrainingArguments has no argument {name!r}.{nearest(name, known) or ' See the transformers documentation.'}"
    )


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("training an encoder", "finetune") from None
    return transformers


# tokens


class HFTokenizer:
    """Turns texts into token ids, as the student `encoder` does."""

    def __init__(self, model_name: str, max_length: int = 256) -> None:
        self.model_name, self.max_length = model_name, max_length
        self.tokenizer = encoders.load_tokenizer(model_name)

    def encode(self, dataset: Any) -> Any:
        """Return the dataset (`datasets.Dataset` or pandas frame) with the columns input_ids and attention_mask.

        Texts are cut at `max_length` and never padded: a batch is padded to its own longest text.
        """
        texts = _column(dataset, "text", "the dataset")
        if empty := sum(text is None or text != text for text in texts):
            raise DataError(f"{empty} of {len(texts)} texts are empty; drop these rows, or fill them")
        ids = encoders.tokenize(self.tokenizer, [str(text) for text in texts], self.max_length)
        masks = [[1] * len(found) for found in ids]
        if hasattr(dataset, "iloc"):
            import pandas as pd

            return dataset.assign(
                **{
                    name: pd.Series(values, index=dataset.index, dtype=object)
                    for name, values in (("input_ids", ids), ("attention_mask", masks))
                }
            )
        kept = dataset.remove_columns(
            [name for name in ("input_ids", "attention_mask") if name in dataset.column_names]
        )
        return kept.add_column("input_ids", ids).add_column("attention_mask", masks)


def _names(dataset: Any) -> list[str]:
    if hasattr(dataset, "iloc"):
        return [str(name) for name in dataset.columns]
    if hasattr(dataset, "column_names") and not isinstance(dataset, dict):
        return list(dataset.column_names)
    kind = type(dataset).__name__
    raise DataError(f"found a {kind}; give a datasets.Dataset (of a DatasetDict, one split) or a pandas frame")


def _column(dataset: Any, name: str, where: str) -> list[Any]:
    if name not in _names(dataset):
        raise DataError(f"{where}: missing column {name!r}; found {_names(dataset)}")
    return dataset[name].tolist() if hasattr(dataset, "iloc") else list(dataset.with_format(None)[name])


def _codes(dataset: Any, schema: LabelSchema, where: str) -> list[int]:
    """Class positions: `labels` holds them already (as in transformers), `label` holds the user's ids or names."""
    if "labels" in _names(dataset):
        codes = [int(value) for value in _column(dataset, "labels", where)]
        if strange := sorted({code for code in codes if not 0 <= code < len(schema)}):
            raise DataError(
                f"{where}: 'labels' must hold positions 0 … {len(schema) - 1}; found {strange[:5]}; put ids into 'label'"
            )
        return codes
    return _positions(_column(dataset, "label", where), schema, where)


def _positions(values: Sequence[Any], schema: LabelSchema, where: str) -> list[int]:
    position = {name: i for i, name in enumerate(schema.names)}
    names = [_label_name(value, schema) for value in values]
    if strange := sorted({str(value) for value, name in zip(values, names) if name is None}):
        count = sum(name is None for name in names)
        raise DataError(
            f"{where}: {count} of {len(names)} labels are not in the schema ({', '.join(strange[:5])}); "
            f"the labels are {schema.id2label}; drop these rows"
        )
    return [position[name] for name in names if name is not None]


def _features(dataset: Any, schema: LabelSchema, where: str) -> list[dict[str, Any]]:
    """One {input_ids, labels} per row; padding that the caller's own tokeniser added is taken off."""
    import numpy as np

    rows = [np.asarray(ids, dtype="int32") for ids in _column(dataset, "input_ids", where)]
    if "attention_mask" in _names(dataset):
        masks = _column(dataset, "attention_mask", where)
        rows = [ids[np.asarray(mask) == 1] for ids, mask in zip(rows, masks)]
    return [{"input_ids": ids, "labels": code} for ids, code in zip(rows, _codes(dataset, schema, where))]


# model, trainer, metrics


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
        """Return {"accuracy", "f1_macro"} of transformers' EvalPrediction, or of a pair (logits, class positions)."""
        logits, codes = _logits(eval_pred)
        predicted = logits.argmax(axis=-1)
        return {"accuracy": float((predicted == codes).mean()), "f1_macro": macro_f1(codes, predicted)}


def _logits(eval_pred: Any) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    logits, codes = (eval_pred.predictions, eval_pred.label_ids) if hasattr(eval_pred, "predictions") else eval_pred[:2]
    return np.asarray(logits[0] if isinstance(logits, tuple) else logits), np.asarray(codes)


class TrainerBuilder:
    """Makes a transformers Trainer whose batches hold texts of similar length."""

    def __init__(self, training_args: Any, metrics_computer: Any) -> None:
        self.training_args, self.metrics_computer = training_args, _made(metrics_computer)

    def build(self, model: Any, train_ds: Any, eval_ds: Any = None) -> Any:
        """Return a `transformers.Trainer` for encoded datasets (input_ids and label, as `HFTokenizer.encode` leaves them).

        Training batches are those of the student `encoder`, padded to their own longest text; rows of `eval_ds` are sorted
        by length. train_sampling_strategy "sequential" or "batch_rebalance", and several processes, keep the Trainer's batches.
        """
        args, schema = self.training_args, getattr(model, "label_schema", None) or LabelSchema(model.config.id2label)
        if args.dataloader_pin_memory and args.device.type != "cuda":  # torch warns at every loader where it cannot pin
            args = copy.copy(args)
            args.dataloader_pin_memory = False
        evaluated = None if eval_ds is None else sorted(_features(eval_ds, schema, "evaluation set"), key=_length)
        return _trainer_class()(
            model=model,
            args=args,
            data_collator=_Collator(getattr(model.config, "pad_token_id", None) or 0, schema),
            train_dataset=_features(train_ds, schema, "training set"),
            eval_dataset=evaluated,
            compute_metrics=self.metrics_computer,
        )


def _made(thing: Any, *arguments: Any) -> Any:
    """An instance: callers pass classes or instances."""
    return thing(*arguments) if isinstance(thing, type) else thing


def _length(row: Mapping[str, Any]) -> int:
    return len(row["input_ids"])


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
            batch["labels"] = torch.tensor(_positions([row["label"] for row in rows], self.schema, "dataset"))
        return batch


class _LengthBatches:
    """The batches of one pass after another: those of the student `encoder` under the same seed."""

    def __init__(self, lengths: np.ndarray, batch_size: int, drop_last: bool, seed: int) -> None:
        self.lengths, self.batch_size, self.drop_last, self.epoch = lengths, batch_size, drop_last, 0
        self.seed = student._stream(seed, student._ORDER)

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

    class LengthAwareTrainer(_transformers().Trainer):  # type: ignore[misc]
        """A transformers Trainer whose training batches hold texts of similar length."""

        def get_train_dataloader(self) -> Any:
            args = self.args
            if args.world_size > 1 or args.train_sampling_strategy in {"sequential", "batch_rebalance"}:
                return super().get_train_dataloader()
            lengths = np.array([_length(row) for row in self.train_dataset])
            seed = args.seed if args.data_seed is None else args.data_seed
            return self.accelerator.prepare(
                DataLoader(
                    self.train_dataset,
                    batch_sampler=_LengthBatches(lengths, self._train_batch_size, args.dataloader_drop_last, seed),
                    collate_fn=self.data_collator,
                    num_workers=args.dataloader_num_workers,
                    pin_memory=args.dataloader_pin_memory,
                    persistent_workers=args.dataloader_persistent_workers,
                )
            )

        def _get_eval_sampler(self, eval_dataset: Any) -> Any:
            # group_by_length would answer `predict` in another order than that of the rows.
            return (
                SequentialSampler(eval_dataset)
                if self.args.world_size <= 1
                else super()._get_eval_sampler(eval_dataset)
            )

    return LengthAwareTrainer


# fine-tuning


class _TrainingSet(NamedTuple):
    """What is remembered of the training sets fitted in this session."""

    rows: int
    texts: frozenset[str]


_FITTED: list[_TrainingSet] = []


@dataclass
class _Recorder:
    """Metrics, and the logits they were computed from: one entry per evaluation."""

    compute: Any
    seen: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def __call__(self, eval_pred: Any) -> Any:
        self.seen.append(_logits(eval_pred))
        return self.compute(eval_pred)


class SupervisedFineTuner:
    """Fine-tunes one encoder on one training set."""

    def __init__(
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
        self.tokenizer = _made(tokenizer, model_name)
        self.model_factory = _made(model_factory, model_name, label_schema)
        self.metrics_computer = _made(metrics_computer)
        self.trainer_builder = _made(trainer_builder, training_args, self.metrics_computer)
        self.trainer: Any = None
        """The transformers Trainer of the last `fit`; `trainer.model` is the trained model."""

    def fit(self, train_ds: Any, eval_ds: Any = None) -> None:
        """Train a fresh model on the columns text and label (ids or names); `eval_ds` is what checkpoints are chosen on.

        The head is drawn after seeding with `training_args.seed`: equal settings and data give equal models. Warns if
        evaluation texts stand among the training texts, if the training texts differ from those fitted before in this
        session, and if the run collapsed.
        """
        if eval_ds is None and str(self.training_args.eval_strategy.value) != "no":
            raise ConfigError(
                'eval_strategy asks for evaluations, but fit got no eval_ds; give one, or set eval_strategy="no"'
            )
        train, dev = self._encoded(train_ds), None if eval_ds is None else self._encoded(eval_ds)
        self._codes = _codes(train, self.label_schema, "training set")
        self._texts = _texts(train)
        if dev is not None:
            _warn_of_leaks(self._texts, _texts(dev), "evaluation")
        _warn_of_other_texts(self._texts)
        self.trainer = self.trainer_builder.build(self._fresh_model(), train, dev)
        self.trainer.compute_metrics = self._recorder = _Recorder(self.trainer.compute_metrics or self.metrics_computer)
        if self.trainer.processing_class is None:
            self.trainer.processing_class = getattr(
                self.tokenizer, "tokenizer", None
            )  # a checkpoint is then a whole model folder
        self._judged = False
        self.trainer.train()
        self._log = [entry for entry in self.trainer.state.log_history if "eval_loss" in entry]
        if self._log and len(self._log) == len(self._recorder.seen):
            self._judge(self._best() if self.training_args.load_best_model_at_end else -1)
        self._recorder.seen.clear()

    def evaluate(self, test_ds: Any) -> dict[str, float]:
        """Return eval_loss, eval_accuracy, eval_f1_macro, eval_runtime (s), eval_*_per_second and epoch on `test_ds`."""
        trainer = self._fitted()
        test = self._encoded(test_ds)
        _warn_of_leaks(self._texts, _texts(test), "test")
        rows = sorted(_features(test, self.label_schema, "test set"), key=_length)
        found: dict[str, float] = trainer.evaluate(rows)
        if not self._judged:
            self._judge(-1)
        self._recorder.seen.clear()
        return {name: value for name, value in found.items() if name != "eval_model_preparation_time"}

    def best_val_metrics(self) -> dict[str, float]:
        """Return the log entry of the best evaluation during `fit` (by metric_for_best_model, else macro-F1)."""
        self._fitted()
        if not self._log:
            raise ConfigError('there was no evaluation during fit; give fit an eval_ds and set eval_strategy="epoch"')
        return dict(self._log[self._best()])

    def predict(self, dataset: Any) -> pd.DataFrame:
        """Return one row per row of `dataset`: text_id (if given), label (your id), label_description, prob_0 … prob_{K−1}."""
        import numpy as np
        import pandas as pd

        trainer, encoded = self._fitted(), self._encoded(dataset)
        rows = [{"input_ids": np.asarray(ids)} for ids in _column(encoded, "input_ids", "dataset")]
        order = sorted(range(len(rows)), key=lambda row: _length(rows[row]))
        shares = np.zeros((len(rows), len(self.label_schema)))
        shares[order] = softmax(_logits((trainer.predict([rows[row] for row in order]).predictions, ()))[0])
        names = [self.label_schema.names[code] for code in shares.argmax(axis=1)]
        ids = {"text_id": _column(dataset, "text_id", "dataset")} if "text_id" in _names(dataset) else {}
        told = {"label": [self.label_schema.label2id[name] for name in names], "label_description": names}
        return pd.DataFrame({**ids, **told, **{f"prob_{k}": shares[:, k] for k in range(len(self.label_schema))}})

    def _encoded(self, dataset: Any) -> Any:
        return dataset if "input_ids" in _names(dataset) else self.tokenizer.encode(dataset)

    def _fresh_model(self) -> Any:
        torch = encoders.import_torch()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(student._stream(self.training_args.seed, student._HEAD))
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
        logits, codes = self._recorder.seen[evaluation]
        if reason := find_collapse(logits, codes, np.array(self._codes), seed=self.training_args.seed):
            _warn(
                f"this run collapsed: {reason}; its scores say nothing about its labels. A lower learning rate is the usual cure"
            )


def _texts(dataset: Any) -> list[str]:
    """The texts, or (of a dataset that kept its tokens only) the tokens in their place."""
    if "text" in _names(dataset):
        return [str(text) for text in _column(dataset, "text", "dataset")]
    return [" ".join(map(str, ids)) for ids in _column(dataset, "input_ids", "dataset")]


def _warn_of_leaks(train: Sequence[str], asked: Sequence[str], which: str) -> None:
    exact, loose = set(map(clean, train)), set(map(normalise, train)) - {""}
    same = [text for text in asked if clean(text) in exact]
    alike = [text for text in asked if clean(text) not in exact and normalise(text) in loose]
    if found := same + alike:
        _warn(
            f"{len(found)} of {len(asked)} {which} texts stand among the training texts ({len(same)} exactly, {len(alike)} but for "
            f"case or punctuation), for example {found[0].strip()[:60]!r}: the scores are too good. Remove them from the training texts"
        )


def _warn_of_other_texts(train: Sequence[str]) -> None:
    """Remember this training set; warn if it is new and not the first of the session."""
    this = _TrainingSet(len(train), frozenset(map(text_hash, train)))
    if _FITTED and this not in _FITTED:
        last = _FITTED[-1]
        _warn(
            f"this training set has {this.rows} rows, the one fitted before had {last.rows}, and they share {len(this.texts & last.texts)} "
            "texts: a difference between the two models mixes labels with texts. Train both on the same texts (DatasetAligner); "
            "folds of one arm may differ, the arms of one fold may not"
        )
    if this in _FITTED:
        _FITTED.remove(this)
    _FITTED.append(this)
