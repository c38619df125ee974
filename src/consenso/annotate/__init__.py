"""annotate: every annotator's vote for every text, asked here or imported."""

from consenso.annotate.annotators import (
    CausalAnnotator,
    EmbeddingAnnotator,
    LLMAnnotator,
    NliAnnotator,
    Price,
    PythonAnnotator,
    Variant,
)
from consenso.annotate.asking import annotate_texts
from consenso.annotate.confidence import calibrate_confidence
from consenso.annotate.counting import check_annotators, count_votes, describe_annotators
from consenso.annotate.earlier import read_earlier_texts
from consenso.annotate.imported import read_votes
from consenso.annotate.reading import Answer, parse
from consenso.annotate.settings import AnnotateSettings, VoteColumns, VoteImport

__all__ = [
    "AnnotateSettings",
    "Answer",
    "CausalAnnotator",
    "EmbeddingAnnotator",
    "LLMAnnotator",
    "NliAnnotator",
    "Price",
    "PythonAnnotator",
    "Variant",
    "VoteColumns",
    "VoteImport",
    "annotate_texts",
    "calibrate_confidence",
    "check_annotators",
    "count_votes",
    "describe_annotators",
    "parse",
    "read_earlier_texts",
    "read_votes",
]
