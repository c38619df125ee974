"""train_model: train one encoder as the experiment would, scale its probabilities, and save it with its card."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso import encoders
from consenso.errors import ConfigError, TrainingError
from consenso.experiment import run
from consenso.experiment_file import Experiment, read_experiment
from consenso.final_model.choosing import Chosen, check_labels, choose, compared_settings, settings_of
from consenso.final_model.pushing import check_push, push_model
from consenso.final_model.scoring import how_sure, in_comparison, on_test_texts
from consenso.final_model.unsaved import Unsaved
from consenso.finetune import Recipe
from consenso.finetune.metrics import cross_entropy, dev_scores, softmax
from consenso.finetune.pool import one_thread
from consenso.finetune.ranks import Ranks, find_ranks
from consenso.finetune.saving import check_target, fold_temperature, logits_of, save_classifier
from consenso.finetune.settings import LARGEST_SEED
from consenso.finetune.students import encoder
from consenso.finetune.training import Outcome, Prepared
from consenso.preconditions import need_voters
from consenso.report.model_card import model_card
from consenso.steps.running import Run
from consenso.store import RunFolder, environment
from consenso.temperature import fit_temperature, scale

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

FEWEST_DEV = 30
"""With fewer dev texts than this a temperature would be a guess; the model keeps T = 1."""


@dataclass(frozen=True)
class Trained:
    """A final model that was saved."""

    folder: Path
    """The model folder: `transformers.pipeline("text-classification", model=folder)` loads it."""
    facts: dict[str, Any]
    """What its consenso.json holds."""
    address: str | None = None
    """Where it was pushed to, if it was."""


def train_model(
    experiment: Experiment | str | Path | Mapping[str, Any],
    folder: str | Path | None = None,
    *,
    to: str | Path,
    labels: str | None = None,
    seed: int | None = None,
    seeds_tried: int = 1,
    all_texts: bool = False,
    threads: int = 1,
    force: bool = False,
    push_to_hub: str | None = None,
    private: bool = False,
    base: Path | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> Trained:
    """Train one encoder on the labels of an arm, save it as a model folder with a card, and return where and what it is.

    `experiment`, `folder`, `base`, `progress`: as `run`; its stages up to the labels are done first, as far as they are
    not done. `labels`: any arm (default: that of the primary contrast); its texts, steps and recipe are those of the
    experiment in fold 0 under `seed` (default: the first seed), so a training that the comparison holds comes out anew.
    `seeds_tried`: the seeds that follow are tried too and the best on dev is kept. `all_texts`: test texts train too.
    Processes that torchrun or accelerate has started train the model together; the first one writes it.
    `threads` above 1 is faster and may differ from the comparison's training in rounding. `force`: replace a model at `to`.

    Raises `ConfigError` for a wrong argument, `TrainingError` where every training collapsed or memory ran out (nothing
    is written then), and what `run` and `push_model` raise.
    """
    read, beside = read_experiment(experiment)
    arm, target = labels or read.compare.arm, Path(to)
    need_voters(read, [arm])
    encoders.check_encoder(read.finetune.for_student("encoder").recipe.encoder)
    _check(arm, target, force=force, seed=seed or 0, seeds_tried=seeds_tried, threads=threads)
    if push_to_hub is not None:
        check_push(push_to_hub)
    elif private:
        raise ConfigError("--private goes with --push-to-hub REPO_ID")
    place, base = RunFolder(folder if folder is not None else Path("runs") / read.name), base or beside
    ranks = find_ranks()
    tell = progress if progress and ranks.rank == 0 else lambda event: None
    if ranks.rank == 0:
        run(_as_compared(read, place), place.path, until="consensus", progress=progress, base=base)
    ranks.wait()
    with place.locked() if ranks.rank == 0 else contextlib.nullcontext():
        this = Run(read, place, base, tell)
        seeds = _seeds(settings_of(this).seeds, seed, seeds_tried)
        best = _best(this, [partial(choose, this, arm, s, all_texts=all_texts) for s in seeds], threads, ranks)
        asked = _probabilities(best)
        temperature = _fold_temperature(best, asked)
        facts = _facts(this, best, asked, temperature, all_texts=all_texts)
        facts = {"name": push_to_hub or target.resolve().name, **facts}
        if ranks.rank:
            return Trained(target, facts)  # the first process writes the model
        card = model_card(place, facts)
        save_classifier(
            target,
            best.model,
            best.chosen.study.recipe.encoder,
            max_length=facts["max_length"],
            facts=facts,
            card=card,
            force=force,
        )
        Unsaved(place).remove(best.keys)
    logger.info("train: %s, %s", target, facts["arm"])
    return Trained(target, facts, push_model(target, push_to_hub, private=private) if push_to_hub else None)


def _check(arm: str, target: Path, *, force: bool, **numbers: int) -> None:
    """What can be found out before hours of training."""
    check_labels(arm)
    check_target(target, force=force)
    for name, value in numbers.items():
        option = f"--{name.replace('_', '-')}"
        if value < (least := 0 if name == "seed" else 1):
            raise ConfigError(f"{option} must be at least {least}; found {value}")
        if value > LARGEST_SEED:
            raise ConfigError(f"{option} must be at most {LARGEST_SEED}; found {value}")
    for needed in (encoders.import_torch, encoders.import_transformers):
        needed()


def _as_compared(experiment: Experiment, folder: RunFolder) -> Experiment:
    """The experiment with the finetune settings of the run's trainings: the final model's may differ and leave those standing."""
    settings = compared_settings(folder)
    return experiment if settings is None else experiment.model_copy(update={"finetune": settings})


def _seeds(listed: int | tuple[int, ...], seed: int | None, tried: int) -> list[int]:
    """The seed asked for (or the first of the experiment) and those that follow it in the experiment's list, then beyond."""
    own = list(range(1, listed + 1)) if isinstance(listed, int) else list(listed)
    first = own[0] if seed is None else seed
    rest, last = own[own.index(first) + 1 :] if first in own else [], max(*own, first)
    return [first, *rest, *range(last + 1, last + tried)][:tried]


@dataclass(frozen=True)
class _Best:
    """The training that was kept."""

    chosen: Chosen
    outcome: Outcome
    model: Any
    prepared: Prepared
    tried: list[dict[str, Any]]
    """One row per seed: seed, status, dev_macro_f1."""
    keys: list[str]
    """Of all trainings that were tried."""
    is_alone: bool
    """Whether one process trained it."""


@dataclass(eq=False)
class _Tried:
    """A training that ended."""

    chosen: Chosen
    outcome: Outcome
    model: Any = None
    """None where it was not the best, or an earlier process trained it."""


def _best(this: Run, candidates: list[Callable[[], Chosen]], threads: int, ranks: Ranks) -> _Best:
    """Train each candidate and keep the healthy one with the best dev macro-F1, the first if equal.

    What ended stays in the run folder until the model is saved: a kill or a full disk repeats no training.
    """
    found: list[_Tried] = []
    prepared: Prepared | None = None
    this.progress({"stage": "train", "event": "start"})
    started = time.monotonic()
    for candidate in candidates:
        chosen = candidate()
        with _on(chosen, threads):
            prepared = prepared or encoder.prepare(chosen.study.texts, chosen.study.recipe)
            found.append(_tried(this, chosen, prepared, ranks, _best_of(found)))
        best = _best_of(found)
        for one in found:
            one.model = one.model if one is best else None
    tried = [
        {"seed": one.chosen.training.seed, "status": one.outcome.status, "dev_macro_f1": one.outcome.facts["dev_macro_f1"],
         "reason": one.outcome.reason}
        for one in found
    ]  # fmt: skip
    keys = [one.chosen.training.key for one in found]
    if best is None:
        Unsaved(this.folder).remove(keys)
        raise TrainingError(_collapsed(chosen, tried))
    assert prepared is not None
    with _on(best.chosen, threads):
        if best.model is None:
            kept = Unsaved(this.folder)
            best.model = kept.model(best.chosen.training.key, best.chosen.study.recipe, this.schema)
            if best.model is not None:
                best.model.config.pad_token_id = int(prepared["padding"][0])  # as the training sets it
        if best.model is None:
            best.outcome, best.model = _trained(this, best.chosen, prepared, ranks)
    this.progress({"stage": "train", "event": "end", "seconds": time.monotonic() - started})
    return _Best(best.chosen, best.outcome, best.model, prepared, tried, keys, ranks.size == 1)


def _best_of(found: list[_Tried]) -> _Tried | None:
    healthy = [one for one in found if one.outcome.status == "ok"]
    return max(healthy, key=lambda one: one.outcome.facts["dev_macro_f1"], default=None)


def _tried(this: Run, chosen: Chosen, prepared: Prepared, ranks: Ranks, best: _Tried | None) -> _Tried:
    """Train, unless that was done and its model not saved; keep the outcome, and the weights if they beat `best`."""
    unsaved, key = Unsaved(this.folder), chosen.training.key
    if (outcome := unsaved.outcome(key)) is not None:
        _say(this, chosen, chosen.training.steps, outcome.facts["dev_macro_f1"], outcome.facts["seconds"])
        return _Tried(chosen, outcome)
    made = _Tried(chosen, *_trained(this, chosen, prepared, ranks))
    is_best = _best_of([made] if best is None else [best, made]) is made
    if ranks.rank == 0 and unsaved.keep(key, made.outcome, made.model if is_best else None):
        unsaved.checkpoint(key, this.experiment.finetune.checkpoint_minutes).remove()
        if is_best and best is not None:
            unsaved.drop_weights(best.chosen.training.key)
    ranks.wait()
    return made


def _trained(this: Run, chosen: Chosen, prepared: Prepared, ranks: Ranks) -> tuple[Outcome, Any]:
    """Train once; a kill costs at most the minutes between two checkpoints. Facts say the seconds, those before a kill too."""
    training, started = chosen.training, time.monotonic()
    checkpoint = Unsaved(this.folder).checkpoint(training.key, this.experiment.finetune.checkpoint_minutes)

    def say(point: dict[str, Any]) -> None:
        _say(this, chosen, point["step"], point["dev_macro_f1"], time.monotonic() - started)

    _say(this, chosen, 0, None, 0.0, resumes=checkpoint.path.exists())
    outcome, model = encoder.train_model(
        training, prepared, chosen.study.recipe, this.schema, checkpoint=checkpoint, on_evaluation=say, ranks=ranks
    )
    ranks.wait()
    seconds = time.monotonic() - started + checkpoint.earlier
    return replace(outcome, facts={**outcome.facts, "seconds": seconds}), model


def _say(this: Run, chosen: Chosen, step: int, score: float | None, seconds: float, *, resumes: bool = False) -> None:
    """Tell how far a training is; before its first step there is no score, and whether a saved state is taken up."""
    who = {
        "stage": "train",
        "event": "advance",
        "step": "steps",
        "student": f"{chosen.arm}, seed {chosen.training.seed}",
    }
    this.progress(
        {
            **who,
            "done": step,
            "total": chosen.training.steps,
            "dev_macro_f1": score,
            "seconds": seconds,
            "resumes": resumes,
        }
    )


def _collapsed(chosen: Chosen, tried: list[dict[str, Any]]) -> str:
    rate = chosen.study.recipe.learning_rate
    said = "; ".join(f"seed {row['seed']}: {row['reason']}" for row in tried)
    return (
        f"training on {chosen.arm!r} collapsed ({said}); nothing was written. Lower the learning rate "
        f"(--set finetune.recipe.learning_rate=…, now {rate:g}), or try another --seed"
    )


@contextlib.contextmanager
def _on(chosen: Chosen, threads: int) -> Iterator[None]:
    """So many threads, and one line where memory runs out."""
    with _named_memory(chosen.study.recipe), one_thread() if threads == 1 else encoders.torch_threads(threads):
        yield


@contextlib.contextmanager
def _named_memory(recipe: Recipe) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if (hint := encoders.memory_hint(error)) is None:
            raise
        now = f"batch_size is {recipe.batch_size}, max_length {recipe.max_length}"
        raise TrainingError(f"{hint} ({now}); nothing was written") from error


def _facts(
    this: Run, best: _Best, asked: np.ndarray, temperature: dict[str, Any], *, all_texts: bool
) -> dict[str, Any]:
    """What consenso.json holds; `asked`: the probabilities of the asked texts before scaling."""
    chosen, outcome = best.chosen, best.outcome
    training, recipe = chosen.training, chosen.study.recipe
    max_length = min(recipe.max_length, encoders.load_tokenizer(recipe.encoder).model_max_length)
    seen, on_dev = environment(), dev_scores(training.dev_codes, _on_dev(best, asked), training.dev_targets)
    facts = {
        "created_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "experiment": this.experiment.name,
        "arm": chosen.arm,
        "labels": list(this.schema.names),
        "descriptions": this.schema.descriptions,
        "encoder": _encoder(recipe.encoder),
        "architecture": type(best.model).__name__,
        "parameters": sum(p.numel() for p in best.model.parameters()),
        "max_length": max_length,
        "temperature": temperature,
        "seed": training.seed,
        "seeds_tried": best.tried,
        "recipe": recipe.model_dump(mode="json", exclude={"c_grid", "encoder"}),
        "training": {name: outcome.facts.get(name) for name in ("steps", "best_step", "train_loss", "real_tokens")}
        | {
            "planned_steps": training.steps,
            "seconds": round(outcome.facts["seconds"], 1),
            "device": encoders.best_device(),
        },
        "data": _data(this, best, max_length, all_texts=all_texts),
        "dev": {name.removeprefix("dev_"): value for name, value in on_dev.items()}
        | {"sure": how_sure(scale(_on_dev(best, asked), temperature["value"]), training.dev_codes)},
        "never_predicted": [
            name for code, name in enumerate(this.schema.names) if code not in set(asked.argmax(axis=1))
        ],
        "comparison": in_comparison(this, chosen, outcome if best.is_alone else None),
        "test": None if all_texts else on_test_texts(this, chosen, asked, temperature["value"]),
        "versions": {"python": seen["python"], **seen["versions"]},
    }
    found: dict[str, Any] = _plain(facts)
    return found


def _encoder(name: str) -> dict[str, Any]:
    """The encoder's name, that of a local folder without its path, and its fingerprint."""
    local = name != encoders.EMBEDDED and Path(name).expanduser().is_dir()
    shown = Path(name).expanduser().resolve().name if local else name
    return {"name": shown, "local": local, "fingerprint": encoders.encoder_fingerprint(name)}


def _probabilities(best: _Best) -> np.ndarray:
    """Of the asked texts, before temperature scaling, as the saved model gives them: in fp32."""
    if best.chosen.study.recipe.precision == "fp32":
        assert best.outcome.probabilities is not None
        return best.outcome.probabilities
    return softmax(logits_of(best.model, best.prepared, best.chosen.training.asked))


def _on_dev(best: _Best, asked: np.ndarray) -> np.ndarray:
    import numpy as np

    training = best.chosen.training
    found: np.ndarray = asked[np.searchsorted(training.asked, training.dev_rows)]
    return found


def _fold_temperature(best: _Best, asked: np.ndarray) -> dict[str, Any]:
    """Fit T on the dev texts with the arm's own labels and divide the head by it; where that cannot be, T = 1 and why."""
    training, on_dev = best.chosen.training, _on_dev(best, asked)
    codes, n = training.dev_codes, len(training.dev_codes)
    why, T = "", 1.0
    if n < FEWEST_DEV:
        why = f"there are {n} dev texts, and at least {FEWEST_DEV} are needed"
    elif math.isnan(T := fit_temperature(on_dev, codes)):
        why, T = "the dev labels fix none: all are predicted right, or label and probability are unrelated", 1.0
    elif not fold_temperature(best.model, T, best.prepared, training.dev_rows):
        why, T = f"the head of {type(best.model).__name__} does not end in a linear layer per label", 1.0
    losses = {"dev_loss_before": cross_entropy(codes, on_dev), "dev_loss_after": cross_entropy(codes, scale(on_dev, T))}
    wrong = int((on_dev.argmax(axis=1) != codes).sum())
    return {"value": T, "fitted": not why, "why": why, "dev_texts": n, "dev_wrong": wrong, **losses}


def _data(this: Run, best: _Best, max_length: int, *, all_texts: bool) -> dict[str, Any]:
    """Counts, sources and hashes of the texts that the model was trained on."""
    import numpy as np

    chosen, training = best.chosen, best.chosen.training
    prints, record = this.folder.fingerprints(), this.folder.record().get("data") or {}
    lengths = np.diff(best.prepared["starts"])[training.rows]
    rows = chosen.rows
    counts = {
        part: rows[rows["part"] == part]["target"]
        .value_counts()
        .reindex(list(this.schema.names), fill_value=0)
        .to_dict()
        for part in ("train", "dev")
    }
    source = str(record.get("source") or this.experiment.data.source)
    return {
        "source": Path(source).name if Path(source).is_absolute() or "\\" in source else source,
        "train_rows": len(training.rows),
        "train_texts": len(np.unique(training.rows)),
        "dev_texts": len(training.dev_rows),
        "test_texts": int(next(iter(chosen.study.in_test.values())).sum()),
        "all_texts": all_texts,
        "drawn_dev": chosen.drawn_dev,
        "fold": int(rows["fold"].iloc[0]),
        "folds": int(this.folder.read("folds")["fold"].nunique()),
        "classes": counts,
        "label_sources": rows.loc[rows["part"] == "train", "source"].value_counts().to_dict(),
        "at_length_limit": float((lengths >= max_length).mean()),
        "hashes": {name: prints.get(name) for name in ("texts", "folds", "votes", "final_labels")}
        | {"training": training.key},
    }


def _plain(value: Any) -> Any:
    """The value with numpy's numbers as Python's and NaN as None: what JSON can hold."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
