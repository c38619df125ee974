"""contrastive: the encoder tuned on pairs of texts with equal or unequal labels, then a linear head: for tiny data.

SetFit (Tunstall et al. 2022, arXiv 2209.11055): the cosine of two texts' mean-pooled embeddings is drawn to 1 where their
labels are equal and to 0 where they are not; the head that `frozen` has is then fitted on the tuned embeddings.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from consenso import encoders
from consenso.finetune.batches import training_batches
from consenso.finetune.checkpoint import Checkpoint
from consenso.finetune.fitting import make_optimiser
from consenso.finetune.recipe import Recipe
from consenso.finetune.students.encoder import DROPOUT, HEAD, ORDER, no_denormals, prepare, stream
from consenso.finetune.students.heads import distinct_rows, fit_head
from consenso.finetune.training import Outcome, Prepared, Training
from consenso.finetune.vocabulary import Vocabulary, trim_vocabulary
from consenso.labels import LabelSchema

if TYPE_CHECKING:
    import numpy as np

__all__ = ["prepare", "seconds", "train"]

DETERMINISTIC = False
LIBRARIES = ("torch", "transformers", "scikit-learn")
USES_ENCODER = True
RECIPE_FIELDS = {
    "max_length", "learning_rate", "epochs", "batch_size", "batching", "warmup", "weight_decay", "clip", "steps", "precision",
    "c_grid",
}  # fmt: skip


def train(
    training: Training, prepared: Prepared, recipe: Recipe, schema: LabelSchema, checkpoint: Checkpoint | None = None
) -> Outcome:
    """Tune the encoder on `batch_size` pairs per step, fit the head on the arm's rows and predict the asked texts.

    Every pass over the rows gives each of them one partner, so `epochs` is the number of pairs per text. With soft targets
    pairs go by the label with the largest share; the head takes the shares themselves. Meant for tiny data, hence without
    checkpoint. torch's random state is left as it was.
    """
    torch, device = encoders.import_torch(), encoders.best_device()
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []), no_denormals():
        torch.manual_seed(stream(training.seed, HEAD))
        reader = _Reader(encoders.load_body(recipe.encoder), prepared, recipe, device)
        reader.trim(_all_texts(training))
        torch.manual_seed(stream(training.seed, DROPOUT))
        fault = _tune(reader, training, recipe)
        return _outcome(reader, training, recipe, schema, fault)


@dataclasses.dataclass
class _Reader:
    """The encoder, and the tokens of the study's texts."""

    model: Any
    prepared: Prepared
    recipe: Recipe
    device: str
    vocabulary: Vocabulary | None = None
    """The words that are left, where some were left out."""
    steps: int = 0
    real_tokens: int = 0

    def __post_init__(self) -> None:
        import numpy as np

        self.model.to(self.device)
        self.lengths: np.ndarray = np.diff(self.prepared["starts"])

    def vectors(self, texts: np.ndarray) -> Any:
        """Return the mean of the last hidden states over the real tokens of each text, float32, (n, d)."""
        torch, (pad_id, left), starts = encoders.import_torch(), self.prepared["padding"], self.prepared["starts"]
        ids = [self.prepared["tokens"][starts[text] : starts[text + 1]] for text in texts]
        if self.vocabulary is not None:
            ids, pad_id = [self.vocabulary.lookup[each] for each in ids], self.vocabulary.lookup[pad_id]
        tokens, mask = (torch.from_numpy(a).to(self.device) for a in encoders.pad(ids, int(pad_id), bool(left)))
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            hidden = self.model(input_ids=tokens, attention_mask=mask)[0].float()
        weight = mask.unsqueeze(-1).float()
        return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)

    def embed(self, texts: np.ndarray) -> np.ndarray:
        """Return unit vectors, float64, without dropout; distinct texts, in batches of similar length."""
        import numpy as np

        torch = encoders.import_torch()
        found = np.zeros((len(texts), self.model.config.hidden_size))
        self.model.eval()
        with torch.inference_mode():
            for rows in encoders.length_batches(self.lengths[texts].tolist(), encoders.batch_budget(self.device)):
                found[rows] = torch.nn.functional.normalize(self.vectors(texts[rows]), dim=1).cpu().numpy()
        return found

    def trim(self, texts: np.ndarray) -> None:
        """Leave out the words that none of these texts holds, where that changes nothing (see `vocabulary.py`)."""
        import numpy as np

        starts, before = self.prepared["starts"], self.embed(texts[:2])
        used = [np.unique(self.prepared["tokens"][starts[text] : starts[text + 1]]) for text in texts]
        self.vocabulary = trim_vocabulary(self.model, np.concatenate([*used, self.prepared["padding"][:1]]))
        if self.vocabulary is not None and not np.array_equal(before, self.embed(texts[:2])):
            self.vocabulary.restore(self.model)
            self.vocabulary = None


def _all_texts(training: Training) -> np.ndarray:
    import numpy as np

    return np.unique(np.concatenate([training.rows, training.dev_rows, training.asked]))


def _tune(reader: _Reader, training: Training, recipe: Recipe) -> str | None:
    """Train on pairs to the last step; return why the run ended early, if it did."""
    torch = encoders.import_torch()
    optimiser, schedule = make_optimiser(reader.model, recipe, training.steps)
    reader.model.train()
    for first, second, same in _pairs(reader.lengths, training, recipe):
        u, v = _both(reader, first, second)
        target = torch.from_numpy(same.astype("float32")).to(reader.device)
        loss = torch.nn.functional.mse_loss(torch.cosine_similarity(u, v), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.model.parameters(), recipe.clip)
        reader.steps += 1
        if not math.isfinite(loss.item()):
            return f"the loss is not finite at step {reader.steps}"
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        reader.real_tokens += int(reader.lengths[first].sum() + reader.lengths[second].sum())
    return None


def _both(reader: _Reader, first: np.ndarray, second: np.ndarray) -> tuple[Any, Any]:
    """The vectors of both sides of some pairs; read in two batches of similar length, whichever side a text is on."""
    import numpy as np

    torch, texts = encoders.import_torch(), np.concatenate([first, second])
    order = np.argsort(reader.lengths[texts], kind="stable")
    parts = [part for part in np.array_split(order, 2) if len(part)]
    vectors = torch.cat([reader.vectors(texts[part]) for part in parts])
    place = torch.from_numpy(np.argsort(order, kind="stable")).to(vectors.device)
    return tuple(vectors[place].split(len(first)))


def _pairs(
    lengths: np.ndarray, training: Training, recipe: Recipe
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield texts, their partners and whether the labels are equal, one batch per step.

    Half of a batch gets a partner with its own label, half one with another, drawn at random; a text is no partner of
    itself. The first texts are those of the student `encoder` under the same seed, whatever the labels.
    """
    import numpy as np

    order, texts, codes = stream(training.seed, ORDER), training.rows, training.codes
    rng, rows = np.random.default_rng([order, 1]), np.arange(len(training.rows))
    for batch in training_batches(lengths[texts], recipe.batch_size, training.steps, order, recipe.batching):
        wishes = rng.permutation(np.arange(len(batch)) % 2 == rng.integers(2))
        partners, same = np.empty_like(batch), np.empty(len(batch), dtype=bool)
        for place, (row, equal) in enumerate(zip(batch, wishes)):
            fits, others = (codes == codes[row]) == equal, texts != texts[row]
            choice = next((c for c in (rows[fits & others], rows[others]) if len(c)), rows[row : row + 1])
            partners[place] = rng.choice(choice)
            same[place] = codes[partners[place]] == codes[row]
        yield texts[batch], texts[partners], same


def _outcome(reader: _Reader, training: Training, recipe: Recipe, schema: LabelSchema, fault: str | None) -> Outcome:
    """The head on the tuned embeddings; after a fault on none, so that the label shares predict."""
    import numpy as np

    texts, (positions, codes, weights) = _all_texts(training), distinct_rows(training, len(schema))
    vectors = np.zeros((len(texts), 1)) if fault else reader.embed(texts)
    train, dev, asked = (
        vectors[np.searchsorted(texts, rows)] for rows in (positions, training.dev_rows, training.asked)
    )
    found = fit_head(training, recipe, len(schema), train=train, codes=codes, weights=weights, dev=dev, asked=asked)
    facts = {"steps": reader.steps, "best_step": reader.steps, "real_tokens": reader.real_tokens}
    epoch = reader.steps * recipe.batch_size / len(training.rows)
    point = {**found.curve[0], "step": reader.steps, "epoch": epoch}
    if fault:
        found = dataclasses.replace(found, status="collapsed", reason=fault)
    return dataclasses.replace(found, facts={**found.facts, **facts}, curve=[point])


def seconds(tokens: np.ndarray, recipe: Recipe, trainings: Sequence[Training]) -> tuple[float, float]:
    """Return estimated seconds for tokenising and for the trainings: two texts per pair, backward twice the forward."""
    forward = encoders.tokens_per_second(recipe.encoder, recipe.precision)
    spent = 0.0
    for training in trainings:
        trained = 2 * float(tokens[training.rows].mean()) * recipe.batch_size * training.steps
        spent += 1.0 + (3 * trained + float(tokens[_all_texts(training)].sum())) / forward
    return 1e-4 * len(tokens), spent
