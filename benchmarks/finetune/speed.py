"""Real tokens per CPU second of a training: the usual recipe, transformers' Trainer and consenso, in turns in one process.

`python benchmarks/finetune/speed.py [--model minilm roberta] [--rounds 3] [--processes]`. SST-5 training sentences, batches of
16, one thread, optimiser steps only (no loading, no evaluation); a real token is one that is not padding.

- `padded 256`: every text padded to 256, random order, a plain loop with fused AdamW: the earlier system's recipe without
  its checkpoints and its Trainer.
- `Trainer, padded`: the same through transformers' Trainer, as the earlier system ran it (MiniLM only: it takes minutes).
- `Trainer, dynamic`: transformers' Trainer, batches padded to their longest text, random order.
- `consenso`, `consenso, tokens`, `consenso, random`: the student `encoder` with the three batchings (MiniLM); `consenso, bf16` where
  the processor has bf16.

`roberta` has the geometry of roberta-base (12 layers of 768) with random weights. The share of the GEMM peak counts the
floating-point operations of useful tokens alone, 6 per weight of a matrix and token, beside what torch.mm reaches here.
`--processes`: two trainings at the same time against one, in real tokens per wall second.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
from sst5 import RESULTS, SCHEMA, processor, sst5

from consenso import encoders
from consenso.finetune.fitting import Fitting
from consenso.finetune.recipe import Recipe
from consenso.finetune.students import encoder

STEPS = {
    "minilm": {"padded 256": 6, "Trainer, padded": 3, "Trainer, dynamic": 50, "consenso": 80},
    "roberta": {"padded 256": 1, "Trainer, dynamic": 6, "consenso": 12},
}
WARM_UP = 2
TEXTS = 3000


def roberta_geometry(folder: Path) -> str:
    """A RoBERTa of 12 layers of 768 with random weights, with MiniLM's tokenizer."""
    from transformers import RobertaConfig, RobertaModel

    torch = encoders.import_torch()
    torch.manual_seed(0)
    encoders.load_tokenizer("embedded").save_pretrained(folder)
    RobertaModel(RobertaConfig(vocab_size=50265, pad_token_id=0, max_position_embeddings=514)).save_pretrained(folder)
    return str(folder)


def gemm_peak() -> float:
    """The best of ten products of two 2,048 × 2,048 fp32 matrices, in floating-point operations per CPU second."""
    torch = encoders.import_torch()
    a, b, best = torch.randn(2048, 2048), torch.randn(2048, 2048), 0.0
    for _ in range(10):
        started = time.process_time()
        a @ b
        best = max(best, 2 * 2048**3 / (time.process_time() - started))
    return best


def flops_per_token(model: Any) -> int:
    """Forward and backward, matrices of the layers alone."""
    body = model.base_model
    return 6 * sum(p.numel() for name, p in body.named_parameters() if p.ndim == 2 and ".layer." in name)


def by_consenso(name: str, steps: int, **recipe: Any) -> tuple[float, float]:
    """Real tokens and CPU seconds of `steps` steps."""
    chosen = Recipe(encoder=name, evaluations=1, watch=False, **recipe)
    training, prepared, _ = sst5(TEXTS, 1, 1, chosen)
    few = training.dev_rows[:2]

    def fitting(count: int) -> Fitting:
        model = encoders.load_classifier(name, SCHEMA)
        short = encoder.Training(
            key="", seed=1, rows=training.rows, codes=training.codes, dev_rows=few, dev_codes=training.dev_codes[:2],
            asked=training.asked, steps=count,
        )  # fmt: skip
        return Fitting(model, short, prepared, chosen, "cpu", 1)

    with encoder.no_denormals():
        fitting(WARM_UP).fit()
        run = fitting(steps)
        started = time.process_time()
        run.fit()
        return run.real_tokens, time.process_time() - started


def padded_256(name: str, steps: int) -> tuple[float, float]:
    """The usual recipe in a plain loop."""
    torch = encoders.import_torch()
    training, prepared, _ = sst5(TEXTS, 1, 1, Recipe(encoder=name))
    model = encoders.load_classifier(name, SCHEMA).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=True)
    starts, tokens = prepared["starts"], prepared["tokens"]
    order, read, started = np.random.default_rng(1).permutation(len(training.rows)), 0, 0.0
    for step in range(1 + steps):
        if step == 1:
            read, started = 0, time.process_time()
        rows = order[16 * step : 16 * step + 16]
        ids = [tokens[starts[i] : starts[i + 1]] for i in training.rows[rows]]
        whole = np.zeros((len(rows), 256), dtype="int64")
        for i, each in enumerate(ids):
            whole[i, : len(each)] = each
        mask = torch.from_numpy((np.arange(256) < np.array(list(map(len, ids)))[:, None]).astype("int64"))
        labels = torch.from_numpy(training.codes[rows])
        model(input_ids=torch.from_numpy(whole), attention_mask=mask, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        read += sum(map(len, ids))
    return read, time.process_time() - started


def by_trainer(name: str, steps: int, pad_to: int | None = None) -> tuple[float, float]:
    """transformers' Trainer on the same texts, its own loop, nothing saved, nothing evaluated."""
    from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

    training, prepared, _ = sst5(TEXTS, 1, 1, Recipe(encoder=name))
    starts, tokens = prepared["starts"], prepared["tokens"]
    rows = [
        {"input_ids": tokens[starts[i] : starts[i + 1]].tolist(), "labels": int(code)}
        for i, code in zip(training.rows, training.codes)
    ]
    clock: dict[str, float] = {}
    read: list[int] = []
    pad = DataCollatorWithPadding(
        encoders.load_tokenizer(name), padding="max_length" if pad_to else True, max_length=pad_to
    )

    def collate(batch: list[dict[str, Any]]) -> Any:
        read.append(sum(len(row["input_ids"]) for row in batch))
        return pad(batch)

    class Timed(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == WARM_UP:
                clock["started"] = time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == WARM_UP + steps:
                clock["ended"] = time.process_time()

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=16, max_steps=WARM_UP + steps, learning_rate=5e-5, report_to=[],
            save_strategy="no", use_cpu=True, disable_tqdm=True, logging_strategy="no", seed=1,
        )  # fmt: skip
        model = encoders.load_classifier(name, SCHEMA)
        Trainer(model, arguments, data_collator=collate, train_dataset=rows, callbacks=[Timed()]).train()
    # the collator runs a batch ahead of the steps
    return sum(read[WARM_UP : WARM_UP + steps]), clock["ended"] - clock["started"]


def contenders(model: str, name: str) -> dict[str, Any]:
    """Name → a call that returns real tokens and CPU seconds."""
    steps = STEPS[model]
    found: dict[str, Any] = {
        "padded 256": lambda: padded_256(name, steps["padded 256"]),
        "Trainer, dynamic": lambda: by_trainer(name, steps["Trainer, dynamic"]),
        "consenso": lambda: by_consenso(name, steps["consenso"]),
    }
    if model == "minilm":
        found["consenso, tokens"] = lambda: by_consenso(name, steps["consenso"], batching="tokens")
        found["consenso, random"] = lambda: by_consenso(name, steps["consenso"] // 2, batching="random")
    if "Trainer, padded" in steps:
        found["Trainer, padded"] = lambda: by_trainer(name, steps["Trainer, padded"], pad_to=256)
    if encoders.has_bf16("cpu"):
        found["consenso, bf16"] = lambda: by_consenso(name, steps["consenso"], precision="bf16")
    return found


def measure(model: str, name: str, rounds: int) -> dict[str, Any]:
    """Rates of every contender in every round, and the share of the GEMM peak of that round."""
    torch = encoders.import_torch()
    torch.set_num_threads(1)
    flops, rates, peaks = flops_per_token(encoders.load_classifier(name, SCHEMA)), {}, []
    for number in range(rounds):
        peaks.append(gemm_peak())
        for which, call in contenders(model, name).items():
            read, seconds = call()
            rates.setdefault(which, []).append(read / seconds)
            print(f"{model}, round {number + 1}, {which}: {read / seconds:.0f} tokens/s", flush=True)
        peaks[-1] = max(peaks[-1], gemm_peak())
    return {"flops_per_token": flops, "gemm_peak": peaks, "tokens_per_cpu_second": rates}


def print_table(model: str, found: dict[str, Any]) -> None:
    """Medians with the range of the rounds; ratios are taken within a round."""
    rates, peaks, flops = found["tokens_per_cpu_second"], found["gemm_peak"], found["flops_per_token"]
    print(f"\n{model}: GEMM peak {median(peaks) / 1e9:.0f} GFLOP/s, {flops / 1e6:.0f} MFLOP per token")
    print("| contender | tokens/CPU s | × padded 256 | × Trainer, dynamic | share of the GEMM peak |")
    print("|---|---|---|---|---|")
    for which, rate in sorted(rates.items(), key=lambda row: median(row[1])):
        told = [
            f"{median(r / b for r, b in zip(rate, rates[base])):.1f} "
            f"({min(r / b for r, b in zip(rate, rates[base])):.1f} to {max(r / b for r, b in zip(rate, rates[base])):.1f})"
            for base in ("padded 256", "Trainer, dynamic")
        ]
        share = median(flops * r / peak for r, peak in zip(rate, peaks))
        print(f"| {which} | {median(rate):,.0f} | {told[0]} | {told[1]} | {share:.0%} |")


def _work(name: str, start: Any, ends: Any) -> None:
    encoders.import_torch().set_num_threads(1)
    by_consenso(name, WARM_UP)
    start.wait()
    began = time.monotonic()
    read, _ = by_consenso(name, 60)
    ends.put((read, began, time.monotonic()))


def measure_processes(name: str, rounds: int) -> list[float]:
    """Real tokens per wall second of two processes over those of one, both with one thread each."""
    context, ratios = multiprocessing.get_context("spawn"), []
    for _ in range(rounds):
        rates = []
        for count in (1, 2):
            start, ends = context.Barrier(count), context.Queue()
            workers = [context.Process(target=_work, args=(name, start, ends)) for _ in range(count)]
            for worker in workers:
                worker.start()
            told = [ends.get() for _ in workers]
            for worker in workers:
                worker.join()
            spent = max(end for *_, end in told) - min(began for _, began, _ in told)
            rates.append(sum(read for read, *_ in told) / spent)
        ratios.append(rates[1] / rates[0])
        print(f"two processes against one: {ratios[-1]:.2f}", flush=True)
    return ratios


def main() -> None:
    """Measure, print the tables and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", action="store_true")
    asked = parser.parse_args()
    place = RESULTS / "speed.json"
    kept = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        names = {"minilm": "embedded"}
        if "roberta" in asked.model:
            names["roberta"] = roberta_geometry(Path(folder))
        for model in asked.model:
            if asked.processes:
                kept[f"{model}, two processes"] = measure_processes(names[model], asked.rounds)
            else:
                kept[model] = measure(model, names[model], asked.rounds)
                print_table(model, kept[model])
    RESULTS.mkdir(exist_ok=True)
    kept["on"] = processor()
    place.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
