"""The command that uses a classifier: predict."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from consenso.predict import Predicted


@click.command()
@click.argument("model")
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--to",
    required=True,
    type=click.Path(path_type=Path),
    help="File to write: .csv, .tsv, .jsonl (each also .gz) or .parquet.",
)
@click.option("--text", metavar="COLUMN", help="Column of the texts (default: text).")
@click.option(
    "--id", metavar="COLUMN", help="Column of the ids (default: text_id or id, else the row's number from 0)."
)
@click.option(
    "--keep", metavar="COLUMNS", help="Columns to copy to the result as they stand, separated by commas, or all."
)
@click.option(
    "--probabilities/--no-probabilities", default=True, help="Write the probability of each label (default: yes)."
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    default="fp32",
    show_default=True,
    help="bf16: faster where the processor has it.",
)
@click.option("--onnx", is_flag=True, help="Classify with ONNX Runtime; exports the model once.")
@click.option("--threads", type=int, help="CPU threads (default: as many as torch takes). Changes no number.")
@click.option("--batch-tokens", type=int, help="Padded tokens per batch (default: 1024 on a CPU, 65536 on a GPU).")
@click.option(
    "--chunk",
    type=int,
    help="Rows that are saved together: what a kill loses (default: 2048 on a CPU, 32768 on a GPU).",
)
@click.option("--max-length", type=int, help="Tokens after which a text is cut (default: as many as the model reads).")
@click.option("--limit", type=int, help="Predict the first so many rows only.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--force", is_flag=True, help="Replace the file.")
def predict(model: str, data: Path, to: Path, *, keep: str | None, as_json: bool, force: bool, **options: Any) -> None:
    """Label a file of texts with a saved classifier: MODEL is a folder that train wrote, or any from Hugging Face.

    Goes on where it was cut off; the result is the one of an uninterrupted run.
    """
    from consenso.predict import predict_file

    kept = keep if keep in {None, "all"} else tuple(name.strip() for name in str(keep).split(","))
    if options["threads"]:
        os.environ.setdefault("RAYON_NUM_THREADS", str(options["threads"]))  # threads of the tokenizer
    predicted = predict_file(data, model, to, force=force, progress=_Progress(), **options, keep=kept or ())
    for note in predicted.notes:
        click.echo(f"consenso: {note}", err=True)
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(predicted), "path": str(predicted.path)}, ensure_ascii=False))
    else:
        _say(predicted)


def _say(predicted: Predicted) -> None:
    labelled = predicted.rows - predicted.empty
    width = max(map(len, predicted.labels))
    for label, rows in predicted.labels.items():
        click.echo(f"{label:<{width}}  {rows:>11,}  {rows / max(labelled, 1):6.1%}")
    if predicted.empty:
        click.echo(f"{predicted.empty:,} row(s) without a text have the status empty and no label")
    if predicted.cut:
        click.echo(f"{predicted.cut:,} text(s) reached {predicted.max_length} tokens; what stands behind was not read")
    resumed = f", {predicted.resumed:,} of them earlier" if predicted.resumed else ""
    click.echo(f"wrote {predicted.path}: {predicted.rows:,} rows{resumed}, {predicted.seconds:.0f} s")


class _Progress:
    """One line on stderr that is overwritten in a terminal, and one every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()
        self._first: int | None = None
        self._has_spoken = False

    def __call__(self, done: int, total: int) -> None:
        from consenso.progress import duration

        now, live = time.monotonic(), sys.stderr.isatty()
        if self._first is None:  # the speed of this run: rows of an earlier one, and loading, do not count
            self._first, self._started = done, now
            if done:
                self._has_spoken = True
                click.echo(f"predict    {done:,} of {total:,} texts are there from an earlier run", err=True)
        is_due = now - self._last >= (0.5 if live else 10)
        if not (is_due and done < total) and not (done == total and self._has_spoken):
            return
        self._last, self._has_spoken = now, True
        speed = (done - self._first) / (now - self._started) if now > self._started else 0
        left = f", {speed:.0f}/s, {duration((total - done) / speed)} left" if speed and done < total else ""
        line = f"predict    {done:,}/{total:,} texts{left}"
        click.echo(f"\r\033[K{line}" if live else line, err=True, nl=not live or done == total)
