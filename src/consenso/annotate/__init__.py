"""annotate: every annotator's vote for every text, asked here or imported."""

from consenso.annotate.asking import annotate_texts
from consenso.annotate.counting import check_annotators, count_votes, describe_annotators
from consenso.annotate.earlier import read_earlier_texts
from consenso.annotate.imported import read_votes
from consenso.annotate.settings import AnnotateSettings, EmbeddingAnnotator, VoteColumns, VoteImport

__all__ = [
    "AnnotateSettings",
    "EmbeddingAnnotator",
    "VoteColumns",
    "VoteImport",
    "annotate_texts",
    "check_annotators",
    "count_votes",
    "describe_annotators",
    "read_earlier_texts",
    "read_votes",
]
