"""What a paper about a run cites: the methods that were used, and consenso."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """One entry of the bibliography."""

    name: str
    """How it is cited in running text: `Holm 1979`."""
    kind: str
    """BibTeX's entry type."""
    fields: tuple[tuple[str, str], ...]
    """BibTeX's fields, in order; their values are LaTeX."""


def _article(name: str, author: str, title: str, **more: str) -> Reference:
    return Reference(name, "article", (("author", author), ("title", title), *more.items()))


REFERENCES = {
    "schuirmann1987": _article(
        "Schuirmann 1987", "Schuirmann, Donald J.",
        "A comparison of the two one-sided tests procedure and the power approach for assessing the equivalence of "
        "average bioavailability",
        journal="Journal of Pharmacokinetics and Biopharmaceutics", volume="15", number="6", pages="657--680", year="1987",
    ),
    "holm1979": _article(
        "Holm 1979", "Holm, Sture", "A simple sequentially rejective multiple test procedure",
        journal="Scandinavian Journal of Statistics", volume="6", number="2", pages="65--70", year="1979",
    ),
    "nadeau2003": _article(
        "Nadeau and Bengio 2003", "Nadeau, Claude and Bengio, Yoshua", "Inference for the generalization error",
        journal="Machine Learning", volume="52", pages="239--281", year="2003",
    ),
    "satterthwaite1946": _article(
        "Satterthwaite 1946", "Satterthwaite, Franklin E.",
        "An approximate distribution of estimates of variance components",
        journal="Biometrics Bulletin", volume="2", number="6", pages="110--114", year="1946",
    ),
    "wittes1990": _article(
        "Wittes and Brittain 1990", "Wittes, Janet and Brittain, Erica",
        "The role of internal pilot studies in increasing the efficiency of clinical trials",
        journal="Statistics in Medicine", volume="9", number="1--2", pages="65--72", year="1990",
    ),
    "wilson1927": _article(
        "Wilson 1927", "Wilson, Edwin B.", "Probable inference, the law of succession, and statistical inference",
        journal="Journal of the American Statistical Association", volume="22", number="158", pages="209--212",
        year="1927",
    ),
    "dawid1979": _article(
        "Dawid and Skene 1979", "Dawid, A. P. and Skene, A. M.",
        "Maximum likelihood estimation of observer error-rates using the {EM} algorithm",
        journal="Journal of the Royal Statistical Society. Series C (Applied Statistics)", volume="28", number="1",
        pages="20--28", year="1979",
    ),
    "krippendorff2011": Reference(
        "Krippendorff 2011", "misc",
        (("author", "Krippendorff, Klaus"), ("title", "Computing {K}rippendorff's alpha-reliability"),
         ("howpublished", "Annenberg School for Communication, University of Pennsylvania"), ("year", "2011")),
    ),
    "whitehill2009": Reference(
        "Whitehill et al. 2009", "inproceedings",
        (("author", "Whitehill, Jacob and Ruvolo, Paul and Wu, Tingfan and Bergsma, Jacob and Movellan, Javier"),
         ("title", "Whose vote should count more: Optimal integration of labels from labelers of unknown expertise"),
         ("booktitle", "Advances in Neural Information Processing Systems 22"), ("year", "2009")),
    ),
    "hovy2013": Reference(
        "Hovy et al. 2013", "inproceedings",
        (("author", "Hovy, Dirk and Berg-Kirkpatrick, Taylor and Vaswani, Ashish and Hovy, Eduard"),
         ("title", "Learning whom to trust with {MACE}"),
         ("booktitle", "Proceedings of NAACL-HLT 2013"), ("pages", "1120--1130"), ("year", "2013")),
    ),
    "goh2022": Reference(
        "Goh et al. 2022", "misc",
        (("author", "Goh, Hui Wen and Tkachenko, Ulyana and Mueller, Jonas"),
         ("title", "{CROWDLAB}: Supervised learning to infer consensus labels and quality scores for data with multiple "
                   "annotators"), ("howpublished", "arXiv:2210.06812"), ("year", "2022")),
    ),
}  # fmt: skip
"""Key → reference."""
METHOD_KEYS = {
    **dict.fromkeys(("dawid_skene", "dawid_skene_map", "dawid_skene_families", "ordinal_dawid_skene"), "dawid1979"),
    "glad": "whitehill2009",
    "mace": "hovy2013",
    "crowdlab": "goh2022",
}
"""Consensus method → the reference it rests on."""
NAMES = {key: reference.name for key, reference in REFERENCES.items()} | {"consenso": "consenso"}
TITLE = "consenso: May the labels of an {LLM} consensus replace human ones for this classifier?"


def bibliography(keys: Iterable[str], version: str = "") -> str:
    """Return BibTeX: consenso itself, then the references of these keys, by key."""
    note = (("note", f"Software, version {version}"),) if version else (("note", "Software"),)
    own = Reference("consenso", "misc", (("author", "{The consenso developers}"), ("title", TITLE), *note))
    chosen = {"consenso": own, **{key: REFERENCES[key] for key in sorted(set(keys)) if key in REFERENCES}}
    return "\n\n".join(_entry(key, reference) for key, reference in chosen.items()) + "\n"


def _entry(key: str, reference: Reference) -> str:
    fields = ",\n".join(f"  {name} = {{{value}}}" for name, value in reference.fields)
    return f"@{reference.kind}{{{key},\n{fields}\n}}"
