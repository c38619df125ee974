"""Recipe: every training choice, shared by all arms."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from consenso.settings import Settings

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Recipe(Settings):
    """How a student is trained. All arms of a study share one recipe; a changed recipe is another experiment."""

    encoder: str = "embedded"
    """Encoder of all students but `linear`: embedded (MiniLM), a local folder or a Hugging Face hub id."""
    max_length: Annotated[int, Field(ge=8)] = 256
    """Tokens after which a text is cut; nothing is ever padded to this length."""
    learning_rate: Positive = 5e-5
    """Peak learning rate: 5e-5 suits small encoders such as MiniLM, 2e-5 base ones such as roberta-base."""
    epochs: Positive = 5
    """Passes over the largest arm; every arm takes as many steps as that makes. `contrastive`: pairs per text, try 20."""
    batch_size: Count = 16
    """Texts per optimiser step."""
    batching: Literal["sorted", "tokens", "random"] = "sorted"
    """sorted: texts of similar length share a batch, batches come in random order; tokens: the same, with as many tokens in
    each; random: texts in random order, half as fast."""
    loss: Literal["cross_entropy", "focal", "gce"] = "cross_entropy"
    """focal: hard texts count more; gce (generalised cross-entropy): texts that contradict the student count less."""
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    """How much more: 0 is cross-entropy."""
    gce_q: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Between cross-entropy (towards 0) and mean absolute error (1)."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: every class weighs the same in training, however rare."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of every target that is spread over all classes."""
    lora_rank: Annotated[int, Field(ge=0)] = 0
    """0: all weights are trained; above: LoRA of that rank (peft), which wants a rate about ten times as high."""
    lora_alpha: Positive = 16.0
    """What LoRA learns is scaled by lora_alpha / lora_rank."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps during which the learning rate rises from 0; afterwards it falls linearly to 0."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's decay of weight matrices; biases and layer norms are left alone."""
    clip: Positive = 1.0
    """Largest gradient norm."""
    steps: Literal["equal", "epochs"] = "equal"
    """epochs: each arm takes `epochs` over its own rows; in an experiment file a declared variant only."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Evaluations without a better dev score after which a training ends; 0: never. A declared variant only."""
    evaluations: Count = 10
    """Evaluations on dev, evenly spaced over the steps; the best state by dev macro-F1 is kept."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: forward and backward under autocast, about 1.5 times as fast where the processor has it; for all arms."""
    compile: bool = False
    """torch.compile the encoder on a GPU: pays in runs of many minutes; on a CPU it gains nothing and is not done."""
    watch: bool = True
    """End a training of the encoder that is doomed to collapse early; False: each takes all its steps."""
    c_grid: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    """Inverse regularisation C of the linear heads (`frozen`, `linear`, `contrastive`): the best on dev, the smallest if equal."""
