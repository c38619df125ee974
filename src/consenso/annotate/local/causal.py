"""Label probabilities from a causal language model: every label's continuation scored, nothing generated."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from consenso.annotate.local.loading import Dtype, first_line, harmless, load_model, memory_errors, model_errors
from consenso.annotate.local.script import Prompt, Script
from consenso.encoders import (
    batch_budget,
    best_device,
    import_torch,
    import_transformers,
    length_batches,
    pad,
    torch_threads,
)
from consenso.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
Scored = tuple[Any, Any, "np.ndarray"]
"""(rows, columns, log-probabilities): `scores[rows, columns] = values`."""

_CHECKED_LABELS = 8
"""How many labels the shared prefix is checked with: repeated where there are fewer, so that the last is far off."""
_WINDOWS = ("sliding_window", "attention_chunk_size", "window_size", "sliding_window_size")
_CONTEXTS = ("max_position_embeddings", "max_seq_len", "max_sequence_length")


class CausalModel:
    """A causal language model from a hub id or a local folder that rates labels as continuations of a prompt.

    Chat messages are written with the tokenizer's chat template, thinking switched off; a system message that the
    template refuses or drops goes in front of the user's. Without a template the messages are joined by blank lines and
    end in "\\nAnswer:". A plain string is continued as it is, after one space unless it ends in a line break.

    A label's log-probability is the sum over its tokens and one terminator, the same for all labels: the token that ends
    a turn in the chat template where there is one, else a line break (else the end-of-sequence token). It makes "very"
    and "very good" comparable: both say that the answer stops there. Labels are tokenised in their place, behind the end
    of the prompt, so that SentencePiece and BPE choose the tokens that the model itself would write.

    Texts of one call share batches; each text's prompt is read once, followed by all labels, which do not see each other
    (restarted positions, a 4-D mask). The first call compares that with scoring every label by itself; where they differ
    (ALiBi, recurrent models) `shared_prefix` becomes False and every label is scored by itself. The same is done for
    single texts that, with the labels, exceed a model's sliding window.

    `dtype`: auto (as saved; float16 becomes fp32 on a CPU), fp32 or bf16. `batch_tokens`: padded tokens per batch (None:
    `encoders.batch_budget`). `threads`: torch threads while scoring (None: as torch is set).
    Raises `ModelError` for a model that cannot be loaded or is no causal model, `MissingExtraError` without torch.
    """

    def __init__(
        self, name: str, *, dtype: Dtype = "auto", batch_tokens: int | None = None, threads: int | None = None
    ) -> None:
        self.name = name
        self.device = best_device()
        self.batch_tokens = batch_tokens or batch_budget(self.device)
        self.threads = threads
        self._model, tokenizer = load_model(name, "AutoModelForCausalLM", dtype, self.device, _check_causal)
        if self._model.config._attn_implementation not in {"sdpa", "eager"}:
            self._model.set_attn_implementation("eager")  # flash and flex attention take no 4-D mask
        config = self._model.config.get_text_config()
        self.dtype = str(self._model.dtype).removeprefix("torch.")
        self.context: int = next((n for key in _CONTEXTS if (n := getattr(config, key, None) or 0) > 0), sys.maxsize)
        """The most tokens that prompt and label may have together; `sys.maxsize` where the model has no limit."""
        self.shared_prefix: bool | None = None
        """Whether one pass over a prompt serves all labels; None before the first call."""
        self.too_long = 0
        """How many prompts of the last call did not fit."""
        windows = [n for key in _WINDOWS if isinstance(n := getattr(config, key, None), int) and n > 0]
        self._limit = min([self.context, *windows])
        self._vocabulary = int(config.vocab_size)
        self._pad_id = tokenizer.pad_token_id or 0
        self._keeps_logits = "logits_to_keep" in inspect.signature(self._model.forward).parameters
        self._largest = 2**26 if self.device == "cpu" else 2**29
        with model_errors(name):
            self._script = Script(tokenizer, name)

    def fits(self, prompt: Prompt) -> int:
        """Return the tokens of a prompt as the model reads it; with those of a label at most `self.context` fit."""
        return len(self._script.prefixes([self._script.write(prompt)])[0])

    def harmless(self, text: str) -> str:
        """Return a text for a prompt in which nothing is read as a special token."""
        return harmless(self._script.tokenizer, text)

    def probabilities(
        self, prompts: Sequence[Prompt], labels: Sequence[str], progress: Progress | None = None
    ) -> np.ndarray:
        """Return float64 probabilities, shape (n, K): the softmax over the labels of their log-probabilities.

        Prompts are never cut: one that does not fit with its longest label gets a row of NaN and counts in `too_long`.
        Equal prompts are scored once, in a fixed order, so that neither order nor repetition of the prompts matters.
        `progress(done, total)` counts distinct prompts.
        Raises `ModelError` when memory runs out or two labels are the same tokens.
        """
        import numpy as np

        if not labels:
            raise ConfigError("no labels to choose from; give at least one")
        written = [self._script.write(prompt) for prompt in prompts]
        distinct = sorted(set(written))
        scores = np.full((len(distinct), len(labels)), np.nan)
        prefixes = self._script.prefixes(distinct)
        done = 0
        torch = import_torch()
        with torch_threads(self.threads), torch.inference_mode(), memory_errors(self.name, self.batch_tokens):
            for turn in sorted({turn for _, turn in distinct}):
                endings = self._script.endings(labels, turn)
                longest = max(map(len, endings))
                mine = [row for row, (_, its) in enumerate(distinct) if its == turn]
                fitting = [row for row in mine if len(prefixes[row]) + longest <= self.context]
                done += (len(mine) - len(fitting)) * len(labels)
                for rows, columns, values in self._score([prefixes[row] for row in fitting], endings):
                    scores[np.array(fitting)[rows], columns] = values
                    done += values.size
                    if progress is not None:
                        progress(done // len(labels), len(distinct))
        position = {key: row for row, key in enumerate(distinct)}
        shares = softmax(scores)[[position[key] for key in written]]
        self.too_long = int(np.isnan(shares).any(axis=1).sum())
        return shares

    def _score(self, prefixes: list[list[int]], endings: list[list[int]]) -> Iterator[Scored]:
        """Yield log-probabilities of the endings: with a shared prefix where that is exact, else one by one."""
        import numpy as np

        widest = max(sum(len(endings[c]) - 1 for c in group) for group in self._groups(endings))
        near = [row for row, prefix in enumerate(prefixes) if len(prefix) + widest <= self._limit]
        if near and self.shared_prefix is None:
            by_length = sorted((prefixes[row] for row in near), key=len)
            self._compare([by_length[0], by_length[-1]], endings)
        if self.shared_prefix is False:
            near = []
        far = sorted(set(range(len(prefixes))) - set(near))
        if far and self.shared_prefix is not False:
            logger.info(
                "model %s: %d of %d prompts with their labels exceed %d tokens, its window or context; scored label by label",
                self.name,
                len(far),
                len(prefixes),
                self._limit,
            )
        ways = (self._score_singly, far), (self._score_together, near)
        for score, chosen in ways:
            for rows, columns, values in score([prefixes[row] for row in chosen], endings):
                if not np.isfinite(values).all():
                    raise ModelError(f"model {self.name!r} gives scores that are no numbers in {self.dtype}; try fp32")
                yield np.array(chosen)[rows], columns, values

    def _compare(self, prefixes: list[list[int]], endings: list[list[int]]) -> None:
        """Set `shared_prefix`: does one pass for all labels give what each label by itself gives?"""
        import numpy as np

        many = (endings * _CHECKED_LABELS)[: max(len(endings), _CHECKED_LABELS)]
        some = np.linspace(0, len(many) - 1, _CHECKED_LABELS).round().astype(int)
        expected = _filled(self._score_singly(prefixes, [many[c] for c in some]), (len(prefixes), len(some)))
        tolerance = 1e-3 if self.dtype == "float32" else 5e-2
        try:
            found = _filled(self._score_together(prefixes, many), (len(prefixes), len(many)))[:, some]
            self.shared_prefix = bool(np.allclose(found, expected, rtol=tolerance / 5, atol=tolerance))
            reason = f"log-probabilities differ by {np.abs(found - expected).max():.2g}"
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
            self.shared_prefix, reason = False, first_line(error)
        if not self.shared_prefix:
            logger.warning(
                "model %s (%s) cannot read one prompt for all labels (%s); every label is scored by itself, more slowly",
                self.name,
                self._model.config.model_type,
                reason,
            )

    def _groups(self, endings: list[list[int]]) -> list[list[int]]:
        """Return the labels in groups that fill at most half a batch, so that the prompt is read once per group."""
        room, groups, filled = min(self.batch_tokens, self._limit) // 2, [[0]], len(endings[0]) - 1
        for column, ending in enumerate(endings[1:], start=1):
            filled += len(ending) - 1
            if filled > room:
                groups.append([])
                filled = len(ending) - 1
            groups[-1].append(column)
        return groups

    def _score_together(self, prefixes: list[list[int]], endings: list[list[int]]) -> Iterator[Scored]:
        """One sequence per text: the prefix, padded on the left so that the labels stand in the same columns, then all.

        A label's last token is only predicted, never read.
        """
        import numpy as np

        torch = import_torch()
        for columns in self._groups(endings):
            block = _Block.of([endings[column] for column in columns])
            width = len(block.ids)
            for rows in self._batches([len(prefix) + width for prefix in prefixes], width + 1):
                ids, real = pad([[*prefixes[row], *block.ids] for row in rows], self._pad_id, left=True)
                positions = np.maximum(real.cumsum(axis=1) - 1, 0)
                positions[:, ids.shape[1] - width :] = np.array([[len(prefixes[row])] for row in rows]) + block.offsets
                logits = self._logits(
                    width + 1,
                    input_ids=torch.from_numpy(ids).to(self.device),
                    attention_mask=self._mask(torch.from_numpy(real).to(self.device).bool(), block.sees),
                    position_ids=torch.from_numpy(positions).to(self.device),
                )
                found = np.stack([_log_probabilities(one, block.looks, block.targets) for one in logits])
                yield np.array(rows)[:, None], np.array(columns), np.add.reduceat(found, block.starts, axis=1)

    def _mask(self, real: Any, sees: np.ndarray) -> Any:
        """Return the additive mask, shape (rows, 1, S, S): causal, and among the labels only what `sees` allows."""
        torch = import_torch()
        size, width = real.shape[1], len(sees)
        allowed = torch.ones(size, size, dtype=torch.bool, device=self.device).tril()
        allowed[size - width :, size - width :] = torch.from_numpy(sees).to(self.device)
        # Padding sees itself: a row without any key would be NaN and spread.
        allowed = allowed & real[:, None, :] | torch.eye(size, dtype=torch.bool, device=self.device)
        mask = torch.zeros(allowed.shape, dtype=self._model.dtype, device=self.device)
        return mask.masked_fill_(~allowed, torch.finfo(self._model.dtype).min)[:, None]

    def _score_singly(self, prefixes: list[list[int]], endings: list[list[int]]) -> Iterator[Scored]:
        """One sequence per text and label, padded on the right, where no causal model looks."""
        import numpy as np

        torch = import_torch()
        for texts in length_batches(list(map(len, prefixes)), self.batch_tokens):
            cells = [(row, column) for row in texts for column in range(len(endings))]
            lengths = [len(prefixes[row]) + len(endings[column]) - 1 for row, column in cells]
            first = min(len(prefixes[row]) for row in texts) - 1  # the earliest column that predicts a label's token
            for batch in self._batches(lengths, max(lengths) - first):
                rows, columns = zip(*(cells[cell] for cell in batch), strict=True)
                sequences = [[*prefixes[row], *endings[column][:-1]] for row, column in zip(rows, columns, strict=True)]
                ids, real = pad(sequences, self._pad_id)
                logits = self._logits(
                    ids.shape[1] - first,
                    input_ids=torch.from_numpy(ids).to(self.device),
                    attention_mask=torch.from_numpy(real).to(self.device),
                )
                values = []
                for one, row, column in zip(logits, rows, columns, strict=True):
                    looks = np.arange(len(endings[column])) + len(prefixes[row]) - 1 - first
                    values.append(_log_probabilities(one, looks, np.array(endings[column])).sum())
                yield np.array(rows), np.array(columns), np.array(values)

    def _batches(self, lengths: list[int], kept: int) -> Iterator[list[int]]:
        """Yield rows of like length within the token budget, fewer where mask or logits would grow too large."""
        for rows in length_batches(lengths, self.batch_tokens):
            longest = lengths[rows[-1]]
            each = max(longest**2, (kept if self._keeps_logits else longest) * self._vocabulary)
            step = max(1, self._largest // each)
            yield from (rows[at : at + step] for at in range(0, len(rows), step))

    def _logits(self, kept: int, **inputs: Any) -> Any:
        """Return the logits of the last `kept` columns; a vocabulary times all columns would fill the memory."""
        if self._keeps_logits:
            inputs["logits_to_keep"] = kept
        return self._model(use_cache=False, **inputs).logits[:, -kept:]


@dataclass(frozen=True)
class _Block:
    """All labels of a group behind one prefix; column 0 is the prefix's last token."""

    ids: list[int]
    offsets: np.ndarray
    """Each token's place in its label."""
    sees: np.ndarray
    """(read, seen): a token sees its own label up to itself."""
    looks: np.ndarray
    """The columns whose logits predict the targets."""
    targets: np.ndarray
    starts: np.ndarray
    """Where each label's targets begin."""

    @classmethod
    def of(cls, endings: list[list[int]]) -> _Block:
        import numpy as np

        read = [len(ending) - 1 for ending in endings]
        before = np.cumsum([0, *read])
        owner = np.repeat(np.arange(len(endings)), read)
        return cls(
            ids=[token for ending in endings for token in ending[:-1]],
            offsets=np.concatenate([np.arange(n) for n in read]),
            sees=np.tril(owner[:, None] == owner),
            looks=np.concatenate([[0, *(start + 1 + np.arange(n))] for start, n in zip(before, read)]).astype(int),
            targets=np.concatenate(endings),
            starts=np.cumsum([0, *(n + 1 for n in read[:-1])]),
        )


def _log_probabilities(logits: Any, columns: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return log P(target) at each of the columns of one sequence, float64."""
    torch = import_torch()
    first = int(columns.min())
    logits = logits[first : int(columns.max()) + 1].float()
    at, token = torch.from_numpy(columns - first).to(logits.device), torch.from_numpy(targets).to(logits.device)
    found = logits[at, token] - logits.logsumexp(dim=-1)[at]
    return cast("np.ndarray", found.cpu().double().numpy())


def _filled(scored: Iterator[Scored], shape: tuple[int, int]) -> np.ndarray:
    import numpy as np

    scores = np.full(shape, np.nan)
    for rows, columns, values in scored:
        scores[rows, columns] = values
    return scores


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return the softmax of each row, float64; a row of NaN stays one."""
    import numpy as np

    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return cast("np.ndarray", shifted / shifted.sum(axis=1, keepdims=True))


def _check_causal(name: str, config: Any) -> None:
    modeling = import_transformers().models.auto.modeling_auto
    kind = config.model_type
    both_ways = {*modeling.MODEL_FOR_MASKED_LM_MAPPING_NAMES, "xlnet"}  # transformers would load them, to read ahead
    encoder_only = kind in both_ways and not getattr(config, "is_decoder", False)
    if encoder_only or getattr(config, "is_encoder_decoder", False):
        what = "an encoder-decoder" if getattr(config, "is_encoder_decoder", False) else "an encoder"
        raise ModelError(
            f"model {name!r} is {what} ({kind}), not a causal language model; give one such as Qwen or Llama"
        )
