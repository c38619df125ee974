"""Notebooks of the earlier system: the cells they hold, and what compat adds to them."""

from __future__ import annotations

import gc
import hashlib
import inspect
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split

from consenso import LabelSchema, compat
from consenso.compat import (
    ConsensoWarning,
    DatasetAligner,
    DatasetConfig,
    HFTokenizer,
    MetricsComputer,
    ModelFactory,
    SupervisedFineTuner,
    TrainerBuilder,
    TrainingArguments,
    add_label_description,
    load_hf_dataset_as_dataframe,
    tuning,
)
from consenso.compat import arguments as translations
from consenso.errors import ConfigError, DataError, JoinError
from consenso.finetune.batches import training_batches
from consenso.finetune.students import encoder as student

datasets = pytest.importorskip("datasets", reason="needs the hub extra")
Dataset, DatasetDict = datasets.Dataset, datasets.DatasetDict

WORDS = {
    0: ["awful", "horrible", "worst", "dreadful"],
    1: ["bad", "dull", "weak", "boring"],
    2: ["plain", "average", "okay", "middling"],
    3: ["good", "nice", "solid", "fun"],
    4: ["superb", "brilliant", "masterpiece", "wonderful"],
}
FILLER = [
    "the",
    "movie",
    "a",
    "plot",
    "actor",
    "scene",
    "story",
    "film",
    "script",
    "ending",
    "with",
    "more",
    "than",
    "one",
    "of",
    "its",
    "many",
    "parts",
]


@pytest.fixture(autouse=True)
def fresh_session(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No training sets of other tests, and one thread."""
    monkeypatch.setattr(tuning, "_FITTED", [])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A BERT folder: WordPiece vocabulary of these words, 2 layers, width 32, random weights."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    words = sorted({*chain(*WORDS.values()), *FILLER})
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    pieces = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=pieces, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=258,
            initializer_range=0.1,  # so that a handful of steps learns something
        )
        transformers.BertModel(config).save_pretrained(folder)
    gc.freeze()  # accelerate collects garbage before each training: a third of the time, were the imports looked through
    yield str(folder)
    gc.unfreeze()


def reviews(n: int = 120, seed: int = 0, ids: tuple[int, ...] = (0, 1, 2, 3, 4)) -> pd.DataFrame:
    """text_id, text (distinct, 6 to 15 words) and label: the class decides three of the words."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        k = i % len(ids)
        words = [*rng.choice(WORDS[k], 3), *rng.choice(FILLER, rng.integers(2, 12)), f"{seed}x{i}"]
        rows.append((1000 + i, " ".join(rng.permutation(words)), ids[k]))
    return pd.DataFrame(rows, columns=["text_id", "text", "label"])


def arguments(folder: Path, **changes: Any) -> transformers.TrainingArguments:
    """What an old notebook sets, small enough for a test."""
    usual = {
        "output_dir": str(folder / "out"), "eval_strategy": "epoch", "save_strategy": "epoch", "disable_tqdm": True,
        "load_best_model_at_end": True, "metric_for_best_model": "f1_macro", "greater_is_better": True,
        "save_total_limit": 1, "seed": 42, "learning_rate": 4e-3, "num_train_epochs": 6,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 8, "per_device_eval_batch_size": 16, "use_cpu": True,
    }  # fmt: skip
    return transformers.TrainingArguments(**{**usual, **changes})


def brief(folder: Path, **changes: Any) -> transformers.TrainingArguments:
    """One epoch, nothing evaluated and nothing saved."""
    plain = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False, "num_train_epochs": 1}
    return arguments(folder, **{**plain, **changes})


def tuner(bert: str, args: Any, schema: LabelSchema | None = None) -> SupervisedFineTuner:
    schema = schema or LabelSchema(dict(enumerate("abcde")))
    return SupervisedFineTuner(bert, args, schema, HFTokenizer(bert), ModelFactory, TrainerBuilder, MetricsComputer())


# the notebook, cell by cell


def write_earlier_files(folder: Path, own_ids: bool) -> None:
    """dataset_anotado_completo.csv, problematic_cases.csv: 130 texts, one consensus in 13 wrong, 4 problematic."""
    df = reviews(130).rename(columns={"label": "ground_truth"})
    if not own_ids:
        df["text"] += "\n"
        df["text_id"] = [hashlib.md5(text.strip().encode()).hexdigest() for text in df["text"]]
    votes = df["ground_truth"].where(df.index % 13 != 12, (df["ground_truth"] + 1) % 5)
    df["text_len"] = df["text"].str.len()
    for model in ("qwen3-8b", "llama3.1-8b", "deepseek-r1-8b"):
        df[f"{model}_consensus"] = votes
    df["most_common_annotation"] = votes
    df["consensus_score"], df["consensus_level"], df["is_problematic"] = 1.0, "high", False
    tied = df.index[[5, 17, 40, 99]]
    df.loc[tied, ["consensus_score", "is_problematic"]] = [1 / 3, True]
    df.loc[tied[:2], "most_common_annotation"] = -1
    df.to_csv(folder / "dataset_anotado_completo.csv", index=False)
    problems = df.loc[tied, ["text_id", "text", "consensus_score"]].assign(entropy=1.58)
    problems["text"] = problems["text"].str[:100]
    problems.to_csv(folder / "problematic_cases.csv", index=False)


@pytest.mark.parametrize("own_ids", [True, False], ids=["integer ids", "md5 ids, texts that end in a newline"])
def test_the_cells_of_an_old_notebook_run(tmp_path: Path, bert: str, own_ids: bool) -> None:
    write_earlier_files(tmp_path, own_ids)

    # [1] the annotated dataset
    df = pd.read_csv(tmp_path / "dataset_anotado_completo.csv")
    df_gt = df[["text_id", "text", "ground_truth"]].rename(columns={"ground_truth": "label"})
    df_ann = df[["text_id", "text", "most_common_annotation"]].rename(columns={"most_common_annotation": "label"})

    # [2] label descriptions; two texts have no valid vote
    df_gt = add_label_description(df_gt, "sst1")
    with pytest.warns(ConsensoWarning, match=r"2 of 130 labels \(-1\)"):
        df_ann = add_label_description(df_ann, "sst1")

    # [3] label schema
    label_schema = compat.LabelSchema.from_dataframe(df_ann)
    assert label_schema.num_labels() == 5
    assert label_schema.id2label[4] == "very positive"

    # [4] drop the problematic cases
    problematic = pd.read_csv(tmp_path / "problematic_cases.csv")
    df_ann = df_ann[~df_ann["text_id"].isin(problematic["text_id"])]
    df_gt = df_gt[~df_gt["text_id"].isin(problematic["text_id"])]
    assert len(df_ann) == len(df_gt) == 126

    # [5] the same training texts for both; validation and test (gold) from the rest, half each
    train_ids, rest_ids = train_test_split(df_gt["text_id"], test_size=60, stratify=df_gt["label"], random_state=42)
    gt_aligned, ann_aligned = DatasetAligner("text_id", "label", "label").align(
        df_gt[df_gt["text_id"].isin(train_ids)], df_ann
    )
    rest = df_gt[df_gt["text_id"].isin(rest_ids)]
    df_val, df_test = train_test_split(rest, test_size=0.5, stratify=rest["label"], random_state=42)
    val_ds, test_ds = Dataset.from_pandas(df_val), Dataset.from_pandas(df_test)
    assert (len(gt_aligned), len(df_val), len(df_test)) == (66, 30, 30)

    # [6] training arguments
    args = TrainingArguments(
        output_dir=str(tmp_path / "checkpoints"),
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="f1_macro",
        greater_is_better=True,
        save_total_limit=1,
        seed=42,
        learning_rate=4e-3,
        lr_scheduler_type="constant",
        num_train_epochs=6,
        per_device_train_batch_size=8,
        weight_decay=0.01,
        disable_tqdm=True,
    )

    # [7] fit and evaluate, consensus and gold
    results = []
    for source, frame in (("consensus_llm", ann_aligned), ("ground_truth", gt_aligned)):
        fine_tuner = SupervisedFineTuner(
            model_name=bert,
            training_args=args,
            label_schema=label_schema,
            tokenizer=HFTokenizer(bert, max_length=256),
            model_factory=ModelFactory,
            trainer_builder=TrainerBuilder,
            metrics_computer=MetricsComputer(),
        )
        fine_tuner.fit(Dataset.from_pandas(frame), val_ds)
        assert fine_tuner.best_val_metrics()["eval_f1_macro"] == fine_tuner.trainer.state.best_metric
        results.append({**fine_tuner.evaluate(test_ds), "source": source})

    # [8] the results
    pd.DataFrame(results).to_csv(tmp_path / "tiny-bert_fine_tuning_results.csv", index=False)
    table = pd.read_csv(tmp_path / "tiny-bert_fine_tuning_results.csv")
    assert list(table.columns) == [
        "eval_loss", "eval_accuracy", "eval_f1_macro", "eval_runtime", "eval_samples_per_second",
        "eval_steps_per_second", "epoch", "source",
    ]  # fmt: skip
    assert list(table["source"]) == ["consensus_llm", "ground_truth"]
    assert (table["eval_accuracy"] > 0.5).all()


# datasets


def write_csv(folder: Path, n: int = 60) -> Path:
    path = folder / "texts.csv"
    reviews(n, ids=(-1, 1)).drop(columns="text_id").to_csv(path, index=False)
    return path


def test_a_local_file_becomes_text_label_and_description(tmp_path: Path) -> None:
    df, categories = load_hf_dataset_as_dataframe(str(write_csv(tmp_path)), tmp_path, DatasetConfig())
    assert list(df.columns) == ["text", "label", "label_description"]
    assert categories == [-1, 1]
    assert df["label"].value_counts().to_dict() == {-1: 30, 1: 30}
    assert (df["label_description"] == df["label"].astype(str)).all()


def test_rows_come_shuffled_by_the_seed(tmp_path: Path) -> None:
    path = str(write_csv(tmp_path))
    given, one, again, other = (
        load_hf_dataset_as_dataframe(path, tmp_path, DatasetConfig(random_state=seed))[0] for seed in (0, 42, 42, 7)
    )
    assert list(given["text"]) == list(pd.read_csv(path)["text"])
    assert list(one["text"]) == list(again["text"]) != list(other["text"])
    assert set(one["text"]) == set(given["text"])


def test_the_specific_configuration_wins(tmp_path: Path) -> None:
    path, general = str(write_csv(tmp_path)), DatasetConfig(sample_size=50, random_state=7)
    for specific in ({"sample_size": 10, "path": "waashk/x", "split": None}, DatasetConfig(sample_size=10)):
        df, _ = load_hf_dataset_as_dataframe(path, tmp_path, general, specific)
        assert len(df) == 10


def test_repeated_texts_are_counted(tmp_path: Path) -> None:
    df = reviews(20)[["text", "label"]]
    pd.concat([df, df[:3]]).to_csv(tmp_path / "texts.csv", index=False)
    with pytest.warns(ConsensoWarning, match="of 23 rows were left out: 3 exact duplicate"):
        found, _ = load_hf_dataset_as_dataframe(str(tmp_path / "texts.csv"), None, DatasetConfig())
    assert len(found) == 20


def test_a_saved_folder_is_read_by_split(tmp_path: Path) -> None:
    parts = {
        name: Dataset.from_pandas(reviews(20, seed)[["text", "label"]]) for seed, name in enumerate(["train", "test"])
    }
    DatasetDict(parts).save_to_disk(tmp_path / "saved")
    folder = str(tmp_path / "saved")
    assert len(load_hf_dataset_as_dataframe(folder, None, DatasetConfig(split="test"))[0]) == 20
    both = DatasetConfig(split="test", combine_splits=["train", "test"])
    assert len(load_hf_dataset_as_dataframe(folder, None, both)[0]) == 40


def test_the_hub_cache_is_the_folder_that_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub

    import consenso.data

    before, seen = huggingface_hub.constants.HF_HUB_CACHE, []
    load = consenso.data.load_dataset

    def spy(*given: Any, **options: Any) -> Any:
        seen.extend([datasets.config.HF_DATASETS_CACHE, huggingface_hub.constants.HF_HUB_CACHE])
        return load(*given, **options)

    monkeypatch.setattr(consenso.data, "load_dataset", spy)
    load_hf_dataset_as_dataframe(str(write_csv(tmp_path)), tmp_path / "cache", DatasetConfig())
    assert seen == [str(tmp_path / "cache")] * 2
    assert before == huggingface_hub.constants.HF_HUB_CACHE


def test_remove_texts_says_that_it_does_nothing(tmp_path: Path) -> None:
    with pytest.warns(ConsensoWarning, match="remove_texts has no effect"):
        load_hf_dataset_as_dataframe(str(write_csv(tmp_path)), None, DatasetConfig(remove_texts=True))


def test_label_descriptions_come_in_a_copy() -> None:
    df = reviews(10)
    described = add_label_description(df, "sst1")
    assert "label_description" not in df.columns
    assert list(described["label_description"][:5]) == [
        "very negative",
        "negative",
        "neutral",
        "positive",
        "very positive",
    ]


def test_labels_read_as_floats_or_words_have_descriptions() -> None:
    df = pd.DataFrame({"label": [0.0, None, "4", "positive", "ERROR"]}, dtype=object)
    with pytest.warns(ConsensoWarning, match="2 of 5 labels"):
        described = add_label_description(df, "sst1")["label_description"]
    assert described.fillna("–").tolist() == ["very negative", "–", "very positive", "positive", "–"]


def test_an_unknown_dataset_is_told_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'sst1'"):
        add_label_description(reviews(5), "sst_1")
    with pytest.raises(DataError, match="missing column 'label'"):
        add_label_description(reviews(5).rename(columns={"label": "gold"}), "sst1")


# aligning


def gold(*rows: tuple[Any, Any], **more: Any) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["text_id", "ground_truth"]).assign(**more)


def annotated(*rows: tuple[Any, Any], **more: Any) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["text_id", "most_common_annotation"]).assign(**more)


def align(df_gt: pd.DataFrame, df_ann: pd.DataFrame, by: str = "text_id") -> tuple[pd.DataFrame, pd.DataFrame]:
    return DatasetAligner(by, "ground_truth", "most_common_annotation").align(df_gt, df_ann)


def test_aligned_frames_hold_the_same_ids_in_the_same_order() -> None:
    gt, ann = align(gold((3, 0), (1, 1), (2, 2), (9, 0)), annotated((1, 4), (2, 2), (3, 3), (7, 1)))
    assert gt["text_id"].tolist() == ann["text_id"].tolist() == [3, 1, 2]
    assert gt["label"].tolist() == [0, 1, 2]
    assert ann["label"].tolist() == [3, 4, 2]
    assert "ground_truth" in gt.columns


def test_ids_are_compared_as_clean_text() -> None:
    gt, ann = align(gold((7, 0), (8, 1)), annotated((8.0, 1), (7.0, 0)))
    assert gt["text_id"].tolist() == ann["text_id"].tolist() == [7, 8]
    gt, _ = align(gold((7, 0), (8, 1)), annotated(("8\n", 1), (" 7", 0)))
    assert gt["text_id"].tolist() == [7, 8]
    texts = gold((1, 0), (2, 1), text=["café\n", "tea"]), annotated((5, 1), (6, 0), text=["tea\n", "cafe\u0301"])
    gt, ann = align(*texts, by="text")
    assert ann["label"].tolist() == [0, 1]


def test_long_integer_ids_are_not_rounded() -> None:
    big = 2**60
    gt, _ = align(gold((big, 0), (big + 1, 1)), annotated((big + 1, 1)))
    assert gt["text_id"].tolist() == [big + 1]


def test_annotations_that_are_no_label_are_left_out() -> None:
    with pytest.warns(ConsensoWarning, match=r"1 texts aligned; left out: 3 row\(s\) of df_ann without a usable label"):
        gt, _ = align(gold((1, 0), (2, 1), (3, 1), (4, 1)), annotated((1, -1), (2, "ERROR"), (3, None), (4, "1")))
    assert gt["text_id"].tolist() == [4]


def test_minus_one_is_a_label_where_the_gold_has_it() -> None:
    _, ann = align(gold((1, -1), (2, 1)), annotated((1, -1), (2, -1)))
    assert ann["label"].tolist() == [-1, -1]


def test_repeated_ids_stay_once_and_contradictions_go() -> None:
    with pytest.warns(ConsensoWarning, match=r"2 row\(s\) of df_gt with contradicting labels"):
        gt, ann = align(gold((1, 0), (1, 0), (2, 0), (2, 1), (3, 1)), annotated((1, 0), (2, 0), (3, 1)))
    assert gt["text_id"].tolist() == ann["text_id"].tolist() == [1, 3]


def test_ids_that_mean_other_texts_are_found() -> None:
    df_gt = gold((1, 0), (2, 1), (3, 1), text=["one", "two", "three"])
    with pytest.warns(ConsensoWarning, match=r"1 id\(s\) that name different texts"):
        gt, _ = align(df_gt, annotated((1, 0), (2, 1), (3, 1), text=["One!", "two\n", "four"]))
    assert gt["text_id"].tolist() == [1, 2]
    with pytest.raises(JoinError, match="2 of 3 shared ids name different texts"):
        align(df_gt, annotated((1, 0), (2, 1), (3, 1), text=["one", "three", "two"]))


def test_frames_that_share_nothing_do_not_align() -> None:
    with pytest.raises(JoinError, match=r"share no labelled text.*'1' and 'a'"):
        align(gold((1, 0)), annotated(("a", 0)))
    with pytest.raises(DataError, match="df_ann: missing column"):
        align(gold((1, 0)), gold((1, 0)))


# training arguments


def test_old_names_are_translated_with_one_note(tmp_path: Path) -> None:
    with pytest.warns(ConsensoWarning) as caught:
        args = TrainingArguments(
            str(tmp_path),
            evaluation_strategy="epoch",
            warmup_ratio=0.1,
            group_by_length=True,
            logging_dir="logs",
            overwrite_output_dir=True,
            no_cuda=True,
            per_gpu_train_batch_size=4,
            gradient_checkpointing=False,
            save_safetensors=True,
            optim="adamw_hf",
            learning_rate=1e-5,
        )
    assert len(caught) == 1
    assert caught[0].filename == __file__
    note = str(caught[0].message)
    for told in (
        "evaluation_strategy → eval_strategy='epoch'", "warmup_ratio → warmup_steps=0.1", "TENSORBOARD_LOGGING_DIR",
        "group_by_length → train_sampling_strategy='group_by_length'", "no_cuda → use_cpu=True",
    ):  # fmt: skip
        assert told in note
    assert isinstance(args, transformers.TrainingArguments)
    assert (args.eval_strategy, args.use_cpu, args.per_device_train_batch_size) == ("epoch", True, 4)
    assert (args.get_warmup_steps(200), args.train_sampling_strategy, args.optim) == (
        20,
        "group_by_length",
        "adamw_torch",
    )


def test_every_translation_is_accepted(tmp_path: Path) -> None:
    defaults = transformers.TrainingArguments(str(tmp_path), use_cpu=True)
    renamed = {old: getattr(defaults, new) for old, new in translations._RENAMED.items()}
    others = dict.fromkeys([*translations._REPLACED, *translations._GONE, *translations._NO_LONGER], True)
    for name, value in {**renamed, **others}.items():
        with pytest.warns(ConsensoWarning, match=f"{name} → "):
            TrainingArguments(str(tmp_path), **{name: value})


def test_the_new_name_counts_where_both_are_given(tmp_path: Path) -> None:
    with pytest.warns(ConsensoWarning, match="given as well"):
        args = TrainingArguments(str(tmp_path), warmup_ratio=0.1, warmup_steps=7, use_cpu=True)
    assert args.warmup_steps == 7


def test_current_names_pass_without_a_note(tmp_path: Path) -> None:
    assert TrainingArguments(tmp_path, eval_strategy="steps", eval_steps=5, use_cpu=True).eval_steps == 5


def test_a_misspelt_argument_is_told_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'learning_rate'"):
        TrainingArguments("out", learning_rat=1e-5)


# tokens and batches


def test_tokens_are_cut_but_never_padded(bert: str) -> None:
    dataset = Dataset.from_dict({"text": ["good\n", " ".join(["the"] * 300)], "label": [0, 1]})
    encoded = HFTokenizer(bert, max_length=64).encode(dataset)
    assert encoded.column_names == ["text", "label", "input_ids", "attention_mask"]
    assert [len(ids) for ids in encoded["input_ids"]] == [3, 64]
    assert [sum(mask) for mask in encoded["attention_mask"]] == [3, 64]
    assert encoded.cache_files == []
    again = HFTokenizer(bert).encode(encoded)
    assert [len(ids) for ids in again["input_ids"]] == [3, 256]


def test_a_pandas_frame_stays_one(bert: str) -> None:
    frame = reviews(6).set_index(pd.Index([9, 8, 7, 6, 5, 4]))
    encoded = HFTokenizer(bert).encode(frame)
    assert encoded.index.tolist() == [9, 8, 7, 6, 5, 4]
    assert encoded["input_ids"].iloc[0] == HFTokenizer(bert).encode(Dataset.from_pandas(frame))["input_ids"][0]
    assert "input_ids" not in frame.columns


def test_bad_datasets_are_refused(bert: str) -> None:
    tokenizer = HFTokenizer(bert)
    with pytest.raises(DataError, match="missing column 'text'"):
        tokenizer.encode(pd.DataFrame({"sentence": ["a"]}))
    with pytest.raises(DataError, match="1 of 2 texts are empty"):
        tokenizer.encode(pd.DataFrame({"text": ["a", None]}))
    with pytest.raises(DataError, match="DatasetDict"):
        tokenizer.encode(DatasetDict({"train": Dataset.from_dict({"text": ["a"]})}))


def built(bert: str, args: Any, train: pd.DataFrame, dev: pd.DataFrame | None = None) -> Any:
    schema, tokenizer = LabelSchema(dict(enumerate("abcde"))), HFTokenizer(bert)
    model = ModelFactory(bert, schema).create()
    return TrainerBuilder(args, MetricsComputer).build(
        model, tokenizer.encode(train), None if dev is None else tokenizer.encode(dev)
    )


def test_training_batches_are_those_of_the_encoder_student(tmp_path: Path, bert: str) -> None:
    train = reviews(45)
    trainer = built(bert, brief(tmp_path, seed=3), train)
    assert isinstance(trainer, transformers.Trainer)
    lengths = np.array([len(row["input_ids"]) for row in trainer.train_dataset])
    expected = training_batches(lengths, 8, 12, student.stream(3, student.ORDER))
    loader = trainer.get_train_dataloader()
    assert len(loader) == 6
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        for batch, rows in zip(loader, [next(expected) for _ in range(6)], strict=True):
            assert batch["labels"].tolist() == train["label"].iloc[rows].tolist()
            assert batch["input_ids"].shape == (len(rows), lengths[rows].max())
            assert batch["attention_mask"].sum().item() == lengths[rows].sum()


def test_each_epoch_of_a_fit_has_other_batches_and_every_text_once(tmp_path: Path, bert: str) -> None:
    trainer = built(bert, brief(tmp_path, num_train_epochs=3), reviews(40))
    collate, seen = trainer.data_collator, []

    def watch(rows: list[dict[str, Any]]) -> Any:
        seen.append(sorted(row["input_ids"].tobytes() for row in rows))
        return collate(rows)

    trainer.data_collator = watch
    trainer.train()
    epochs = [seen[0:5], seen[5:10], seen[10:15]]
    assert len(seen) == 15
    assert all(sorted(chain(*epoch)) == sorted(chain(*epochs[0])) for epoch in epochs)
    assert len(set(chain(*epochs[0]))) == 40
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_last_short_batch_can_be_dropped(tmp_path: Path, bert: str) -> None:
    loader = built(bert, brief(tmp_path, dataloader_drop_last=True), reviews(45)).get_train_dataloader()
    assert [len(batch["labels"]) for batch in loader] == [8] * 5
    assert len(loader) == 5


def test_a_wish_for_the_given_order_is_kept(tmp_path: Path, bert: str) -> None:
    train = reviews(20)
    loader = built(bert, brief(tmp_path, train_sampling_strategy="sequential"), train).get_train_dataloader()
    assert list(chain(*(batch["labels"].tolist() for batch in loader))) == train["label"].tolist()


def test_padding_of_another_tokeniser_is_taken_off(tmp_path: Path, bert: str) -> None:
    frame = reviews(8)
    found = HFTokenizer(bert).tokenizer(frame["text"].tolist(), padding="max_length", max_length=200)
    padded = frame.assign(input_ids=found["input_ids"], attention_mask=found["attention_mask"])
    trainer = TrainerBuilder(brief(tmp_path), MetricsComputer()).build(
        ModelFactory(bert, LabelSchema(dict(enumerate("abcde")))).create(), Dataset.from_pandas(padded), padded
    )
    assert max(len(row["input_ids"]) for row in trainer.train_dataset) < 20
    lengths = [len(row["input_ids"]) for row in trainer.eval_dataset]
    assert lengths == sorted(lengths)


def test_predictions_keep_the_order_of_the_rows(tmp_path: Path, bert: str) -> None:
    with pytest.warns(ConsensoWarning, match="group_by_length"):
        args = TrainingArguments(str(tmp_path), group_by_length=True, use_cpu=True, per_device_eval_batch_size=4)
    trainer = built(bert, args, reviews(10))
    raw = HFTokenizer(bert).encode(Dataset.from_pandas(reviews(30, seed=1)))
    found = trainer.predict(raw)
    assert found.label_ids.tolist() == raw["label"][:]
    one_by_one = [trainer.predict(raw.select([i])).predictions[0] for i in range(6)]
    np.testing.assert_allclose(found.predictions[:6], one_by_one, atol=1e-5)


# metrics


def test_metrics_are_accuracy_and_macro_f1() -> None:
    logits, codes = np.array([[2.0, 1, 0], [0, 3, 0], [5, 1, 0], [0, 1, 0]]), np.array([0, 1, 1, 1])
    expected = {"accuracy": 0.75, "f1_macro": (2 / 3 + 0.8) / 2}
    assert MetricsComputer()((logits, codes)) == pytest.approx(expected)
    prediction = transformers.EvalPrediction(predictions=(logits, "hidden"), label_ids=codes)
    assert MetricsComputer()(prediction) == pytest.approx(expected)
    assert expected["f1_macro"] == pytest.approx(f1_score(codes, [0, 1, 0, 1], average="macro"))


# fitting


@pytest.mark.parametrize("ids", [(-1, 1), (1, 2, 3, 4, 10)], ids=["-1 and 1", "1 to 10 with gaps"])
def test_labels_may_be_any_integers(tmp_path: Path, bert: str, ids: tuple[int, ...]) -> None:
    train, test = reviews(80, ids=ids), reviews(40, seed=1, ids=ids)
    schema = LabelSchema({i: f"class {i}" for i in ids})
    fitted = tuner(bert, brief(tmp_path, num_train_epochs=8), schema)
    fitted.fit(Dataset.from_pandas(train))
    scores, found = fitted.evaluate(test), fitted.predict(test)
    assert scores["eval_accuracy"] > 0.7
    assert scores["eval_accuracy"] == pytest.approx((found["label"] == test["label"]).mean())
    assert found["text_id"].tolist() == test["text_id"].tolist()
    assert set(found["label"]) <= set(ids)
    assert found["label_description"].tolist() == [f"class {i}" for i in found["label"]]
    assert fitted.trainer.model.config.id2label == {k: f"class {i}" for k, i in enumerate(ids)}
    np.testing.assert_allclose(found.filter(like="prob_").sum(axis=1), 1)
    with pytest.raises(DataError, match=r"training set: 1 of 2 labels \(7\) are not in the schema"):
        fitted.fit(pd.DataFrame({"text": ["a", "b"], "label": [ids[0], 7]}))


def test_a_number_is_an_id_even_where_names_are_numbers(tmp_path: Path, bert: str) -> None:
    schema = LabelSchema({1: "0", 0: "1"})
    frame = pd.DataFrame({"text": ["good", "bad", "fun", "dull"], "label": [1, 0, "0", "1"]}, dtype=object)
    trainer = TrainerBuilder(brief(tmp_path), MetricsComputer()).build(
        ModelFactory(bert, schema).create(), HFTokenizer(bert).encode(frame)
    )
    assert [row["labels"] for row in trainer.train_dataset] == [0, 1, 0, 1]


def test_two_fits_are_equal_whatever_ran_before(tmp_path: Path, bert: str) -> None:
    train, dev, test = reviews(60), reviews(30, seed=1), reviews(30, seed=3)
    one, two = tuner(bert, arguments(tmp_path / "one")), tuner(bert, arguments(tmp_path / "two"))
    one.fit(Dataset.from_pandas(train), Dataset.from_pandas(dev))
    other = tuner(bert, arguments(tmp_path / "two", seed=43, num_train_epochs=7))
    other.fit(train, dev)
    two.fit(train, dev)  # beside the later checkpoints of another run
    ignored = {"eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}
    scores = [{k: v for k, v in fitted.evaluate(test).items() if k not in ignored} for fitted in (one, two)]
    assert scores[0] == scores[1]
    assert one.best_val_metrics()["step"] == two.best_val_metrics()["step"]
    pd.testing.assert_frame_equal(one.predict(test), two.predict(test))
    assert not one.predict(test).equals(other.predict(test))


def test_the_kept_state_is_the_one_that_was_asked_for_and_judged(tmp_path: Path, bert: str) -> None:
    dev = reviews(30, seed=1)
    upside_down = {"metric_for_best_model": "eval_loss", "greater_is_better": True}  # keeps a state of the first epochs
    fitted = tuner(bert, arguments(tmp_path, seed=3, **upside_down))
    with pytest.warns(ConsensoWarning, match="this run collapsed"):
        fitted.fit(reviews(60), dev)
    best, history = fitted.best_val_metrics(), [e for e in fitted.trainer.state.log_history if "eval_loss" in e]
    assert best["eval_loss"] == max(entry["eval_loss"] for entry in history) > history[-1]["eval_loss"]
    found = fitted.predict(dev)
    assert f1_score(dev["label"], found["label"], average="macro") == pytest.approx(best["eval_f1_macro"])
    with pytest.warns(ConsensoWarning, match="test texts stand among the training texts"):
        fitted.evaluate(reviews(60))
    assert fitted.best_val_metrics() == best  # an evaluation afterwards is none of the validation set


def test_a_checkpoint_is_a_whole_model_folder(tmp_path: Path, bert: str) -> None:
    fitted = tuner(bert, arguments(tmp_path))
    fitted.fit(reviews(60), reviews(30, seed=1))
    kept = [path for path in (tmp_path / "out").iterdir() if path.name.startswith("checkpoint-")]
    assert len(kept) <= 2  # the best and the last, as save_total_limit=1 says
    model = transformers.AutoModelForSequenceClassification.from_pretrained(kept[0])
    assert model.config.id2label == dict(enumerate("abcde"))
    assert HFTokenizer(str(kept[0])).encode(reviews(1))["input_ids"].iloc[0][0] == 2


def test_nothing_is_saved_unless_asked(tmp_path: Path, bert: str) -> None:
    tuner(bert, brief(tmp_path)).fit(Dataset.from_pandas(reviews(16)))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_classes_and_instances_are_both_taken(tmp_path: Path, bert: str) -> None:
    args, schema = brief(tmp_path), LabelSchema(dict(enumerate("abcde")))
    parts = {
        "tokenizer": (HFTokenizer, HFTokenizer(bert)),
        "model_factory": (ModelFactory, ModelFactory(bert, schema)),
        "trainer_builder": (TrainerBuilder, TrainerBuilder(args, MetricsComputer())),
        "metrics_computer": (MetricsComputer, MetricsComputer()),
    }
    found = []
    for which in (0, 1):
        fitted = SupervisedFineTuner(bert, args, schema, **{name: pair[which] for name, pair in parts.items()})
        fitted.fit(reviews(16))
        found.append(fitted.predict(reviews(5, seed=1)))
    pd.testing.assert_frame_equal(*found)


def test_calls_in_the_wrong_order_are_explained(tmp_path: Path, bert: str) -> None:
    fitted = tuner(bert, brief(tmp_path))
    with pytest.raises(ConfigError, match="call fit first"):
        fitted.evaluate(reviews(5))
    fitted.fit(reviews(16))
    with pytest.raises(ConfigError, match="fit made no evaluation"):
        fitted.best_val_metrics()
    with pytest.raises(ConfigError, match="fit got no eval_ds"):
        tuner(bert, arguments(tmp_path)).fit(reviews(16))


# warnings


def test_a_collapsed_run_warns_once(tmp_path: Path, bert: str) -> None:
    fitted = tuner(bert, arguments(tmp_path, learning_rate=1e-9, num_train_epochs=1))
    with pytest.warns(ConsensoWarning, match="this run collapsed: ") as caught:
        fitted.fit(reviews(40), reviews(30, seed=1))
    assert [warning.filename for warning in caught] == [__file__]
    fitted.evaluate(reviews(30, seed=3))


def test_without_a_validation_set_the_test_set_shows_the_collapse(tmp_path: Path, bert: str) -> None:
    fitted = tuner(bert, brief(tmp_path, learning_rate=1e-9))
    fitted.fit(reviews(40))
    with pytest.warns(ConsensoWarning, match="this run collapsed: "):
        fitted.evaluate(reviews(30, seed=3))


def test_training_sets_of_other_size_or_texts_warn(tmp_path: Path, bert: str) -> None:
    fitted, texts = tuner(bert, brief(tmp_path)), reviews(40)
    fitted.fit(texts)
    with pytest.warns(ConsensoWarning, match="has 30 rows, the one fitted before had 40, and 30 texts are common"):
        fitted.fit(texts[:30])
    with pytest.warns(ConsensoWarning, match="has 30 rows, the one fitted before had 30, and 20 texts are common"):
        fitted.fit(texts[10:])


def test_the_same_texts_with_other_labels_do_not_warn(tmp_path: Path, bert: str) -> None:
    fitted, texts = tuner(bert, brief(tmp_path)), reviews(40)
    fitted.fit(texts)
    fitted.fit(texts.assign(label=2, text=texts["text"] + "\n").sample(frac=1, random_state=0))


def test_evaluation_texts_among_the_training_texts_warn(tmp_path: Path, bert: str) -> None:
    train, dev = reviews(60), reviews(30, seed=1)
    leaked = pd.concat(
        [train[:2].assign(text=train["text"] + "\n"), train[2:3].assign(text=train["text"].str.upper() + "!")]
    )
    fitted = tuner(bert, arguments(tmp_path))
    message = r"3 of 33 evaluation texts stand among the training texts \(2 exactly, 1 but for case or punctuation\)"
    with pytest.warns(ConsensoWarning, match=message):
        fitted.fit(train, pd.concat([dev, leaked]))
    with pytest.warns(ConsensoWarning, match="1 of 31 test texts"):
        fitted.evaluate(Dataset.from_pandas(pd.concat([dev, leaked[:1]])))
    fitted.evaluate(dev)


# the module


def test_signatures_are_those_notebooks_use() -> None:
    expected = {
        DatasetConfig: ["split", "combine_splits", "sample_size", "random_state", "hf_file", "remove_texts"],
        load_hf_dataset_as_dataframe: [
            "dataset_name", "cache_dir", "dataset_global_config", "dataset_specific_config",
        ],
        HFTokenizer: ["model_name", "max_length"],
        ModelFactory: ["model_name", "label_schema"],
        TrainerBuilder: ["training_args", "metrics_computer"],
        TrainerBuilder.build: ["self", "model", "train_ds", "eval_ds"],
        SupervisedFineTuner: [
            "model_name", "training_args", "label_schema", "tokenizer", "model_factory", "trainer_builder",
            "metrics_computer",
        ],
        DatasetAligner: ["id_column", "gt_label", "ann_label"],
        DatasetAligner.align: ["self", "df_gt", "df_ann"],
    }  # fmt: skip
    for thing, names in expected.items():
        assert list(inspect.signature(thing).parameters) == names
    assert compat.LabelSchema is LabelSchema


def test_the_example_of_the_docs_runs(tmp_path: Path, bert: str) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "from-the-earlier-system.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0].replace("roberta-base", bert)
    cells: dict[str, Any] = {
        "df": reviews(60), "df_gold": reviews(50), "training_args": arguments(tmp_path),
        "train_ds": reviews(60), "val_ds": reviews(30, seed=1), "test_ds": reviews(30, seed=3),
    }  # fmt: skip
    exec(code, cells)
    assert len(cells["gold"]) == len(cells["consensus"]) == 50
    assert set(cells) >= set(compat.__all__) - {"ConsensoWarning", "DatasetConfig", "load_hf_dataset_as_dataframe"}
