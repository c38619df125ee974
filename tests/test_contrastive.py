"""The student `contrastive`: which pairs it meets, what tuning does to the embeddings, and what ends it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from consenso import encoders
from consenso.finetune import STUDENTS, Recipe
from consenso.finetune.students import contrastive, encoder
from consenso.finetune.training import Training
from test_encoder_kinds import SCHEMA, save, separable


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("tiny"), "Bert")


def recipe_for(tiny: str, **changes: Any) -> Recipe:
    return Recipe(encoder=tiny, **{"learning_rate": 1e-3, "batch_size": 8, "c_grid": (1.0,), **changes})


def work(codes: np.ndarray, steps: int = 40, seed: int = 1, **changes: Any) -> Training:
    """A training on the first half of the texts; the third quarter is dev, the second half is asked for."""
    rows = np.arange(len(codes))
    half, quarter = len(codes) // 2, 3 * len(codes) // 4
    train, dev = rows[:half], rows[half:quarter]
    given = {"key": "k", "seed": seed, "rows": train, "codes": codes[train], "dev_rows": dev, "dev_codes": codes[dev]}
    return Training(**{**given, "asked": rows[half:], "steps": steps, **changes})


def pairs_of(training: Training, recipe: Recipe) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    lengths = 4 + np.arange(training.rows.max() + 1) % 5
    return list(contrastive._pairs(lengths, training, recipe))


def test_half_of_the_pairs_have_equal_labels_and_no_text_meets_itself() -> None:
    codes = np.arange(48) % 3
    for first, second, same in pairs_of(work(codes), Recipe(batch_size=8)):
        assert len(first) == 8
        assert same.sum() == 4
        assert (first != second).all()
        assert ((codes[first] == codes[second]) == same).all()


def test_a_pass_gives_every_text_a_partner() -> None:
    codes = np.arange(48) % 3
    met = pairs_of(work(codes, steps=6), Recipe(batch_size=8))
    for one_pass in (met[:3], met[3:]):
        assert sorted(np.concatenate([first for first, _, _ in one_pass])) == list(range(24))


def test_arms_on_the_same_texts_meet_them_in_the_same_order() -> None:
    codes, recipe = np.arange(48) % 3, Recipe(batch_size=8)
    firsts = [[pair[0].tolist() for pair in pairs_of(work(labels), recipe)] for labels in (codes, codes[::-1].copy())]
    assert firsts[0] == firsts[1]
    assert firsts[0] != [pair[0].tolist() for pair in pairs_of(work(codes, seed=2), recipe)]


def test_a_text_alone_in_its_class_gets_partners_of_other_classes() -> None:
    codes = np.array([1, *[0] * 23, *[0] * 24])
    met = pairs_of(work(codes), Recipe(batch_size=8))
    alone = [(second[first == 0], same[first == 0]) for first, second, same in met if (first == 0).any()]
    assert alone
    assert not any(same.any() or (second == 0).any() for second, same in alone)


def test_copies_of_a_text_are_no_pair() -> None:
    codes = np.arange(48) % 2
    copied = dataclasses.replace(work(codes), rows=np.repeat(np.arange(12), 2), codes=np.repeat(codes[:12], 2))
    assert all((first != second).all() for first, second, _ in pairs_of(copied, Recipe(batch_size=8)))


def test_one_class_has_equal_pairs_only() -> None:
    assert all(same.all() for _, _, same in pairs_of(work(np.zeros(48, dtype=int)), Recipe(batch_size=8)))


def test_tuning_draws_equal_labels_together(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, codes = separable()
    recipe, kept = recipe_for(tiny), {}
    tune = contrastive._tune

    def note(reader: Any, training: Training, recipe: Recipe) -> str | None:
        kept["before"] = reader.embed(training.asked)
        fault = tune(reader, training, recipe)
        kept["after"] = reader.embed(training.asked)
        return fault

    monkeypatch.setattr(contrastive, "_tune", note)
    training = work(codes)
    found = contrastive.train(training, contrastive.prepare(texts, recipe), recipe, SCHEMA)
    equal = codes[training.asked][:, None] == codes[training.asked]
    gap = {when: (v @ v.T)[equal].mean() - (v @ v.T)[~equal].mean() for when, v in kept.items()}
    assert gap["after"] > gap["before"] + 0.5
    assert (found.predicted == codes[training.asked]).all()


def test_the_pairs_steps_and_tokens_are_reported(tiny: str) -> None:
    texts, codes = separable()
    recipe = recipe_for(tiny, batch_size=6)
    training = work(codes, steps=8)
    prepared = contrastive.prepare(texts, recipe)
    found = contrastive.train(training, prepared, recipe, SCHEMA)
    lengths = np.diff(prepared["starts"])
    read = sum(
        int(lengths[first].sum() + lengths[second].sum())
        for first, second, _ in contrastive._pairs(lengths, training, recipe)
    )
    assert (found.facts["steps"], found.facts["real_tokens"]) == (8, read)
    assert [(point["step"], point["epoch"]) for point in found.curve] == [(8, 2.0)]


def test_the_embeddings_before_tuning_are_those_of_the_student_frozen(tiny: str) -> None:
    texts, recipe = separable()[0], recipe_for(tiny)
    reader = contrastive._Reader(encoders.load_body(tiny), contrastive.prepare(texts, recipe), recipe, "cpu")
    reader.trim(np.arange(len(texts)))
    assert np.allclose(reader.embed(np.arange(len(texts))), encoders.embed(texts, tiny), atol=1e-6)


def test_one_seed_gives_one_result_and_another_seed_another(tiny: str) -> None:
    texts, codes = separable()
    recipe = recipe_for(tiny)
    prepared = contrastive.prepare(texts, recipe)
    with encoders.torch_threads(1):
        one, again, other = (
            contrastive.train(work(codes, steps=6, seed=seed), prepared, recipe, SCHEMA).probabilities
            for seed in (1, 1, 2)
        )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_soft_targets_choose_the_pairs_by_their_largest_share(tiny: str) -> None:
    texts, codes = separable()
    recipe = recipe_for(tiny)
    prepared = contrastive.prepare(texts, recipe)
    hard, certain = work(codes, steps=6), np.eye(2)[codes[:24]]
    soft = work(codes, steps=6, targets=0.8 * certain + 0.1)
    assert [p[1].tolist() for p in pairs_of(hard, recipe)] == [p[1].tolist() for p in pairs_of(soft, recipe)]
    sure, unsure = (contrastive.train(t, prepared, recipe, SCHEMA).probabilities for t in (hard, soft))
    assert np.abs(sure - 0.5).mean() > np.abs(unsure - 0.5).mean(), "the head took the shares"


def test_a_training_that_diverges_is_a_collapsed_one_with_predictions(tiny: str) -> None:
    texts, codes = separable()
    recipe = recipe_for(tiny, learning_rate=1e38, warmup=0)
    found = contrastive.train(work(codes), contrastive.prepare(texts, recipe), recipe, SCHEMA)
    assert found.status == "collapsed"
    assert "the loss is not finite" in str(found.reason)
    assert np.allclose(found.probabilities, 0.5, atol=1e-3)


def test_training_leaves_the_callers_random_state_alone(tiny: str) -> None:
    torch, (texts, codes) = encoders.import_torch(), separable()
    before, recipe = torch.get_rng_state(), recipe_for(tiny)
    contrastive.train(work(codes, steps=2), contrastive.prepare(texts, recipe), recipe, SCHEMA)
    assert torch.equal(before, torch.get_rng_state())


def test_every_field_that_it_reads_is_declared(tiny: str) -> None:
    assert set(Recipe.model_fields) > contrastive.RECIPE_FIELDS
    assert not {"loss", "lora_rank", "evaluations", "encoder"} & contrastive.RECIPE_FIELDS
    assert STUDENTS["contrastive"].prepare is encoder.prepare
