"""Real OpenAI-compatible servers for tests: `transformers serve` and llama-cpp-python's, each with a tiny random model.

`make servers` installs both apart from consenso; CONSENSO_SERVERS names their environment (default: .servers, else the one
that runs the tests).
Run as a script there, this file writes the GGUF file, for which consenso's own environment has no package.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
CONTEXT, WIDTH, LAYERS, HEADS, KV_HEADS, INNER, VOCABULARY = 2048, 64, 2, 4, 2, 96, 600
SPECIALS = ["<s>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = [
    "You classify texts. Answer with exactly one of these labels, and nothing else:",
    "negative neutral positive this is text number 0 1 2 3 4 5 6 7 8 9",
    'Answer as JSON: {"label": "negative"} {"label": "neutral"} {"label": "positive"}',
    "<text> </text> system user assistant That is not one of the labels.",
]


def python_of_servers() -> Path:
    """The interpreter of the servers' environment, or this one."""
    folder = Path(os.environ.get("CONSENSO_SERVERS") or ROOT / ".servers").absolute()
    python = folder / "bin" / "python"
    return python if python.exists() else Path(sys.executable)


def has(python: Path, module: str) -> bool:
    """Whether an environment can import a module."""
    tried = subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False, env=environment())
    return tried.returncode == 0


def environment() -> dict[str, str]:
    """What servers run in: nothing is fetched, and one thread each."""
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return {**{k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}, **quiet}


# models


def make_tokenizer() -> Any:
    """A byte-level BPE with a chat template, trained on a few lines."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=SPECIALS, initial_alphabet=alphabet)
    bpe.train_from_iterator(WORDS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        chat_template=TEMPLATE,
        bos_token="<s>",
        eos_token="<|im_end|>",
        pad_token="<s>",
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )


def save_model(folder: Path) -> Path:
    """A folder with a tiny random Llama and its tokenizer, as transformers loads them."""
    import torch
    import transformers

    tokenizer = make_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, intermediate_size=INNER, max_position_embeddings=CONTEXT, initializer_range=0.3,
        bos_token_id=0, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        model.generation_config.do_sample = True  # else `transformers serve` takes no temperature
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_gguf(python: Path, model: Path, file: Path) -> Path:
    """A GGUF file with the tokenizer of a saved model and random weights, written in the servers' environment."""
    subprocess.run([python, __file__, model, file], check=True, env=environment())
    return file


def _write_gguf(model: Path, file: Path) -> None:
    import gguf
    import numpy as np

    saved = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    pieces = dict(saved["model"]["vocab"]) | {one["content"]: one["id"] for one in saved["added_tokens"]}
    tokens = sorted(pieces, key=pieces.__getitem__)
    kinds = [gguf.TokenType.CONTROL if token in SPECIALS else gguf.TokenType.NORMAL for token in tokens]
    merges = [one if isinstance(one, str) else " ".join(one) for one in saved["model"]["merges"]]

    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index("<s>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)

    rng, head = np.random.default_rng(0), WIDTH // HEADS

    def add(name: str, *shape: int) -> None:
        ones = name.endswith("norm.weight")
        spread = 1.0 if "attn" in name else 0.3  # attention so sharp that what is said depends on the text
        writer.add_tensor(name, (np.ones(shape) if ones else rng.normal(0, spread, shape)).astype(np.float32))

    add("token_embd.weight", len(tokens), WIDTH)
    add("output_norm.weight", WIDTH)
    add("output.weight", len(tokens), WIDTH)
    for block in (f"blk.{number}." for number in range(LAYERS)):
        add(block + "attn_norm.weight", WIDTH)
        add(block + "attn_q.weight", WIDTH, WIDTH)
        add(block + "attn_k.weight", KV_HEADS * head, WIDTH)
        add(block + "attn_v.weight", KV_HEADS * head, WIDTH)
        add(block + "attn_output.weight", WIDTH, WIDTH)
        add(block + "ffn_norm.weight", WIDTH)
        add(block + "ffn_gate.weight", INNER, WIDTH)
        add(block + "ffn_up.weight", INNER, WIDTH)
        add(block + "ffn_down.weight", WIDTH, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# servers


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Server:
    """A server program in a process of its own; what it prints goes to a file, where its answers are counted."""

    def __init__(self, kind: str, model: str, command: Sequence[Any], log: Path) -> None:
        self.kind, self.model, self.port = kind, model, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command, self._log = [*map(str, command), "--host", "127.0.0.1", "--port", str(self.port)], log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, seconds: float = 120.0) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(self._command, stdout=out, stderr=subprocess.STDOUT, env=environment())
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self.get("/v1/models")
                return
            except (
                urllib.error.HTTPError
            ) as error:  # `transformers serve` without a hub's cache: it is there nevertheless
                error.close()
                return
            except OSError:
                time.sleep(0.1)
        self.stop()
        raise RuntimeError(f"{self.kind} did not start:\n{self.said[-3000:]}")

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it; SIGKILL breaks its connections off."""
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End it at once, whatever is under way."""
        self.stop(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it hang: connections are taken, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @property
    def said(self) -> str:
        """What it has printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def answered(self) -> int:
        """Chat requests that it has answered, by its own access log, over all its starts."""
        return self.said.count('"POST /v1/chat/completions HTTP/1.1"')

    def get(self, path: str) -> Any:
        """Decoded JSON of a GET."""
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return json.load(answer)

    def chat(self, **body: Any) -> tuple[int, Any]:
        """Status and decoded JSON of a chat request, sent without consenso."""
        data = json.dumps({"model": self.model, **body}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/v1/chat/completions", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)


def transformers_server(python: Path, model: Path, log: Path, *options: str) -> Server:
    """`transformers serve`, bound to one model."""
    command = [python, "-m", "transformers.cli.transformers", "serve", model, "--device", "cpu", *options]
    return Server("transformers", str(model), command, log)


def llama_server(python: Path, file: Path, log: Path, **options: Any) -> Server:
    """llama-cpp-python's server; options: its own, such as logits_all."""
    more: Mapping[str, Any] = {"n_ctx": CONTEXT, "n_threads": 1, "logits_all": "true", "verbose": "false", **options}
    command: list[Any] = [python, "-m", "llama_cpp.server", "--model", file, "--model_alias", "tiny"]
    for name, value in more.items():
        command += [f"--{name}", value]
    return Server("llama", "tiny", command, log)


if __name__ == "__main__":
    _write_gguf(Path(sys.argv[1]), Path(sys.argv[2]))
