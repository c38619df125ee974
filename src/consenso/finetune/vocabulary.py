"""Train without the words that nobody uses: exact, and less to update, to measure and to keep.

A training reads and predicts texts that are known beforehand. The rows of the embedding matrix for other tokens never get
a gradient, but AdamW, the gradient norm and the kept state pass over them in every step: half of MiniLM's weights, two
thirds of XLM-R's. They are left out, and put back, as they came, when the training is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consenso import encoders

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that a training knows."""

    lookup: np.ndarray
    """The encoder's token id → the id during this training; 0 for tokens that do not occur."""
    known: np.ndarray
    """The encoder's ids of the rows that stay, in the order of the ids during the training."""
    whole: Any
    """The encoder's own embedding module."""
    padding: int | None
    """The encoder's own padding id."""

    def restore(self, model: Any) -> None:
        """Put the trained rows among the others, which are as they came."""
        torch = encoders.import_torch()
        trained = model.get_input_embeddings().weight.detach()
        with torch.no_grad():
            self.whole.to(trained.device).weight[torch.from_numpy(self.known).to(trained.device)] = trained
        model.set_input_embeddings(self.whole)
        model.config.pad_token_id = self.padding


def trim_vocabulary(model: Any, tokens: np.ndarray) -> Vocabulary | None:
    """Leave the rows of `tokens` (ids that occur, any order) in the model's input embeddings; None: nothing was done.

    Special tokens (`…_token_id` in the configuration) keep their number where it is small enough, since some encoders
    derive positions from it (RoBERTa). Nothing is done where little would be saved, or where the embeddings are more than
    a plain lookup.
    """
    import numpy as np

    torch, whole = encoders.import_torch(), _embeddings(model)
    if type(whole) is not torch.nn.Embedding or whole.max_norm is not None or whole.sparse:
        return None
    size = whole.num_embeddings
    special = {
        value for name, value in vars(model.config).items() if name.endswith("_token_id") and _is_id(value, size)
    }
    used = np.union1d(tokens, sorted(special)).astype("int64")
    if len(used) > 0.9 * size or used[-1] >= size:
        return None
    known = _ordered(used, special)
    lookup = np.zeros(size, dtype="int64")
    lookup[known] = np.arange(len(known))
    padding = None if whole.padding_idx is None or whole.padding_idx not in used else int(lookup[whole.padding_idx])
    with torch.no_grad():
        rows = whole.weight[torch.from_numpy(known).to(whole.weight.device)].clone()
    small = torch.nn.Embedding.from_pretrained(rows, freeze=not whole.weight.requires_grad, padding_idx=padding)
    model.set_input_embeddings(small)
    before = model.config.pad_token_id
    model.config.pad_token_id = None if before is None else int(lookup[before])
    return Vocabulary(lookup, known, whole, before)


def _embeddings(model: Any) -> Any:
    try:
        return model.get_input_embeddings()
    except NotImplementedError:
        return None


def _is_id(value: Any, size: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < size


def _ordered(used: np.ndarray, special: set[int]) -> np.ndarray:
    """The ids in use: special ones at the place of their number, the others in ascending order around them."""
    import numpy as np

    fixed = np.array(sorted(token for token in special if token < len(used)), dtype="int64")
    known = np.empty(len(used), dtype="int64")
    known[fixed] = fixed
    free = np.ones(len(used), dtype=bool)
    free[fixed] = False
    known[free] = np.setdiff1d(used, fixed)
    return known
