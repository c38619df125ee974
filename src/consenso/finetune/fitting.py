"""The one training loop: an encoder with a classification head, fitted and judged in memory (design: finetuning.md)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from consenso import encoders
from consenso.finetune.batches import evaluation_steps, training_batches
from consenso.finetune.checkpoint import Checkpoint
from consenso.finetune.collapse import FEW_DEV, find_collapse
from consenso.finetune.dropout import plain_dropout, quicken_dropout
from consenso.finetune.lora import load_trained_state, merge_lora, trained_state
from consenso.finetune.losses import Loss, make_loss
from consenso.finetune.metrics import dev_scores, softmax
from consenso.finetune.ranks import Ranks
from consenso.finetune.recipe import Recipe
from consenso.finetune.training import Outcome, Prepared, Training
from consenso.finetune.vocabulary import Vocabulary, trim_vocabulary
from consenso.finetune.watch import LOOKS, CollapseWatch, head_input

if TYPE_CHECKING:
    import numpy as np

OnEvaluation = Callable[[dict[str, Any]], None]
"""Called with a row of the curves table after each evaluation."""


@dataclass
class Fitting:
    """One training in progress: the model and everything that a checkpoint holds."""

    model: Any
    training: Training
    prepared: Prepared
    recipe: Recipe
    device: str
    order: int
    """The torch seed of the order of the texts."""
    ranks: Ranks = field(default_factory=Ranks)
    on_evaluation: OnEvaluation | None = None

    steps: int = 0
    real_tokens: int = 0
    seen: int = 0
    """Rows that the model was trained on."""
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last evaluation."""
    curve: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    """The weights after `best_step`."""
    best_step: int = 0
    best_logits: np.ndarray | None = None
    """What the best state says about the dev texts."""
    in_vain: int = 0
    """Evaluations since the best one."""
    flagged_at: int | None = None
    """The step at which the collapse watch first found it lost."""
    lost_looks: int = 0
    """Looks of the watch, one after the other, that found it lost."""
    stopped_at: int | None = None
    """The step at which the collapse watch ended the run."""
    difference: float = math.nan
    """How much the dev texts differ in what the head was given when they were last predicted (`HeadInput`)."""
    watch: CollapseWatch | None = None
    vocabulary: Vocabulary | None = None
    """The words that are left, where some were left out."""

    def __post_init__(self) -> None:
        self.model.config.pad_token_id = int(self.prepared["padding"][0])
        self.model.to(self.device)
        self._trim()
        if self.device == "cpu":
            quicken_dropout(self.model)
        self.optimiser, self.schedule = make_optimiser(self.model, self.recipe, self.training.steps)
        self.wrapped = self.ranks.wrap(_compiled(self.model, self.recipe, self.device))
        shares = self.training.shares(self.model.config.num_labels)
        self.loss: Loss = make_loss(self.recipe, shares, self.device)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text of the study."""
        import numpy as np

        lengths: np.ndarray = np.diff(self.prepared["starts"])
        return lengths

    def fit(self, checkpoint: Checkpoint | None = None) -> str | None:
        """Train to the last step; return what ended the run early, other than patience."""
        done = self._resumed(checkpoint)
        targets, lengths = self._targets(), self.lengths[self.training.rows]
        grid = set(evaluation_steps(self.training.steps, self.recipe.evaluations))
        batches = training_batches(
            lengths, self.recipe.batch_size, self.training.steps, self.order, self.recipe.batching
        )
        if self.recipe.watch and not done:
            self._on_dev()
            self.watch = CollapseWatch(self.difference)
        self.model.train()
        for number, rows in enumerate(batches):
            if number < done:
                continue
            if fault := self._step(rows, targets, lengths):
                return fault
            if self.steps in grid:
                self._evaluate()
            if fault := self._watched(rows, grid):
                self.stopped_at = self.steps
                if self.steps not in grid:
                    self._evaluate()
                return fault
            if self.training.patience and self.in_vain >= self.training.patience:
                return None
            if checkpoint is not None and self.ranks.rank == 0 and checkpoint.is_due():
                checkpoint.save(self._state())
        return None

    def _step(self, rows: np.ndarray, targets: Any, lengths: np.ndarray) -> str | None:
        """One optimiser step; return what ends the run, if anything."""
        torch = encoders.import_torch()
        mine = self.ranks.share(rows)
        logits, wanted = self.logits(self.training.rows[mine], self.wrapped), targets[torch.from_numpy(mine)]
        per_row = self.loss(logits, wanted) * self.ranks.counts(rows)
        # where batches differ in size, a text counts as much in a large one as in a small one
        per_batch = len(self.training.rows) / -(-len(self.training.rows) // self.recipe.batch_size)
        size = per_batch if self.recipe.batching == "tokens" else len(rows)
        loss = per_row.sum() * (self.ranks.size / size)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.steps += 1
        found = float(self.ranks.mean(loss.detach()))
        if not math.isfinite(found):
            return f"the loss is not finite at step {self.steps}"
        self.optimiser.step()
        self.schedule.step()
        self.optimiser.zero_grad()
        self.losses.append(found)
        self.seen, self.real_tokens = self.seen + len(rows), self.real_tokens + int(lengths[rows].sum())
        return None

    def _watched(self, rows: np.ndarray, grid: set[int]) -> str | None:
        """At the end of the first epoch and at each evaluation after it: why the watch ends the run, if it does."""
        one_epoch = len(self.training.rows)
        ends_the_first = self.seen - len(rows) < one_epoch <= self.seen
        is_look = ends_the_first or (self.seen > one_epoch and self.steps in grid)
        if self.watch is None or not is_look or self.steps == self.training.steps:
            return None
        if self.steps not in grid:
            self._on_dev()
        doom = self.watch.see(self.difference)
        if doom is None:
            self.lost_looks = 0
            return None
        if self._has_learned():
            self.watch = None  # the best state predicts, and it is healthy however the run goes on
            return None
        self.lost_looks, self.flagged_at = self.lost_looks + 1, self.flagged_at or self.steps
        if self.lost_looks < LOOKS:
            return None
        return f"the watch flagged it at step {self.flagged_at} and ended it at step {self.steps}: {doom}"

    def logits(self, texts: np.ndarray, model: Any = None) -> Any:
        """Return the model's logits for some texts, float32; positions in the study's texts."""
        torch, (pad_id, left) = encoders.import_torch(), self.prepared["padding"]
        starts = self.prepared["starts"]
        ids = [self.prepared["tokens"][starts[text] : starts[text + 1]] for text in texts]
        if self.vocabulary is not None:
            ids, pad_id = [self.vocabulary.lookup[each] for each in ids], self.vocabulary.lookup[pad_id]
        tokens, mask = encoders.pad(ids, int(pad_id), bool(left))
        tokens, mask = torch.from_numpy(tokens).to(self.device), torch.from_numpy(mask).to(self.device)
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            return (model or self.model)(input_ids=tokens, attention_mask=mask).logits.float()

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

    def outcome(self, fault: str | None) -> Outcome:
        """Load the best state and return what it says about the asked texts."""
        import numpy as np

        training = self.training
        if self.best is not None:
            load_trained_state(self.model, self.best)
        self.model = merge_lora(self.model)  # the plain model predicts, as it will be saved
        logits = self.predict(training.asked)
        on_dev = logits[np.searchsorted(training.asked, training.dev_rows)]
        on_train = self.predict(training.rows) if len(on_dev) < FEW_DEV else None
        reason = fault or self._collapse(on_dev, on_train)
        probabilities = _probabilities(logits, training)
        point = next((p for p in self.curve if p["step"] == self.best_step), {})
        # the dev scores are those of the stored predictions: other batches may round otherwise than on the way
        stored = probabilities[np.searchsorted(training.asked, training.dev_rows)]
        facts = {"train_loss": point.get("train_loss"), **dev_scores(training.dev_codes, stored, training.dev_targets)}
        facts |= {"best_step": self.best_step or None, "steps": self.steps, "real_tokens": self.real_tokens}
        facts |= {"flagged_at": self.flagged_at, "stopped_at": self.stopped_at}
        return Outcome(
            "collapsed" if reason else "ok", reason, probabilities, probabilities.argmax(axis=1), facts, self.curve
        )

    def finished_model(self) -> Any:
        """Return the model on the CPU, ready to predict, its whole vocabulary in place."""
        if self.vocabulary is not None:
            self.vocabulary.restore(self.model)
            self.vocabulary = None
        plain_dropout(self.model)
        return self.model.to("cpu").eval()

    def _evaluate(self) -> None:
        import numpy as np

        training = self.training
        logits, train_loss = self._on_dev(), sum(self.losses) / len(self.losses)
        self.losses, self.in_vain = [], self.in_vain + 1
        if not np.isfinite(logits).all():
            return  # the next loss, or the collapse check, says so
        scores = dev_scores(training.dev_codes, softmax(logits), training.dev_targets)
        earlier = max((point["dev_macro_f1"] for point in self.curve), default=-1.0)
        epoch = self.seen / len(training.rows)
        self.curve.append({"step": self.steps, "epoch": epoch, "train_loss": train_loss, **scores})
        if scores["dev_macro_f1"] > earlier:
            self.best = trained_state(self.model)
            self.best_step, self.best_logits, self.in_vain = self.steps, logits, 0
        if self.on_evaluation is not None:
            self.on_evaluation(self.curve[-1])

    def _on_dev(self) -> np.ndarray:
        """Return the logits for the dev texts, and note how much these differ."""
        with head_input(self.model) as given:
            logits = self.predict(self.training.dev_rows)
        self.difference = given.difference()
        return logits

    def _has_learned(self) -> bool:
        """Whether the state that would predict is healthy: then the run is, however it goes on."""
        logits = self.predict(self.training.dev_rows) if self.best_logits is None else self.best_logits
        return self._collapse(logits) is None

    def _collapse(self, on_dev: np.ndarray, on_train: np.ndarray | None = None) -> str | None:
        return find_collapse(
            on_dev,
            self.training.dev_codes,
            self.training.codes,
            seed=self.training.seed,
            targets=self.training.targets,
            dev_targets=self.training.dev_targets,
            looks=len(self.curve),
            on_train=on_train,
        )

    def _trim(self) -> None:
        """Leave out the words that none of this training's texts holds."""
        import numpy as np

        training, starts = self.training, self.prepared["starts"]
        texts = np.unique(np.concatenate([training.rows, training.dev_rows, training.asked]))
        occurs = np.zeros(int(self.prepared["tokens"].max(initial=0)) + 1, dtype=bool)
        for text in texts:
            occurs[self.prepared["tokens"][starts[text] : starts[text + 1]]] = True
        probe = texts[[self.lengths[texts].argmin(), self.lengths[texts].argmax()]]  # so that one is padded
        before = self._probe(probe)
        self.vocabulary = trim_vocabulary(self.model, np.append(np.flatnonzero(occurs), self.prepared["padding"][0]))
        if self.vocabulary is not None and not np.array_equal(before, self._probe(probe)):
            self.vocabulary.restore(self.model)  # an encoder that reads more from an id than a row of its embeddings
            self.vocabulary = None

    def _probe(self, texts: np.ndarray) -> np.ndarray:
        torch = encoders.import_torch()
        self.model.eval()
        with torch.inference_mode():
            found: np.ndarray = self.logits(texts).cpu().numpy()
        return found

    def _targets(self) -> Any:
        """The targets of the training rows, (rows, K)."""
        torch = encoders.import_torch()
        if self.training.targets is None:
            codes = torch.from_numpy(self.training.codes)
            targets = torch.nn.functional.one_hot(codes, self.model.config.num_labels).float()
        else:
            targets = torch.from_numpy(self.training.targets.astype("float32"))
        return targets.to(self.device)

    # what a checkpoint holds

    _KEPT = (
        "steps",
        "real_tokens",
        "seen",
        "losses",
        "curve",
        "best",
        "best_step",
        "best_logits",
        "in_vain",
        "flagged_at",
        "lost_looks",
    )

    def _state(self) -> dict[str, Any]:
        torch = encoders.import_torch()
        return {name: getattr(self, name) for name in self._KEPT} | {
            "watched_from": None if self.watch is None else self.watch.start,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": torch.get_rng_state(),
            "random_gpu": torch.cuda.get_rng_state() if self.device == "cuda" else None,
        }

    def _resumed(self, checkpoint: Checkpoint | None) -> int:
        """Take up a saved state; return how many steps are done."""
        state = None if checkpoint is None else checkpoint.load()
        if state is None:
            return 0
        torch = encoders.import_torch()
        for name in self._KEPT:
            setattr(self, name, state[name])
        self.watch = None if state["watched_from"] is None else CollapseWatch(state["watched_from"])
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        if self.ranks.rank:  # the state is that of the first process; the others drop out by streams of their own
            return self.steps
        torch.set_rng_state(state["random"])
        if state["random_gpu"] is not None and self.device == "cuda":
            torch.cuda.set_rng_state(state["random_gpu"])
        return self.steps


def _compiled(model: Any, recipe: Recipe, device: str) -> Any:
    return encoders.import_torch().compile(model, dynamic=True) if recipe.compile and device == "cuda" else model


def make_optimiser(model: Any, recipe: Recipe, steps: int) -> tuple[Any, Any]:
    """Return AdamW over the weights with a gradient, and its schedule: warm-up, then linear to 0 at the last step."""
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


def _probabilities(logits: np.ndarray, training: Training) -> np.ndarray:
    """A run without any finite state still answers, as what it is: the label shares of its training rows."""
    import numpy as np

    if np.isfinite(logits).all():
        return softmax(logits)
    return np.tile(training.shares(logits.shape[1]), (len(logits), 1))
