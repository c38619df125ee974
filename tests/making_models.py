"""Tiny random models in folders, as `save_pretrained` leaves them, with a byte-level tokenizer trained on a few texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from consenso import encoders

TEXTS = [
    "The match ended with a late goal.",
    "Shares of the bank fell; the market closed lower than in any week of this long and expensive year.",
    "A doctor said the vaccine works.",
    "very good, very bad, not very good",
    "goal",
]
LABELS = ["very", "very good", "bad", "not very good at all", "sport"]
CHAT = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3}
HEADS = {**SIZE, "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 256}
CAUSAL: dict[str, dict[str, Any]] = {
    "Llama": HEADS,
    "Qwen3": {**HEADS, "head_dim": 8},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.3},
    "Bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3},
    "Mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 256, "initializer_range": 0.3},
    "Mamba": {**SIZE, "state_size": 4},
    "Mistral": {**HEADS, "sliding_window": 16},
}
NLI: dict[str, dict[str, Any]] = {
    "Bert": {**SIZE, "intermediate_size": 48},
    "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "initializer_range": 0.3},
    "Bart": {
        "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4, "init_std": 0.3,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "decoder_start_token_id": 1,
    },
    "DebertaV2": {**SIZE, "intermediate_size": 48, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "Roberta": {**SIZE, "intermediate_size": 48, "max_position_embeddings": 465},
}  # fmt: skip
"""Roberta counts its positions from the padding token's id."""
NLI_LABELS = {"Contradiction": 0, "NEUTRAL": 1, "Entailment": 2}


def train_words() -> Any:
    """A byte-level BPE trained on the texts above."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    specials = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, initial_alphabet=alphabet)
    bpe.train_from_iterator(TEXTS + LABELS, trainer)
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return bpe


def tokenizer_of(words: Any, template: str | None) -> Any:
    from transformers import PreTrainedTokenizerFast

    named = {"bos_token": "<s>", "eos_token": "</s>", "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}
    return PreTrainedTokenizerFast(tokenizer_object=words, chat_template=template, **named)


def pairing(words: Any) -> Any:
    """The same words with a padding token, and pairs as an NLI model reads them: <s> text </s> hypothesis </s>."""
    from tokenizers import Tokenizer, processors

    pairs = Tokenizer.from_str(words.to_str())
    pairs.add_special_tokens(["<pad>"])
    pairs.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s>:0 $A:0 </s>:0 $B:1 </s>:1",
        special_tokens=[("<s>", 0), ("</s>", 1)],
    )
    return pairs


def save_random(folder: Path, auto_class: str, config: Any, tokenizer: Any) -> str:
    import transformers

    torch = encoders.import_torch()
    with torch.random.fork_rng(), encoders.quiet_transformers(transformers):
        torch.manual_seed(0)
        getattr(transformers, auto_class).from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def causal_saver(new_folder: Callable[[str], Path], words: Any) -> Callable[..., str]:
    """A function: architecture, chat template or None → folder of a tiny random model, made once."""
    import transformers

    made: dict[tuple[str, str | None], str] = {}

    def save(kind: str, template: str | None = None) -> str:
        if (kind, template) not in made:
            config = getattr(transformers, f"{kind}Config")(
                vocab_size=400, bos_token_id=0, eos_token_id=1, pad_token_id=1, **CAUSAL[kind]
            )
            tokenizer = tokenizer_of(words, template)
            made[kind, template] = save_random(new_folder(kind), "AutoModelForCausalLM", config, tokenizer)
        return made[kind, template]

    return save


def nli_folder(folder: Path, words: Any, label2id: dict[str, int] = NLI_LABELS, kind: str = "Bert") -> str:
    import transformers

    names = {position: label for label, position in label2id.items()}
    sizes = {"vocab_size": 401, "max_position_embeddings": 64, **NLI[kind]}
    config = getattr(transformers, f"{kind}Config")(
        bos_token_id=0, eos_token_id=1, pad_token_id=400, id2label=names, label2id=label2id, **sizes
    )
    tokenizer = tokenizer_of(pairing(words), None)
    tokenizer.pad_token, tokenizer.model_max_length = "<pad>", 64
    return save_random(folder, "AutoModelForSequenceClassification", config, tokenizer)


def chats(texts: list[str] = TEXTS) -> list[list[dict[str, str]]]:
    system = {"role": "system", "content": "Say good or bad."}
    return [[system, {"role": "user", "content": text}] for text in texts]
