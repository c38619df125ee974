"""Consensus: votes → labels, agreement, and quality where there is gold."""

from consenso.consensus.agreement import measure_agreement
from consenso.consensus.checks import check_consensus
from consenso.consensus.decision import decide
from consenso.consensus.methods import METHODS, Method
from consenso.consensus.quality import UNDECIDED, annotator_quality, score_against_gold
from consenso.consensus.settings import ConsensusSettings, ProblematicRule

__all__ = [
    "METHODS",
    "UNDECIDED",
    "ConsensusSettings",
    "Method",
    "ProblematicRule",
    "annotator_quality",
    "check_consensus",
    "decide",
    "measure_agreement",
    "score_against_gold",
]
