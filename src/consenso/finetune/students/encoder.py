"""encoder: a Hugging Face sequence classifier, fine-tuned by a lean loop (design: finetuning.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso import encoders
from consenso.finetune.batches import evaluation_steps, training_batches
from consenso.finetune.collapse import entropy, find_collapse
from consenso.finetune.metrics import dev_scores, softmax
from consenso.finetune.recipe import Recipe
from consenso.finetune.training import Outcome, Prepared, Progress, Training
from consenso.finetune.watch import CollapseWatch
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
    best_logits: np.ndarray | None = None
    """What the best state says about the dev texts."""
    in_vain: int = 0
    """Evaluations since the best one."""
    steps: int = 0
    stopped_at: int | None = None
    """The step at which the collapse watch ended the run."""
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
    """Train to the last step; return what ended the run early, other than patience."""
    torch = encoders.import_torch()
    optimiser, schedule = _optimiser(run.model, run.recipe, training.steps)
    targets, lengths = _targets(training).to(run.device), run.lengths[training.rows]
    grid = set(evaluation_steps(training.steps, run.recipe.evaluations))
    watch = _watch(run, training)
    seed, losses, seen = stream(training.seed, ORDER), [], 0
    run.model.train()
    for rows in training_batches(lengths, run.recipe.batch_size, training.steps, seed):
        logits = run.logits(training.rows[rows])
        loss = torch.nn.functional.cross_entropy(logits, targets[torch.from_numpy(rows)])
        loss.backward()
        gradient = torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.recipe.clip)
        run.steps += 1
        signs = torch.stack([loss.detach(), _spread(logits.detach()), gradient.detach()]).tolist()
        if not math.isfinite(signs[0]):
            return f"the loss is not finite at step {run.steps}"
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append(signs[0])
        seen, run.real_tokens = seen + len(rows), run.real_tokens + int(lengths[rows].sum())
        doom = watch.see(*signs) if watch else None
        if doom and _has_learned(run, training):
            watch = doom = None
        if run.steps in grid or doom:
            _evaluate(run, training, sum(losses) / len(losses), seen / len(training.rows))
            losses = []
        if doom:
            run.stopped_at = run.steps
            return f"the watch ended it at step {run.steps}: {doom}"
        if training.patience and run.in_vain >= training.patience:
            break
    return None


def _targets(training: Training) -> Any:
    torch = encoders.import_torch()
    if training.targets is None:
        return torch.from_numpy(training.codes)
    return torch.from_numpy(training.targets.astype("float32"))


def _watch(run: _Run, training: Training) -> CollapseWatch | None:
    if not run.recipe.watch:
        return None
    shares = training.shares(run.model.config.num_labels)
    return CollapseWatch(entropy(shares), training.steps, math.ceil(run.recipe.warmup * training.steps))


def _spread(logits: Any) -> Any:
    """The standard deviation over the batch of the probabilities, of the class where it is largest."""
    return logits.softmax(dim=1).std(dim=0, correction=0).max()


def _has_learned(run: _Run, training: Training) -> bool:
    """Whether the state that would predict is healthy: then the run is, however it goes on."""
    logits = run.predict(training.dev_rows) if run.best_logits is None else run.best_logits
    return _collapse(logits, training, len(run.curve)) is None


def _collapse(on_dev: np.ndarray, training: Training, looks: int) -> str | None:
    return find_collapse(
        on_dev,
        training.dev_codes,
        training.codes,
        seed=training.seed,
        targets=training.targets,
        dev_targets=training.dev_targets,
        looks=looks,
    )


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
    run.in_vain += 1
    if not np.isfinite(logits).all():
        return  # the next loss, or the collapse check, says so
    scores = dev_scores(training.dev_codes, softmax(logits), training.dev_targets)
    earlier = max((point["dev_macro_f1"] for point in run.curve), default=-1.0)
    run.curve.append({"step": run.steps, "epoch": epoch, "train_loss": train_loss, **scores})
    if scores["dev_macro_f1"] > earlier:
        run.best = {name: value.detach().clone() for name, value in run.model.state_dict().items()}
        run.best_step, run.best_logits, run.in_vain = run.steps, logits, 0


def _outcome(run: _Run, training: Training, fault: str | None) -> Outcome:
    import numpy as np

    if run.best is not None:
        run.model.load_state_dict(run.best)
    logits = run.predict(training.asked)
    on_dev = logits[np.searchsorted(training.asked, training.dev_rows)]
    reason = fault or _collapse(on_dev, training, len(run.curve))
    probabilities = _probabilities(logits, training)
    point = next((p for p in run.curve if p["step"] == run.best_step), {})
    # the dev scores are those of the stored predictions: other batches may round otherwise than on the way
    stored = probabilities[np.searchsorted(training.asked, training.dev_rows)]
    facts = {"train_loss": point.get("train_loss"), **dev_scores(training.dev_codes, stored, training.dev_targets)}
    facts |= {"best_step": run.best_step or None, "steps": run.steps, "real_tokens": run.real_tokens}
    facts |= {"stopped_at": run.stopped_at}
    return Outcome(
        "collapsed" if reason else "ok", reason, probabilities, probabilities.argmax(axis=1), facts, run.curve
    )


def _probabilities(logits: np.ndarray, training: Training) -> np.ndarray:
    """A run without any finite state still answers, as what it is: the label shares of its training rows."""
    import numpy as np

    if np.isfinite(logits).all():
        return softmax(logits)
    return np.tile(training.shares(logits.shape[1]), (len(logits), 1))


def seconds(tokens: np.ndarray, recipe: Recipe, trainings: Sequence[Training]) -> tuple[float, float]:
    """Return estimated seconds for tokenising and for the trainings: forward once, backward twice the forward."""
    forward = encoders.tokens_per_second(recipe.encoder, recipe.precision)
    spent = 0.0
    for training in trainings:
        trained = float(tokens[training.rows].mean()) * recipe.batch_size * training.steps
        read = recipe.evaluations * float(tokens[training.dev_rows].sum()) + float(tokens[training.asked].sum())
        spent += 1.0 + (3 * trained + read) / forward
    return 1e-4 * len(tokens), spent
