"""encoder: a Hugging Face sequence classifier, fine-tuned by a lean loop (`fitting.py`; design: finetuning.md)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso import encoders
from consenso.finetune.checkpoint import Checkpoint
from consenso.finetune.fitting import Fitting, OnEvaluation
from consenso.finetune.lora import apply_lora, need_peft
from consenso.finetune.ranks import Ranks
from consenso.finetune.recipe import Recipe
from consenso.finetune.training import Outcome, Prepared, Progress, Training
from consenso.labels import LabelSchema

if TYPE_CHECKING:
    import numpy as np

DETERMINISTIC = False
LIBRARIES = ("torch", "transformers", "scikit-learn")
USES_ENCODER = True
RECIPE_FIELDS = set(Recipe.model_fields) - {"encoder", "c_grid"}

HEAD, DROPOUT, ORDER = 1, 2, 3  # random streams of a seed


def prepare(
    texts: Sequence[str], recipe: Recipe, cache: Path | None = None, progress: Progress | None = None
) -> Prepared:
    """Return the token ids of all texts, end to end, where each text starts, and how the encoder pads."""
    import numpy as np

    if recipe.lora_rank:
        need_peft()
    tokenizer = encoders.load_tokenizer(recipe.encoder)
    ids = encoders.tokenize(tokenizer, texts, recipe.max_length)
    return {
        "tokens": np.fromiter((token for text in ids for token in text), dtype="int32"),
        "starts": np.cumsum([0, *map(len, ids)]),
        "padding": np.array([tokenizer.pad_token_id, tokenizer.padding_side == "left"], dtype="int64"),
    }


def train(
    training: Training, prepared: Prepared, recipe: Recipe, schema: LabelSchema, checkpoint: Checkpoint | None = None
) -> Outcome:
    """Fine-tune the encoder, keep the best state by dev macro-F1 and predict the asked texts with it.

    Head, dropout and order of the texts have separate random streams, so that arms with the same texts under one seed
    meet the same batches, the same head and the same dropout masks. torch's random state is left as it was.
    """
    return _fitted(training, prepared, recipe, schema, checkpoint=checkpoint)[0]


def train_model(
    training: Training,
    prepared: Prepared,
    recipe: Recipe,
    schema: LabelSchema,
    *,
    checkpoint: Checkpoint | None = None,
    on_evaluation: OnEvaluation | None = None,
    ranks: Ranks | None = None,
) -> tuple[Outcome, Any]:
    """Do what `train` does and return the trained model beside the outcome: best state, on the CPU, ready to predict.

    `on_evaluation` gets each row of the learning curve as it is made; `ranks`: the processes that train it together.
    """
    outcome, fitting = _fitted(
        training, prepared, recipe, schema, checkpoint=checkpoint, on_evaluation=on_evaluation, ranks=ranks
    )
    return outcome, fitting.finished_model()


def _fitted(
    training: Training,
    prepared: Prepared,
    recipe: Recipe,
    schema: LabelSchema,
    *,
    checkpoint: Checkpoint | None = None,
    on_evaluation: OnEvaluation | None = None,
    ranks: Ranks | None = None,
) -> tuple[Outcome, Fitting]:
    torch, device, ranks = encoders.import_torch(), encoders.best_device(), ranks or Ranks()
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []), no_denormals():
        torch.manual_seed(stream(training.seed, HEAD))
        model = encoders.load_classifier(recipe.encoder, schema)
        if recipe.lora_rank:
            model = apply_lora(model, recipe.lora_rank, recipe.lora_alpha)
        torch.manual_seed(stream(training.seed, DROPOUT) + ranks.rank)
        order = stream(training.seed, ORDER)
        fitting = Fitting(model, training, prepared, recipe, device, order, ranks, on_evaluation)
        return fitting.outcome(fitting.fit(checkpoint)), fitting


@contextlib.contextmanager
def no_denormals() -> Iterator[None]:
    """Numbers too small for full precision count as 0 meanwhile: a processor is slow with them, and Adam makes many."""
    torch = encoders.import_torch()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def stream(seed: int, which: int) -> int:
    """Return the torch seed of one random stream (HEAD, DROPOUT or ORDER) of a seed."""
    import numpy as np

    return int(np.random.SeedSequence([seed, which]).generate_state(1, dtype="uint32")[0])


def seconds(tokens: np.ndarray, recipe: Recipe, trainings: Sequence[Training]) -> tuple[float, float]:
    """Return estimated seconds for tokenising and for the trainings: forward once, backward twice the forward."""
    forward = encoders.tokens_per_second(recipe.encoder, recipe.precision)
    spent = 0.0
    for training in trainings:
        trained = float(tokens[training.rows].mean()) * recipe.batch_size * training.steps
        read = recipe.evaluations * float(tokens[training.dev_rows].sum()) + float(tokens[training.asked].sum())
        spent += 1.0 + (3 * trained + read) / forward
    return 1e-4 * len(tokens), spent
