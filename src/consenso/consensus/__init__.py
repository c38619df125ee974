"""Consensus: votes → labels, agreement, what each annotator is worth, and what gold says of both."""

from consenso.consensus.agreement import agreement_of, landis_koch, measure_agreement
from consenso.consensus.alternative import alternative_annotator_test
from consenso.consensus.checks import check_consensus
from consenso.consensus.decision import decide
from consenso.consensus.estimation import estimate_label_shares
from consenso.consensus.gold_noise import find_gold_noise, gold_noise_bound
from consenso.consensus.holding import describe_gold, describe_panel
from consenso.consensus.methods import METHODS, Method
from consenso.consensus.panels import PanelMap, map_panel
from consenso.consensus.quality import UNDECIDED, annotator_quality, score_against_gold
from consenso.consensus.reliability import estimate_reliability
from consenso.consensus.settings import ConsensusSettings, ProblematicRule
from consenso.consensus.swapped import check_swapped, find_swap, find_swaps, swap_sentence
from consenso.consensus.targets import Target, threshold_for
from consenso.consensus.votematrix import CodedVotes, code_votes

__all__ = [
    "METHODS",
    "UNDECIDED",
    "CodedVotes",
    "ConsensusSettings",
    "Method",
    "PanelMap",
    "ProblematicRule",
    "Target",
    "agreement_of",
    "alternative_annotator_test",
    "annotator_quality",
    "check_consensus",
    "check_swapped",
    "code_votes",
    "decide",
    "describe_gold",
    "describe_panel",
    "estimate_label_shares",
    "estimate_reliability",
    "find_gold_noise",
    "find_swap",
    "find_swaps",
    "gold_noise_bound",
    "landis_koch",
    "map_panel",
    "measure_agreement",
    "score_against_gold",
    "swap_sentence",
    "threshold_for",
]
