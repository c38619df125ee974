"""encoder: a Hugging Face sequence classifier, fine-tuned by a lean loop (design: finetuning.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso import encoders
from consenso.finetune.batches import evaluation_steps, training_batches
from consenso.finetune.collapse import find_collapse
from consenso.finetune.metrics import dev_scores, softmax
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

    tokenizer = encoders.load_tokenizer(recipe.encoder)
    ids = encoders.tokenize(tokenizer, texts, recipe.max_length)
    return {
        "tokens": np.fromiter((token for text in ids for token in text), dtype="int32"),
        "starts": np.cumsum([0, *map(len, ids)]),
        "padding": np.array([tokenizer.pad_token_id, tokenizer.padding_side == "left"], dtype="int64"),
    }


def train(training: Training, prepared: Prepared, recipe: Recipe, schema: LabelSchema) -> Outcome:
    """Fine-tune the encoder, keep the best state by dev macro-F1 and predict the asked texts with it.

    Head, dropout and order of the texts have separate random streams, so that arms with the same texts under one seed
    meet the same batches, the same head and the same dropout masks. torch's random state is left as it was.
    """
    torch = encoders.import_torch()
    device = encoders.best_device()
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []):
        torch.manual_seed(stream(training.seed, HEAD))
        model = encoders.load_classifier(recipe.encoder, schema)
        model.config.pad_token_id = int(prepared["padding"][0])
        torch.manual_seed(stream(training.seed, DROPOUT))
        run = _Run(model.to(device), prepared, recipe, device)
        fault = _fit(run, training)
        return _outcome(run, training, fault)


def stream(seed: int, which: int) -> int:
    """Return the torch seed of one random stream (HEAD, DROPOUT or ORDER) of a seed."""
    import numpy as np

    return int(np.random.SeedSequence([seed, which]).generate_state(1, dtype="uint32")[0])


@dataclass
class _Run:
    """The state of one training."""

    model: Any
    prepared: Prepared
    recipe: Recipe
    device: str
    curve: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    """The weights after `best_step`."""
    best_step: int = 0
    steps: int = 0
    real_tokens: int = 0

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text of the study."""
        import numpy as np

        lengths: np.ndarray = np.diff(self.prepared["starts"])
        return lengths

    def logits(self, texts: np.ndarray) -> Any:
        """Return the model's logits for some texts, float32; positions in the study's texts."""
        torch, (pad_id, left) = encoders.import_torch(), self.prepared["padding"]
        starts = self.prepared["starts"]
        ids = [self.prepared["tokens"][starts[text] : starts[text + 1]] for text in texts]
        tokens, mask = encoders.pad(ids, int(pad_id), bool(left))
        tokens, mask = torch.from_numpy(tokens).to(self.device), torch.from_numpy(mask).to(self.device)
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            return self.model(input_ids=tokens, attention_mask=mask).logits.float()

    def predict(self, texts: np.ndarray) -> np.ndarray:
        """Return the logits for any number of texts, in batches of similar length, without dropout."""
        import numpy as np

        torch = encoders.import_torch()
        found = np.zeros((len(texts), self.model.config.num_labels), dtype="float32")
        self.model.eval()
        with torch.inference_mode():
            for rows in encoders.length_batches(self.lengths[texts].tolist(), encoders.batch_budget(self.device)):
                found[rows] = self.logits(texts[rows]).cpu().numpy()
        self.model.train()
        return found


def _fit(run: _Run, training: Training) -> str | None:
    """Train to the last step; return why it stopped early, if it did."""
    torch = encoders.import_torch()
    optimiser, schedule = _optimiser(run.model, run.recipe, training.steps)
    codes, lengths = torch.from_numpy(training.codes).to(run.device), run.lengths[training.rows]
    grid = set(evaluation_steps(training.steps, run.recipe.evaluations))
    seed, losses, seen = stream(training.seed, ORDER), [], 0
    run.model.train()
    for rows in training_batches(lengths, run.recipe.batch_size, training.steps, seed):
        loss = torch.nn.functional.cross_entropy(run.logits(training.rows[rows]), codes[torch.from_numpy(rows)])
        run.steps += 1
        if not math.isfinite(found := loss.item()):
            return f"the loss is not finite at step {run.steps}"
        loss.backward()
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.recipe.clip)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append(found)
        seen, run.real_tokens = seen + len(rows), run.real_tokens + int(lengths[rows].sum())
        if run.steps in grid:
            _evaluate(run, training, sum(losses) / len(losses), seen / len(training.rows))
            losses = []
    return None


def _optimiser(model: Any, recipe: Recipe, steps: int) -> tuple[Any, Any]:
    torch = encoders.import_torch()
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},  # biases and layer norms
    ]
    optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
    warm = math.ceil(recipe.warmup * steps)

    def factor(step: int) -> float:
        return min((step + 1) / max(warm, 1), (steps - step) / max(steps - warm, 1), 1.0)

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def _evaluate(run: _Run, training: Training, train_loss: float, epoch: float) -> None:
    import numpy as np

    logits = run.predict(training.dev_rows)
    if not np.isfinite(logits).all():
        return  # the next loss, or the collapse check, says so
    scores = dev_scores(training.dev_codes, softmax(logits))
    earlier = max((point["dev_macro_f1"] for point in run.curve), default=-1.0)
    run.curve.append({"step": run.steps, "epoch": epoch, "train_loss": train_loss, **scores})
    if scores["dev_macro_f1"] > earlier:
        run.best = {name: value.detach().clone() for name, value in run.model.state_dict().items()}
        run.best_step = run.steps


def _outcome(run: _Run, training: Training, fault: str | None) -> Outcome:
    import numpy as np

    if run.best is not None:
        run.model.load_state_dict(run.best)
    logits = run.predict(training.asked)
    on_dev = logits[np.searchsorted(training.asked, training.dev_rows)]
    reason = fault or find_collapse(on_dev, training.dev_codes, training.codes, seed=training.seed)
    if np.isfinite(logits).all():
        probabilities = softmax(logits)
    else:  # a run without any finite state still answers, as what it is: the label shares of its training rows
        shares = np.bincount(training.codes, minlength=logits.shape[1]) / len(training.codes)
        probabilities = np.tile(shares, (len(logits), 1))
    point = next((p for p in run.curve if p["step"] == run.best_step), {})
    # the dev scores are those of the stored predictions: other batches may round otherwise than on the way
    stored = probabilities[np.searchsorted(training.asked, training.dev_rows)]
    facts = {"train_loss": point.get("train_loss"), **dev_scores(training.dev_codes, stored)}
    facts |= {"best_step": run.best_step or None, "steps": run.steps, "real_tokens": run.real_tokens}
    return Outcome(
        "collapsed" if reason else "ok", reason, probabilities, probabilities.argmax(axis=1), facts, run.curve
    )


def seconds(tokens: np.ndarray, recipe: Recipe, trainings: Sequence[Training]) -> tuple[float, float]:
    """Return estimated seconds for tokenising and for the trainings: forward once, backward twice the forward."""
    forward = encoders.tokens_per_second(recipe.encoder, recipe.precision)
    spent = 0.0
    for training in trainings:
        trained = float(tokens[training.rows].mean()) * recipe.batch_size * training.steps
        read = recipe.evaluations * float(tokens[training.dev_rows].sum()) + float(tokens[training.asked].sum())
        spent += 1.0 + (3 * trained + read) / forward
    return 1e-4 * len(tokens), spent
