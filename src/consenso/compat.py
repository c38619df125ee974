"""Door for notebooks written against the earlier system: the names they know, thin, over our own verbs.

A dataset's `label` holds the user's ids (−1 and 1, 1 … 10 are fine) or names; class positions exist in the model alone.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import numbers
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    "ConsensoWarning", "DatasetAligner", "DatasetConfig", "HFTokenizer", "LabelSchema", "MetricsComputer",
    "ModelFactory", "SupervisedFineTuner", "TrainerBuilder", "TrainingArguments", "add_label_description",
    "load_hf_dataset_as_dataframe",
]  # fmt: skip


class ConsensoWarning(UserWarning):
    """Something in a notebook that a person should act on: shown below the cell."""


def _warn(message: str) -> None:
    """Warn at the line of the notebook, however deep inside this file the reason was found."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, ConsensoWarning, stacklevel=level)


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
    """Seed of the draw and of the order of the rows; 0 or None keeps the source's order."""
    hf_file: str | None = None
    """One file of the repository; goes before the splits."""
    remove_texts: bool = False
    """Has no effect any more: a run of consenso resumes by itself."""


def load_hf_dataset_as_dataframe(
    dataset_name: str,
    cache_dir: str | Path | None,
    dataset_global_config: DatasetConfig,
    dataset_specific_config: DatasetConfig | Mapping[str, Any] | None = None,
) -> tuple[pd.DataFrame, list[int]]:
    """Return a frame (text, label: id, label_description: name) in random order, and all label ids.

    `dataset_name`: a name of the catalog, a Hub id, a file or a folder; `cache_dir`: where Hub files are kept. What the
    specific configuration sets wins over the global one. Copies of a text become one row; a warning counts them.
    """
    import pandas as pd

    from consenso.data import load_dataset

    config = _merged(dataset_global_config, dataset_specific_config)
    if config.remove_texts:
        _warn("remove_texts has no effect: a run of consenso resumes by itself; drop texts from the frame if you like")
    with _hub_cache(cache_dir):
        texts = load_dataset(
            dataset_name,
            split=None if config.hf_file or config.combine_splits else config.split,
            combine_splits=[] if config.hf_file else list(config.combine_splits or ()),
            hf_file=config.hf_file,
            sample_size=config.sample_size,
            sampling="simple",
            seed=config.random_state or 0,
            empty_texts="drop",
        )
    record, ids = texts.attrs["record"], {label["name"]: label["id"] for label in texts.attrs["labels"] or []}
    if dropped := [f"{n} {why}" for why, n in record["dropped"].items() if why not in {"not sampled", "other split"}]:
        _warn(f"{dataset_name}: of {record['rows_read']} rows were left out: {', '.join(dropped)}")
    label = texts["gold"].map(ids).astype("Int64")
    label = label if label.isna().any() else label.astype("int64")
    frame = pd.DataFrame({"text": texts["text"], "label": label, "label_description": texts["gold"]})
    if config.random_state:
        frame = frame.sample(frac=1, random_state=config.random_state)
    return frame.reset_index(drop=True), list(ids.values())


def _merged(general: DatasetConfig, specific: DatasetConfig | Mapping[str, Any] | None) -> DatasetConfig:
    """The general configuration with what the specific one sets; a mapping may say more about the dataset."""
    if isinstance(specific, DatasetConfig):
        plain = vars(DatasetConfig())
        specific = {name: value for name, value in vars(specific).items() if value != plain[name]}
    known = {each.name for each in dataclasses.fields(DatasetConfig)}
    given = {name: value for name, value in (specific or {}).items() if name in known and value is not None}
    return dataclasses.replace(general, **given)


@contextlib.contextmanager
def _hub_cache(folder: str | Path | None) -> Iterator[None]:
    """Let the Hugging Face libraries keep what they fetch in `folder` while the block runs."""
    import importlib.util

    if folder is None or not all(map(importlib.util.find_spec, ("datasets", "huggingface_hub"))):
        yield  # a local file needs neither; for a Hub id, load_dataset says which extra is missing
        return
    import datasets
    import huggingface_hub

    places = [(datasets.config, "HF_DATASETS_CACHE"), (huggingface_hub.constants, "HF_HUB_CACHE")]
    before = [getattr(module, name) for module, name in places]
    try:
        for module, name in places:
            setattr(module, name, str(folder))
        yield
    finally:
        for (module, name), value in zip(places, before):
            setattr(module, name, value)


def add_label_description(df: pd.DataFrame, dataset_name: str, label_column: str = "label") -> pd.DataFrame:
    """Return a copy with the column label_description: the name of each label id in that dataset of the catalog.

    Values that are no label of the dataset (−1, "ERROR", blanks) get a null, and a warning counts them. An unknown
    dataset raises `ConfigError`, a missing label column `DataError`.
    """
    from consenso.data import catalog_entry

    schema = catalog_entry(dataset_name).schema()
    if label_column not in df.columns:
        found = f"missing column {label_column!r}; found {list(df.columns)}"
        raise DataError(f"{found}; rename your label column, or say label_column=…")
    names = [_label_name(value, schema) for value in df[label_column]]
    if unknown := _unknown(df[label_column], names):
        _warn(f"{unknown} are none of {dataset_name}'s; their label_description is empty")
    return df.assign(label_description=names)


def _plain(value: Any) -> Any:
    """A cell as a whole number or as cleaned text; None for nulls and blanks."""
    import pandas as pd

    is_number = isinstance(value, numbers.Real)
    if is_number and float(value).is_integer():
        return int(value)
    word = "" if pd.api.types.is_scalar(value) and pd.isna(value) else clean(str(value))
    return int(word) if word.removeprefix("-").isdecimal() and str(int(word)) == word else word or None


def _label_name(value: Any, schema: LabelSchema) -> str | None:
    """The label a value means; a number is an id, never a name that happens to look like one."""
    return schema.id2label.get(_plain(value)) if isinstance(value, numbers.Real) else schema.read(_plain(value))


def _unknown(values: Any, names: Sequence[str | None]) -> str:
    strange = [str(value) for value, name in zip(values, names) if name is None]
    return f"{len(strange)} of {len(names)} labels ({', '.join(sorted(set(strange))[:5])})" if strange else ""


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
            _warn(f"{len(gt)} texts aligned; left out: {'; '.join(notes)}")
        return gt, ann.assign(**{self.id_column: gt[self.id_column]})

    def _labelled(
        self, df: pd.DataFrame, column: str, where: str, notes: list[str], reserved: tuple[int, ...] = ()
    ) -> pd.DataFrame:
        """One row for each id that has one label, indexed by the id as text."""
        import pandas as pd

        if missing := [name for name in (self.id_column, column) if name not in df.columns]:
            raise DataError(f"{where}: missing column(s) {missing}; found {list(df.columns)}")
        ids = [_plain(value) for value in df[self.id_column]]
        if empty := sum(value is None for value in ids):
            raise DataError(f"{where}: {empty} row(s) without {self.id_column!r}; fill or drop them")
        labels = pd.Series([_plain(value) for value in df[column]], index=df.index, dtype=object)
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


# training arguments

_RENAMED = {
    "evaluation_strategy": "eval_strategy", "no_cuda": "use_cpu", "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs", "torchdynamo": "torch_compile_backend",
    "per_gpu_train_batch_size": "per_device_train_batch_size", "push_to_hub_token": "hub_token",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size", "push_to_hub_model_id": "hub_model_id",
}  # fmt: skip
_REPLACED: dict[str, Callable[[Any], dict[str, Any]]] = {
    "warmup_ratio": lambda value: {"warmup_steps": float(value)} if value else {},  # below 1: a share of the steps
    "group_by_length": lambda value: {"train_sampling_strategy": "group_by_length"} if value else {},
    "adafactor": lambda value: {"optim": "adafactor"} if value else {},
    "include_inputs_for_metrics": lambda value: {"include_for_metrics": ["inputs"]} if value else {},
}
_GONE = {
    "overwrite_output_dir": "an existing folder is always written into",
    "logging_dir": "set the environment variable TENSORBOARD_LOGGING_DIR",
    "save_safetensors": "weights are always saved as safetensors",
    "use_mps_device": "a device is used where there is one",
}
_NO_LONGER = (
    "dispatch_batches", "fp16_backend", "fp16_opt_level", "half_precision_backend", "include_tokens_per_second",
    "jit_mode_eval", "mp_parameters", "past_index", "push_to_hub_organization", "ray_scope", "sharded_ddp",
    "split_batches", "tpu_metrics_debug", "tpu_num_cores", "use_ipex", "use_legacy_prediction_loop",
)  # fmt: skip


def TrainingArguments(output_dir: str | Path | None = None, **arguments: Any) -> Any:  # noqa: N802 - a familiar name
    """Return transformers' TrainingArguments; names it has renamed or removed are translated, with one note.

    Where both names of one thing are given, the new one counts. An unknown name raises `ConfigError`.
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
        taken = {new for new in replaced if new != name and arguments.get(new)}
        found |= {new: to for new, to in replaced.items() if new not in taken}
        told = [f"{new}={to!r}{' (given as well: that counts)' * (new in taken)}" for new, to in replaced.items()]
        notes.append(f"{name} → {', '.join(told) or _GONE.get(name, 'nothing')}")
    if notes:
        _warn(f"TrainingArguments of transformers {transformers.__version__}: {'; '.join(notes)}")
    return transformers.TrainingArguments(**found)


def _translated(name: str, value: Any, fields: set[str]) -> dict[str, Any] | None:
    """What an old argument is called now; None for one that this transformers knows."""
    if _RENAMED.get(name) in fields:
        return {_RENAMED[name]: value}
    if name == "optim" and value == "adamw_hf":
        return {"optim": "adamw_torch"}
    if name in fields:
        return None
    if name in _REPLACED:
        return _REPLACED[name](value)
    if name in _GONE or name in _NO_LONGER:
        return {}
    hint = nearest(name, sorted(fields | set(_RENAMED) | set(_REPLACED))) or " See the documentation of transformers."
    raise ConfigError(f"TrainingArguments has no argument {name!r}.{hint}")


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("training an encoder", "finetune") from None
    return transformers


# texts → tokens, labels → class positions


class HFTokenizer:
    """Turns texts into token ids, as the student `encoder` does."""

    def __init__(self, model_name: str, max_length: int = 256) -> None:
        self.model_name, self.max_length = model_name, max_length
        self.tokenizer = encoders.load_tokenizer(model_name)

    def encode(self, dataset: Any) -> Any:
        """Return the dataset (`datasets.Dataset` or pandas frame) with the columns input_ids and attention_mask.

        Texts are cut at `max_length` and never padded: a batch is padded to its own longest text.
        """
        import pandas as pd

        texts = _column(dataset, "text", "dataset")
        if empty := int(pd.isna(pd.Series(texts, dtype=object)).sum()):
            raise DataError(f"dataset: {empty} of {len(texts)} texts are empty; drop these rows, or fill them")
        ids = encoders.tokenize(self.tokenizer, list(map(str, texts)), self.max_length)
        columns = {"input_ids": ids, "attention_mask": [[1] * len(found) for found in ids]}
        if hasattr(dataset, "iloc"):
            return dataset.assign(**{name: pd.Series(c, dataset.index, dtype=object) for name, c in columns.items()})
        if getattr(dataset, "_indices", None) is not None:  # else add_column would write the chosen rows to disk
            dataset = dataset.flatten_indices(keep_in_memory=True)
        dataset = dataset.remove_columns([name for name in columns if name in dataset.column_names])
        for name, values in columns.items():
            dataset = dataset.add_column(name, values)
        return dataset


def _names(dataset: Any) -> list[str]:
    if hasattr(dataset, "iloc"):
        return [str(name) for name in dataset.columns]
    if hasattr(dataset, "with_format") and not isinstance(dataset, dict):
        return list(dataset.column_names)
    raise DataError(f"dataset: found a {type(dataset).__name__}; give a datasets.Dataset (one split) or a pandas frame")


def _column(dataset: Any, name: str, where: str) -> list[Any]:
    if name not in _names(dataset):
        raise DataError(f"{where}: missing column {name!r}; found {_names(dataset)}")
    return dataset[name].tolist() if hasattr(dataset, "iloc") else list(dataset.with_format(None)[name])


def _codes(dataset: Any, schema: LabelSchema, where: str) -> list[int]:
    """Class positions: `labels` holds them already (as in transformers), `label` the user's ids or names."""
    if "labels" not in _names(dataset):
        return _positions(_column(dataset, "label", where), schema, where)
    codes = [int(value) for value in _column(dataset, "labels", where)]
    if strange := sorted({code for code in codes if not 0 <= code < len(schema)}):
        found = f"'labels' holds {strange[:5]}, positions are 0 … {len(schema) - 1}"
        raise DataError(f"{where}: {found}; put your own ids into the column 'label'")
    return codes


def _positions(values: Sequence[Any], schema: LabelSchema, where: str) -> list[int]:
    names = [_label_name(value, schema) for value in values]
    if unknown := _unknown(values, names):
        raise DataError(f"{where}: {unknown} are not in the schema {schema.id2label}; drop these rows")
    return [schema.index(name) for name in names if name is not None]


def _features(dataset: Any, schema: LabelSchema, where: str) -> list[dict[str, Any]]:
    """One {input_ids, labels} per row; padding that another tokeniser added is taken off."""
    import numpy as np

    rows = [np.asarray(ids, dtype="int32") for ids in _column(dataset, "input_ids", where)]
    if "attention_mask" in _names(dataset):
        masks = _column(dataset, "attention_mask", where)
        rows = [ids[np.asarray(mask) == 1] for ids, mask in zip(rows, masks)]
    return [{"input_ids": ids, "labels": code} for ids, code in zip(rows, _codes(dataset, schema, where))]


def _length(row: Mapping[str, Any]) -> int:
    return len(row["input_ids"])


# model, metrics, trainer


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
        logits, codes = _logits(eval_pred)
        predicted = logits.argmax(axis=-1)
        return {"accuracy": float((predicted == codes).mean()), "f1_macro": macro_f1(codes, predicted)}


def _logits(eval_pred: Any) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    logits, codes = tuple(eval_pred)[:2]
    return np.asarray(logits[0] if isinstance(logits, tuple) else logits), np.asarray(codes)


class TrainerBuilder:
    """Makes a transformers Trainer whose batches hold texts of similar length."""

    def __init__(self, training_args: Any, metrics_computer: Any) -> None:
        self.training_args, self.metrics_computer = training_args, _made(metrics_computer)

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
            train_dataset=_features(train_ds, schema, "training set"),
            eval_dataset=None if eval_ds is None else sorted(_features(eval_ds, schema, "evaluation set"), key=_length),
            compute_metrics=self.metrics_computer,
        )


def _made(thing: Any, *arguments: Any) -> Any:
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
            batch["labels"] = torch.tensor(_positions([row["label"] for row in rows], self.schema, "dataset"))
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

    class LengthAwareTrainer(_transformers().Trainer):  # type: ignore[misc]
        """A transformers Trainer whose training batches hold texts of similar length."""

        def get_train_dataloader(self) -> Any:
            args = self.args
            if args.world_size > 1 or args.train_sampling_strategy in {"sequential", "batch_rebalance"}:
                return super().get_train_dataloader()
            lengths, seed = np.array([*map(_length, self.train_dataset)]), args.data_seed
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


# fine-tuning

_FITTED: list[tuple[int, frozenset[str]]] = []
"""The training sets of this session: number of rows, hashes of the texts; the latest last."""


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
        self.tokenizer = _made(tokenizer, model_name)
        self.model_factory = _made(model_factory, model_name, label_schema)
        self.metrics_computer = _made(metrics_computer)
        self.trainer_builder = _made(trainer_builder, training_args, self.metrics_computer)
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
        self._texts, self._codes = _texts(train), _codes(train, self.label_schema, "training set")
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
        found = trainer.evaluate(sorted(_features(test, self.label_schema, "test set"), key=_length))
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

        trainer, schema, names = self._fitted(), self.label_schema, _names(dataset)
        rows = [{"input_ids": ids} for ids in _column(self._encoded(dataset), "input_ids", "dataset")]
        order = sorted(range(len(rows)), key=lambda row: _length(rows[row]))
        shares = np.zeros((len(rows), len(schema)))
        shares[order] = softmax(_logits(trainer.predict([rows[row] for row in order]))[0])
        found = [schema.names[code] for code in shares.argmax(axis=1)]
        frame = pd.DataFrame({"label": [schema.label2id[name] for name in found], "label_description": found})
        if "text_id" in names:
            frame.insert(0, "text_id", _column(dataset, "text_id", "dataset"))
        return frame.assign(**{f"prob_{k}": shares[:, k] for k in range(len(schema))})

    def _encoded(self, dataset: Any) -> Any:
        return dataset if "input_ids" in _names(dataset) else self.tokenizer.encode(dataset)

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
            _warn(f"this run collapsed: {reason}; its scores say nothing about its labels. Try a lower learning rate")


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
        _warn(
            f"this training set has {this[0]} rows, the one fitted before had {rows}, and {len(this[1] & texts)} texts "
            "are common: a difference between the two models mixes labels with texts. Train both on the same texts "
            "(DatasetAligner); folds of one arm may differ, the arms of one fold may not"
        )
    _FITTED.append(this)
