"""How texts are predicted: the options of `consenso predict`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from consenso.settings import Settings

Count = Annotated[int, Field(ge=1)]


class PredictSettings(Settings):
    """What is read, how it is classified and what is written."""

    text: str | None = None
    """Column of the texts; None: `text`."""
    id: str | None = None
    """Column of the text ids; None: `text_id` or `id` where there is one, else the row's number from 0."""
    keep: Literal["all"] | tuple[str, ...] = ()
    """Columns of the source that are copied to the result."""
    probabilities: bool = True
    """Write the probability of each label, not only of the predicted one."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: the forward pass under autocast."""
    onnx: bool = False
    """Classify with ONNX Runtime; the model is exported once."""
    threads: Count | None = None
    """Batches that are classified at the same time on a CPU; None: as many as torch has threads. Changes no number."""
    batch_tokens: Annotated[int, Field(ge=16)] | None = None
    """Padded tokens per batch; None: 1,024 on a CPU, 65,536 on a GPU."""
    chunk: Count | None = None
    """Rows that are read, classified and saved together: what a kill loses at most; None: 2,048 on a CPU, 32,768 on a GPU."""
    max_length: Annotated[int, Field(ge=8)] | None = None
    """Tokens after which a text is cut; None: as many as the model reads, 512 where it names no limit."""
    limit: Count | None = None
    """Predict the first so many rows only."""
