"""The rescue: a collapsed seed is replaced in all arms, the as-run analysis stays as it is, nothing is trained twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from consenso.errors import DataError
from consenso.finetune import STUDENTS, Results, make_arms, plan_arms, run_arms
from consenso.store import RunFolder
from consenso.tables import CURVES, PREDICTIONS, TRAININGS, check
from test_finetune_students import SCHEMA, WORDS, assert_same, tables

ARMS = ["consensus", "floor", "gold-aligned"]
ROWS = [*ARMS, "floor-prior"]
TRAINED = 2


def arms_of(seeds: int | Sequence[int], folds: pd.DataFrame | None = None) -> pd.DataFrame:
    texts, fold, labels = tables()
    return make_arms(
        texts, fold if folds is None else folds, labels, arms=ARMS, seeds=seeds, schema=SCHEMA, resample=True
    )


def spoil(arms: pd.DataFrame, *seeds: int, arm: str = "consensus", fold: int = 0) -> pd.DataFrame:
    """Give all training rows of an arm one label, but for one row: whoever trains on them predicts one class."""
    chosen = arms["arm"].eq(arm) & arms["fold"].eq(fold) & arms["seed"].isin(seeds) & arms["part"].eq("train")
    first = arms[chosen].drop_duplicates("seed").index
    return arms.assign(
        target=arms["target"].mask(chosen, "money").mask(arms.index.isin(first), "sport"),
    )


def train(arms: pd.DataFrame, folds: pd.DataFrame | None = None, **options: Any) -> Results:
    texts, fold, _ = tables()
    student = options.pop("student", "linear")
    return run_arms(arms, texts, fold if folds is None else folds, student=student, schema=SCHEMA, **options)


def of_attempt(results: Results, attempt: str) -> Results:
    return Results(*(frame[frame["attempt"] == attempt].reset_index(drop=True) for frame in results))


def test_all_arms_get_the_next_seed_in_place_of_the_collapsed_one() -> None:
    found = train(spoil(arms_of(3), 2), rescue=arms_of)
    runs = found.trainings.set_index(["arm", "seed", "attempt"])
    assert runs.loc[("consensus", 2, "as_run"), "status"] == "collapsed"
    rescued = found.trainings[found.trainings["attempt"] == "rescue"]
    assert sorted(rescued["arm"]) == sorted(ROWS)
    assert set(rescued["seed"]) == {2}
    assert set(rescued["trained_seed"]) == {4}
    assert set(rescued["status"]) == {"ok"}
    as_run = found.trainings[found.trainings["attempt"] == "as_run"]
    assert as_run["trained_seed"].tolist() == as_run["seed"].tolist()
    for table in (found.curves, found.predictions):
        assert set(table.loc[table["attempt"] == "rescue", "seed"]) == {2}
    for table, name in zip((TRAININGS, CURVES, PREDICTIONS), Results._fields, strict=True):
        check(getattr(found, name), table)


def test_a_rescue_is_the_training_of_its_new_seed() -> None:
    rescued = of_attempt(train(spoil(arms_of(3), 2), rescue=arms_of), "rescue")
    alone = train(arms_of([4]))
    assert rescued.trainings["key"].tolist() == alone.trainings["key"].tolist()
    renamed = rescued.predictions.assign(seed=4, attempt="as_run")
    pd.testing.assert_frame_equal(renamed, alone.predictions, check_exact=True)


def test_the_as_run_analysis_stays_as_it_is() -> None:
    arms = spoil(arms_of(3), 2)
    assert_same(of_attempt(train(arms, rescue=arms_of), "as_run"), train(arms))


def test_without_a_collapse_nothing_is_rescued() -> None:
    asked: list[Sequence[int]] = []
    found = train(arms_of(2), rescue=lambda seeds: asked.append(seeds) or arms_of(seeds))
    assert asked == []
    assert set(found.trainings["attempt"]) == {"as_run"}


@pytest.mark.parametrize("arm", ["permuted", "gold@40"])
def test_a_collapse_of_an_exempt_arm_is_not_rescued(arm: str) -> None:
    arms = spoil(arms_of(2), 1)
    found = train(arms.assign(arm=arms["arm"].replace("consensus", arm)), rescue=arms_of)
    assert "collapsed" in set(found.trainings["status"])
    assert set(found.trainings["attempt"]) == {"as_run"}


def test_an_exempt_arm_is_rescued_along_with_the_others() -> None:
    def named(seeds: int | Sequence[int]) -> pd.DataFrame:
        arms = arms_of(seeds)
        return arms.assign(arm=arms["arm"].replace("gold-aligned", "permuted"))

    found = train(spoil(named(2), 1), rescue=named)
    assert "permuted" in set(found.trainings.loc[found.trainings["attempt"] == "rescue", "arm"])


def test_collapsed_seeds_take_the_next_ones_in_order() -> None:
    arms = spoil(spoil(arms_of([2, 5, 9]), 9), 5, arm="gold-aligned")
    rescued = of_attempt(train(arms, rescue=arms_of), "rescue").trainings
    assert set(zip(rescued["seed"], rescued["trained_seed"])) == {(5, 10), (9, 11)}


def test_only_the_fold_that_collapsed_is_rescued() -> None:
    _, fold, _ = tables()
    folds = pd.concat([fold, fold.assign(fold=1, part=np.roll(fold["part"], 1))])
    arms = spoil(spoil(arms_of(2, folds), 1, fold=1), 2, fold=0)
    rescued = of_attempt(train(arms, folds, rescue=lambda seeds: arms_of(seeds, folds)), "rescue").trainings
    assert set(zip(rescued["fold"], rescued["seed"], rescued["trained_seed"])) == {(1, 1, 3), (0, 2, 4)}


def test_a_rescue_that_collapses_too_stays_collapsed() -> None:
    asked: list[list[int]] = []

    def spoiled_again(seeds: Sequence[int]) -> pd.DataFrame:
        asked.append(list(seeds))
        return spoil(arms_of(seeds), *seeds)

    rescued = of_attempt(train(spoil(arms_of(2), 1), rescue=spoiled_again), "rescue").trainings.set_index("arm")
    assert asked == [[3]]
    assert len(rescued) == len(ROWS)
    assert rescued.loc["consensus", "status"] == "collapsed"


def test_a_failed_run_is_not_rescued(monkeypatch: pytest.MonkeyPatch) -> None:
    really = STUDENTS["linear"].train

    def fails_under_seed_2(training: Any, *rest: Any) -> Any:
        if training.seed == 2:
            raise MemoryError("no memory left")
        return really(training, *rest)

    monkeypatch.setattr(STUDENTS["linear"], "train", fails_under_seed_2)
    found = train(spoil(arms_of(3), 3), rescue=arms_of)
    assert set(found.trainings.loc[found.trainings["status"] == "failed", "seed"]) == {2}
    assert set(of_attempt(found, "rescue").trainings["seed"]) == {3}


class Killed(BaseException):
    pass


def killer(after: int) -> Callable[[dict[str, Any]], None]:
    """A progress callback that ends everything after some trainings, as a signal would."""
    seen: list[str] = []

    def tell(event: dict[str, Any]) -> None:
        if event["arm"] is not None:
            seen.append(event["arm"])
            if len(seen) == after:
                raise Killed

    return tell


@pytest.mark.parametrize("after", [1, 3 * TRAINED, 3 * TRAINED + 1])
def test_a_killed_run_repeats_no_training_of_a_rescue(after: int, tmp_path: Path) -> None:
    folder, arms = RunFolder(tmp_path), spoil(arms_of(3), 2)
    with pytest.raises(Killed):
        train(arms, rescue=arms_of, folder=folder, progress=killer(after))
    events: list[dict[str, Any]] = []
    found = train(arms, rescue=arms_of, folder=folder, progress=events.append)
    assert sum(event["arm"] is not None for event in events) == 4 * TRAINED - after
    assert events[-1]["done"] == events[-1]["total"] == 4 * TRAINED
    assert_same(found, train(arms, rescue=arms_of))
    again: list[dict[str, Any]] = []
    train(arms, rescue=arms_of, folder=folder, progress=again.append)
    assert all(event["arm"] is None for event in again)


def test_worker_processes_rescue_alike(tmp_path: Path) -> None:
    arms = spoil(arms_of(3), 2)
    assert_same(train(arms, rescue=arms_of, workers=2, folder=RunFolder(tmp_path)), train(arms, rescue=arms_of))


def test_texts_are_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare, calls = STUDENTS["linear"].prepare, []
    monkeypatch.setattr(STUDENTS["linear"], "prepare", lambda *given: calls.append(1) or prepare(*given))
    train(spoil(arms_of(3), 2), rescue=arms_of)
    assert len(calls) == 1


def test_a_rescue_without_an_arm_is_an_error() -> None:
    def lacking(seeds: Sequence[int]) -> pd.DataFrame:
        arms = arms_of(seeds)
        return arms[arms["arm"] != "gold-aligned"]

    with pytest.raises(DataError, match=r"rescue: no rows for arm 'gold-aligned' \(fold 0, seed 3\)"):
        train(spoil(arms_of(2), 1), rescue=lacking)


def test_a_plan_knows_the_rescue_of_what_has_collapsed(tmp_path: Path) -> None:
    texts, folds, _ = tables()
    folder, arms = RunFolder(tmp_path), spoil(arms_of(3), 2)

    def left() -> int:
        pieces = plan_arms(arms, texts, folds, student="linear", schema=SCHEMA, folder=folder, rescue=arms_of)
        return sum(piece.what == "train" and not piece.done for piece in pieces)

    assert left() == 3 * TRAINED, "who will collapse is not known before"
    train(arms, folder=folder)
    assert left() == TRAINED
    train(arms, folder=folder, rescue=arms_of)
    assert left() == 0


def test_a_variant_is_trained_by_its_base_and_keeps_its_name() -> None:
    found = train(arms_of(1), student="linear (gold dev)")
    for table in found:
        assert set(table["student"]) == {"linear (gold dev)"}
    plain = train(arms_of(1))
    assert found.trainings["key"].tolist() == plain.trainings["key"].tolist()


def test_spoiled_labels_are_what_the_name_says() -> None:
    arms = spoil(arms_of(2), 1)
    counts = arms[(arms["arm"] == "consensus") & (arms["part"] == "train") & (arms["seed"] == 1)][
        "target"
    ].value_counts()
    assert counts["money"] == counts.sum() - 1
    assert set(arms.loc[arms["seed"] == 2, "target"]) == set(WORDS)
