"""How votes become shares: one function per file, one line per method here.

A method takes the coded votes and the options and returns `Shares`. It decides nothing: labels, thresholds, ties and
abstention are `decide`'s.
"""

from __future__ import annotations

from consenso.consensus.methods.crowdlab import crowdlab
from consenso.consensus.methods.dawid_skene import dawid_skene, dawid_skene_map
from consenso.consensus.methods.families import dawid_skene_families
from consenso.consensus.methods.glad import glad
from consenso.consensus.methods.mace import mace
from consenso.consensus.methods.majority import majority
from consenso.consensus.methods.one_coin import one_coin
from consenso.consensus.methods.ordinal_dawid_skene import ordinal_dawid_skene
from consenso.consensus.methods.outliers import outliers
from consenso.consensus.methods.shape import Method, Options, Shares
from consenso.consensus.methods.threshold import threshold
from consenso.consensus.methods.unanimous import unanimous
from consenso.consensus.methods.weighted import weighted

METHODS = {
    "majority": Method(majority),
    "weighted": Method(weighted, reads=frozenset({"weights", "gold"})),
    "unanimous": Method(unanimous, at_least=1.0),
    "threshold": Method(threshold, threshold=0.8),
    "dawid_skene": Method(dawid_skene, posterior=True, iterates=True),
    "dawid_skene_map": Method(dawid_skene_map, posterior=True, iterates=True),
    "dawid_skene_families": Method(
        dawid_skene_families, reads=frozenset({"families", "gold"}), posterior=True, iterates=True
    ),
    "one_coin": Method(one_coin, posterior=True, iterates=True),
    "glad": Method(glad, posterior=True, iterates=True),
    "mace": Method(mace, posterior=True, iterates=True),
    "ordinal_dawid_skene": Method(ordinal_dawid_skene, posterior=True, iterates=True, ordered=True),
    "outliers": Method(outliers, at_least=1.0),
    "crowdlab": Method(
        crowdlab, reads=frozenset({"probabilities"}), needs=frozenset({"probabilities"}), posterior=True
    ),
}

__all__ = ["METHODS", "Method", "Options", "Shares"]
