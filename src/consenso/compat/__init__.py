"""Door for notebooks written against the earlier system: the names they know, thin, over our own verbs.

A dataset's `label` holds the user's ids (−1 and 1, 1 … 10 are fine) or names; class positions exist in the model alone.
"""

from consenso.compat.aligning import DatasetAligner
from consenso.compat.arguments import TrainingArguments
from consenso.compat.loading import DatasetConfig, add_label_description, load_hf_dataset_as_dataframe
from consenso.compat.rows import HFTokenizer
from consenso.compat.trainer import MetricsComputer, ModelFactory, TrainerBuilder
from consenso.compat.tuning import SupervisedFineTuner
from consenso.compat.warned import ConsensoWarning
from consenso.labels import LabelSchema

__all__ = [
    "ConsensoWarning", "DatasetAligner", "DatasetConfig", "HFTokenizer", "LabelSchema", "MetricsComputer",
    "ModelFactory", "SupervisedFineTuner", "TrainerBuilder", "TrainingArguments", "add_label_description",
    "load_hf_dataset_as_dataframe",
]  # fmt: skip
