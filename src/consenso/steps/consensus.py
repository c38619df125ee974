"""consensus: votes become labels, and are held against the gold of train and dev."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from consenso.annotate import calibrate_confidence
from consenso.consensus import (
    METHODS,
    CodedVotes,
    ConsensusSettings,
    agreement_of,
    code_votes,
    decide,
    describe_gold,
    describe_panel,
    estimate_reliability,
    find_swaps,
    swap_sentence,
)
from consenso.errors import ConfigError
from consenso.labels import LabelSchema
from consenso.light_model import out_of_fold, text_classifier
from consenso.steps.running import Run
from consenso.store import RunFolder

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

logger = logging.getLogger(__name__)

FOLDS = 5
"""Of the light classifier whose probabilities a consensus method reads."""
MAPPED = 5_000
"""Texts on which a panel is mapped where there is no gold."""


def consensus(this: Run) -> None:
    """Turn votes into labels; write them, agreement, and what train and dev gold says of them."""
    settings, folder, schema = this.experiment.consensus, this.folder, this.schema
    texts = folder.read("texts")
    sources = [folder.table_path("votes"), *([folder.table_path("variant_votes")] if settings.variants else [])]
    votes = code_votes(sources, schema, texts=texts["text_id"], count=settings.count)
    used = gold_for_consensus(this, texts)
    labels = make_labels(this, votes, settings, texts, used)
    folder.write("consensus_gold", used.rename_axis("text_id").reset_index()[["text_id"]].assign(purpose="consensus"))
    asked = folder.count("votes") + (folder.count("variant_votes") if settings.variants else 0)
    folder.note("consensus", {**labels.attrs["consensus"], "votes": asked, "invalid_votes": asked - len(votes.text)})
    folder.write("labels", labels)
    folder.write(
        "agreement",
        agreement_of(
            votes,
            bootstrap=settings.bootstrap,
            seed=settings.seed,
            scale="interval" if settings.ordered else "nominal",
        ),
    )
    folder.write("reliability", estimate_reliability(votes, draws=min(settings.bootstrap, 200), seed=settings.seed))
    folder.write("final_labels", labels.assign(source="consensus")[["text_id", "label", "source", "is_problematic"]])
    _hold_against_gold(this, labels, texts)


def make_labels(
    this: Run, votes: CodedVotes, settings: ConsensusSettings, texts: pd.DataFrame, used: pd.Series
) -> pd.DataFrame:
    """Return LABELS as the settings make them from any votes; `used`: gold by text id that they may learn from."""
    return decide(
        votes,
        settings.method,
        threshold=settings.threshold,
        ties=settings.ties,
        weights=settings.weights or None,
        families=_families(settings, this.folder.read("annotators"), votes.annotators),
        gold=None if used.empty else used,
        probabilities=_probabilities(settings, texts, votes, this.schema),
        iterations=settings.iterations,
        seed=settings.seed,
        problematic=settings.problematic,
    )


def gold_for_consensus(this: Run, texts: pd.DataFrame) -> pd.Series:
    """Gold by text id that consensus may learn from: of `gold_texts` training texts, drawn at random."""
    settings, folds = this.experiment.consensus, this.folder.read("folds")
    gold = _open_gold(this.folder, texts)
    if not settings.gold_texts:
        return gold.iloc[:0]
    dev = set(folds.loc[folds["part"] == "dev", "text_id"])
    train = gold[~gold.index.isin(dev)].sort_index()
    if len(train) < settings.gold_texts:
        raise ConfigError(
            f"consensus.gold_texts = {settings.gold_texts}: only {len(train)} training texts have gold; ask for fewer, "
            "or choose a method that needs none"
        )
    return train.sample(settings.gold_texts, random_state=settings.seed)


def _families(settings: ConsensusSettings, annotators: pd.DataFrame, voted: Sequence[str]) -> dict[str, str] | None:
    """Annotator → model family, as the settings or the annotators table have it, where the method reads it."""
    if "families" not in METHODS[settings.method].reads:
        return None
    known = annotators.dropna(subset=["family"]).set_index("annotator")["family"].astype(str).to_dict()
    return {
        name: family for name, family in (known | settings.families).items() if name in {*voted, *settings.families}
    }


def _probabilities(
    settings: ConsensusSettings, texts: pd.DataFrame, votes: CodedVotes, schema: LabelSchema
) -> np.ndarray | None:
    """What a light classifier, trained on the majority's labels of other texts, says of each text, where that is read."""
    if "probabilities" not in METHODS[settings.method].reads:
        return None
    import numpy as np

    codes = schema.codes(decide(votes, "majority")["label"])
    learned, words = codes >= 0, texts["text"].astype(str).to_numpy(dtype=object)
    if learned.sum() < FOLDS:
        raise ConfigError(
            f"consensus.method = 'crowdlab': only {int(learned.sum())} texts have a majority label to train its classifier "
            f"on, and it needs {FOLDS}; choose 'dawid_skene_map'"
        )
    found = np.full((len(codes), len(schema)), np.nan)
    rng = np.random.default_rng(settings.seed)
    found[learned] = out_of_fold(words[learned], codes[learned], len(schema), FOLDS, rng)
    if not learned.all():  # tied texts: no fold has learned from them
        classify = text_classifier(list(words[learned]), codes[learned], len(schema))
        found[~learned] = classify(words[~learned])
    return found


def _hold_against_gold(this: Run, labels: pd.DataFrame, texts: pd.DataFrame) -> None:
    """Write what train and dev gold says of the votes: calibration, who is missed, and of gold itself."""
    folder, gold, settings = this.folder, _open_gold(this.folder, texts), this.experiment.consensus
    sample = texts["text_id"].sample(min(len(texts), MAPPED), random_state=settings.seed)
    columns = ["text_id", "annotator", "repetition", "label", "status", "confidence", "cost"]
    seen = folder.read("votes", columns, texts=gold.index if len(gold) else sample)
    folder.write("confidence", calibrate_confidence(seen, gold))
    missed, panels, sentence = describe_panel(seen, gold if len(gold) else None, labels=this.schema, seed=settings.seed)
    folder.write("missed", missed)
    folder.write("panels", panels)
    folder.note("panel", sentence)
    said = swap_sentence(find_swaps(seen, labels, gold, this.schema)) if len(gold) else ""
    folder.note("swapped", said)
    if said:
        logger.warning("%s", said)
    noise, bound = describe_gold(labels, seen, gold, this.schema)
    folder.write("gold_noise", noise)
    folder.write("gold_bound", bound)


def _open_gold(folder: RunFolder, texts: pd.DataFrame) -> pd.Series:
    """Gold by text id that may be looked at before the verdict: of train and dev texts."""
    folds = folder.read("folds")
    tested = set(folds.loc[folds["part"] == "test", "text_id"])
    seen = set(folds.loc[folds["part"] != "test", "text_id"]) - tested
    return texts[texts["text_id"].isin(seen)].set_index("text_id")["gold"].dropna()
