"""Models that run in this process through transformers and give a probability for every label."""

from consenso.annotate.local.causal import CausalModel
from consenso.annotate.local.nli import NliModel

__all__ = ["CausalModel", "NliModel"]
