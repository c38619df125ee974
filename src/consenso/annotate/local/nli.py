"""Label probabilities from a natural-language-inference model: which hypothesis does the text entail?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from consenso.annotate.local.causal import softmax
from consenso.annotate.local.loading import Dtype, harmless, load_model, memory_errors
from consenso.encoders import batch_budget, best_device, import_torch, length_batches, torch_threads
from consenso.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import numpy as np


class NliModel:
    """A sequence classifier trained on premise and hypothesis, from a hub id or a local folder.

    The entailment class is the one whose name in the configuration's `label2id` starts with "entail", in any case.
    `dtype`, `batch_tokens`, `threads`: as for `CausalModel`.
    Raises `ModelError` for a model that cannot be loaded or has no entailment class, `MissingExtraError` without torch.
    """

    def __init__(
        self, name: str, *, dtype: Dtype = "auto", batch_tokens: int | None = None, threads: int | None = None
    ) -> None:
        self.name = name
        self.device = best_device()
        self.batch_tokens = batch_tokens or batch_budget(self.device)
        self.threads = threads
        self._model, self._tokenizer = load_model(
            name, "AutoModelForSequenceClassification", dtype, self.device, entailment
        )
        self._entailment = entailment(name, self._model.config)
        self.dtype = str(self._model.dtype).removeprefix("torch.")
        self.context = int(self._tokenizer.model_max_length)
        """The most tokens that text and hypothesis may have together, special tokens included."""
        self.truncated = 0
        """How many texts of the last call were cut for at least one hypothesis."""

    def probabilities(
        self, texts: Sequence[str], hypotheses: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        """Return float64 probabilities, shape (n, K): the softmax over the hypotheses of the entailment logit.

        It is the single-label rule of transformers' zero-shot pipeline, for models of two classes as well. A long text
        is cut at its end, a hypothesis never; `truncated` counts the texts cut.
        Equal texts are scored once, in a fixed order; `progress(done, total)` counts distinct texts.
        Raises `ModelError` when memory runs out or a hypothesis leaves no room for a text.
        """
        import numpy as np

        if not hypotheses:
            raise ConfigError("no hypotheses to choose from; give at least one")
        texts = [harmless(self._tokenizer, text) for text in texts]
        distinct = sorted(set(texts))
        position = {text: row for row, text in enumerate(distinct)}
        logits = np.full((len(distinct), len(hypotheses)), np.nan)
        torch = import_torch()
        with torch_threads(self.threads), torch.inference_mode(), memory_errors(self.name, self.batch_tokens):
            whole = self._lengths(distinct, hypotheses)
            done = 0
            for rows in length_batches(whole.max(axis=1).clip(max=self.context).tolist(), self.batch_tokens):
                cells = [(row, column) for row in rows for column in range(len(hypotheses))]
                lengths = [min(int(whole[cell]), self.context) for cell in cells]
                for batch in length_batches(lengths, self.batch_tokens):
                    some = [cells[cell] for cell in batch]
                    pairs = [distinct[row] for row, _ in some], [hypotheses[column] for _, column in some]
                    logits[tuple(np.array(some).T)] = self._entailment_logits(*pairs)
                done += len(rows)
                if progress is not None:
                    progress(done, len(distinct))
        cut = whole.max(axis=1) > self.context
        chosen = [position[text] for text in texts]
        self.truncated = int(cut[chosen].sum())
        shares: np.ndarray = softmax(logits)[chosen]
        return shares

    def _lengths(self, texts: list[str], hypotheses: Sequence[str]) -> np.ndarray:
        """Return the tokens of every pair before any cut, shape (n, K)."""
        import numpy as np

        def count(of: list[str]) -> np.ndarray:
            options = {"add_special_tokens": False, "padding": False, "truncation": False, "verbose": False}
            return np.array([len(ids) for ids in self._tokenizer(of, **options)["input_ids"]] if of else [], dtype=int)

        special = self._tokenizer.num_special_tokens_to_add(pair=True)
        of_hypotheses = count(list(hypotheses)) + special
        if of_hypotheses.max() >= self.context:
            longest = hypotheses[int(of_hypotheses.argmax())]
            raise ModelError(
                f"model {self.name!r} reads {self.context} tokens; hypothesis {longest[:40]!r}… leaves no room for a text"
            )
        whole: np.ndarray = count(texts)[:, None] + of_hypotheses
        return whole

    def _entailment_logits(self, premises: list[str], hypotheses: list[str]) -> np.ndarray:
        found = self._tokenizer(
            premises, hypotheses, padding=True, truncation="only_first", max_length=self.context, return_tensors="pt"
        )
        inputs = {name: found[name].to(self.device) for name in self._tokenizer.model_input_names if name in found}
        return cast("np.ndarray", self._model(**inputs).logits[:, self._entailment].float().cpu().numpy())


def entailment(name: str, config: Any) -> int:
    """Return the position of the entailment class."""
    found = [int(position) for label, position in config.label2id.items() if label.lower().startswith("entail")]
    if not found:
        raise ModelError(
            f"model {name!r} has no class named entailment; found {list(config.label2id)}; give an NLI model, such as one "
            "trained on MNLI, or a model whose config.json has label2id"
        )
    return found[0]
