"""annotate: every annotator is asked, votes that exist are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.annotate import EmbeddingAnnotator, describe_annotators, read_votes
from consenso.annotate.annotators import CausalAnnotator, NliAnnotator, prompts_of
from consenso.annotate.asking import embedding_votes, make_voters, merge_votes
from consenso.annotate.collecting import Voters, ask_all, votes_from_log
from consenso.annotate.counting import VoteCount
from consenso.annotate.endpoints import read_environment
from consenso.annotate.exemplars import draw_examples, needs_gold
from consenso.annotate.narrowing import narrow_labels
from consenso.annotate.prompting import Example, read_prompt
from consenso.annotate.sources import FolderSource
from consenso.annotate.variants import VariantCount
from consenso.annotate.votelog import VoteLog
from consenso.encoders import embed, encoder_fingerprint
from consenso.errors import ConfigError
from consenso.files import fingerprint_source
from consenso.preconditions import need_valid_votes
from consenso.steps.running import Run
from consenso.store import RunFolder
from consenso.tables import RECALL

if TYPE_CHECKING:
    import pandas as pd


def annotate(this: Run) -> dict[str, Any]:
    """Ask every annotator for every text, as far as the vote log does not know the answer, and write the votes."""
    settings, folder, schema = this.experiment.annotate, this.folder, this.schema
    if not settings.annotators and not settings.imports:
        raise ConfigError(
            "nobody votes: add to the experiment file [[annotate.annotators]] (LLMs, embedded zero-shot) or "
            "[[annotate.imports]] (votes you have)"
        )
    drawn = _prepare_prompts(this)
    voters = make_voters(settings, schema, read_environment(this.base), base=this.base, drawn=drawn)
    at_hand, notes = _votes_at_hand(this)
    if not voters.any:
        _write_votes(this, [at_hand], [], voters, notes)
        return {}
    source = FolderSource(folder, only=asked_ids(this), narrowed=settings.candidates is not None)
    with VoteLog(vote_log_path(this)) as log:
        asked = ask_all(
            voters.askers, voters.local, source, log, settings=settings, environment=voters.environment,
            progress=lambda state: this.progress({"stage": "annotate", "event": "advance", "step": "answers", **state}),
            wait=this.wait,
        )  # fmt: skip
        folder.note("vote_log", {"path": str(log.path), **asdict(asked.ledger), "statement": asked.ledger.statement})
        if not settings.accept_incomplete:
            asked.raise_incomplete()
        votes = merge_votes(votes_from_log(log, asked.lanes, source), source, at_hand)
        of_variants = votes_from_log(log, asked.variant_lanes, source)
        _write_votes(this, votes, of_variants, asked.voters, notes + asked.notes)
    return {"failed": asked.failed + asked.missing}


def vote_log_path(this: Run) -> Path:
    """Where the vote log stands: in the run folder, or where several runs share one (relative to the experiment file)."""
    shared = this.experiment.annotate.log
    return this.folder.path / "votelog.sqlite" if shared is None else this.base / shared


def examples_of(this: Run) -> dict[str, list[Example]]:
    """Annotator → the examples that it draws from train gold."""
    settings, folder = this.experiment.annotate, this.folder
    if not needs_gold(settings):
        return {}
    return draw_examples(
        settings, folder.read("texts")[["text_id", "text", "gold"]], _never_tested(folder), this.schema
    )


def _never_tested(folder: RunFolder) -> set[str]:
    """The train texts whose gold prompts may show: no fold tests them."""
    folds = folder.read("folds")
    found = set(folds.loc[folds["part"] == "train", "text_id"]) - set(folds.loc[folds["part"] == "test", "text_id"])
    if not found:
        raise ConfigError(
            "prompts may show no gold here: every training text is tested in some fold; leave examples and candidates out, "
            "or use one split (data.folds = 1)"
        )
    return found


def _prepare_prompts(this: Run) -> dict[str, list[Example]]:
    """Examples drawn from train gold, and the candidates of two-phase annotation; the texts whose gold this takes are noted."""
    import pandas as pd

    settings, folder, used = this.experiment.annotate, this.folder, []
    drawn = examples_of(this)
    if needs_gold(settings):
        texts, train = folder.read("texts")[["text_id", "text", "gold"]], _never_tested(folder)
        shown = {example.text_id for examples in drawn.values() for example in examples}
        used += [{"text_id": text_id, "purpose": "examples"} for text_id in shown]
        if settings.candidates is not None:
            narrowed = narrow_labels(texts, train - shown, this.schema, settings.candidates)
            folder.write("candidates", narrowed.candidates)
            folder.write("recall", narrowed.recall)
            used += [{"text_id": text_id, "purpose": "candidates"} for text_id in narrowed.used]
    if settings.candidates is None:
        folder.write("candidates", pd.DataFrame(columns=["text_id", "offered"]))
        folder.write("recall", pd.DataFrame(columns=list(RECALL.columns)))
    folder.write("gold_used", pd.DataFrame(used, columns=["text_id", "purpose"]))
    return drawn


def _votes_at_hand(this: Run) -> tuple[pd.DataFrame, list[str]]:
    """The votes of embedded annotators and those that are imported, and the notes of reading them."""
    import pandas as pd

    settings, notes = this.experiment.annotate, []
    if all(not isinstance(one, EmbeddingAnnotator) for one in settings.annotators) and not settings.imports:
        return pd.DataFrame(), []
    texts = this.folder.read("texts")
    encode = partial(embed, cache=this.folder.path / "cache")
    parts = [embedding_votes(texts, settings, this.schema, encode)]
    for source in settings.imports:
        parts.append(read_votes(source.source, this.schema, settings=source, texts=texts, base=this.base))
        notes += parts[-1].attrs.get("notes", [])
    return pd.concat([part.assign() for part in parts if len(part)], ignore_index=True), notes


def asked_ids(this: Run) -> set[str] | None:
    """The texts that are put to the annotators; None: all."""
    parts = set(this.experiment.annotate.parts)
    if parts == {"train", "dev", "test"}:
        return None
    folds = this.folder.read("folds")
    return set(folds.loc[folds["part"].isin(parts), "text_id"])


def _write_votes(
    this: Run, votes: Iterable[pd.DataFrame], of_variants: Iterable[pd.DataFrame], voters: Voters, notes: list[str]
) -> None:
    """Write the votes, and apart from them those of variants; one part at a time is held."""
    folder, counted = this.folder, VoteCount()
    variant_of = {asker.name: asker.variant_of for asker in voters.askers if asker.variant_of}
    compared = VariantCount(variant_of)

    def own() -> Iterator[pd.DataFrame]:
        for part in votes:
            compared.add(part)
            mine = part[~part["annotator"].isin(list(variant_of))]
            counted.add(mine)
            yield mine

    folder.write_parts("votes", own())
    if not counted.valid:
        need_valid_votes(folder.read("votes"), asked=not this.experiment.annotate.imports)
    folder.write_parts("variant_votes", of_variants)
    folder.write("variants", compared.table())
    folder.note("annotate_notes", notes)
    folder.write("annotators", describe_annotators(this.experiment.annotate, counted.annotators, voters))


HOW_NOT_WHAT: dict[str, Any] = {
    **dict.fromkeys(("endpoints", "log", "budget", "drain_s", "failed_limit", "accept_incomplete"), True),
    "annotators": {"__all__": {"batch", "price", "batch_tokens", "batch_size"}},
}
"""Settings of [annotate] that change how answers are got, and no answer."""


def annotate_depends(this: Run) -> Any:
    """Return what else decides the votes: settings, prompts, encoders, imported files."""
    settings = this.experiment.annotate
    embedded = [one for one in settings.annotators if isinstance(one, EmbeddingAnnotator)]
    encoders = {one.encoder: encoder_fingerprint(one.encoder) for one in embedded}
    files = [fingerprint_source(source.source, this.base) for source in settings.imports]
    named = {prompt for one in settings.annotators for prompt in prompts_of(one)}
    prompts = {prompt: read_prompt(prompt, this.base).text for prompt in named}
    here = [one for one in settings.annotators if isinstance(one, (NliAnnotator, CausalAnnotator))]
    encoders |= {one.model: encoder_fingerprint(one.model) for one in here if Path(one.model).expanduser().is_dir()}
    answers = settings.model_dump(mode="json", exclude=HOW_NOT_WHAT)
    record = this.folder.record()
    numbers = [] if record.get("data", {}).get("ids_given", True) else ["numbers mean no label"]
    return [answers, encoders, files, prompts, record.get("labels"), *numbers]
