"""Every number of a report, derived again from its CSV files with scikit-learn, scipy and statsmodels alone."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, recall_score
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from threadpoolctl import threadpool_limits

import consenso
from consenso.report import export_tables
from making import write_experiment, write_texts, write_votes

ARMS = ("gold", "gold-aligned", "consensus", "consensus-kept", "consensus-random", "gold-kept", "floor")
MARGIN = 0.06
SETTINGS = {
    "consensus": 'method = "majority"\nbootstrap = 50\n[consensus.problematic]\nbelow = 0.7',
    "finetune": f'students = ["linear"]\nseeds = 5\narms = {list(ARMS)}',
    "compare": f'metric = "macro_f1"\nmargin = {MARGIN}',
}


class Report:
    """The CSV files of a run, and nothing else."""

    def __init__(self, place: Path) -> None:
        self.place = place
        gold = self.read("texts").set_index("text_id")["gold"]
        folds = self.read("folds")
        self.items = sorted(folds.loc[folds["part"] == "test", "text_id"])
        self.gold = gold[self.items].to_numpy()
        self.classes = sorted(set(self.gold))
        self.predictions = self.read("predictions").query("attempt == 'as_run'")
        self.test = self.predictions.query("part == 'test'")

    def read(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.place / f"{name}.csv")

    def seeds(self, *arms: str) -> list[int]:
        return sorted(set.intersection(*(set(self.test.loc[self.test["arm"] == arm, "seed"]) for arm in arms)))

    def predicted(self, arm: str, seed: int) -> np.ndarray:
        rows = self.test[(self.test["arm"] == arm) & (self.test["seed"] == seed)]
        return rows.set_index("text_id")["predicted"][self.items].to_numpy()

    @lru_cache  # noqa: B019
    def values(self, arm: str, seed: int, metric: str) -> np.ndarray:
        predicted = self.predicted(arm, seed)
        if metric == "accuracy":
            return (predicted == self.gold).astype(float)
        return f1(self.gold, predicted, self.classes) + influence(self.gold, predicted, self.classes)

    def differences(self, row: pd.Series) -> np.ndarray:
        seeds = self.seeds(row["arm"], row["control"])
        return np.array(
            [self.values(row["arm"], s, row["metric"]) - self.values(row["control"], s, row["metric"]) for s in seeds]
        )


def f1(gold: np.ndarray, predicted: np.ndarray, classes: list[str]) -> float:
    return f1_score(gold, predicted, labels=classes, average="macro", zero_division=0)


def influence(gold: np.ndarray, predicted: np.ndarray, classes: list[str]) -> np.ndarray:
    """(n − 1) times what scikit-learn's macro-F1 loses without the item, centred: the jackknife, item by item."""
    n, whole, found = len(gold), f1(gold, predicted, classes), {}
    pairs = list(zip(gold, predicted))
    for pair in set(pairs):  # items with the same gold and prediction weigh alike
        others = np.arange(n) != pairs.index(pair)
        found[pair] = (n - 1) * (whole - f1(gold[others], predicted[others], classes))
    influences = np.array([found[pair] for pair in pairs])
    return influences - influences.mean()


def two_way_by_hand(D: np.ndarray) -> dict[str, float]:
    """The interval of the specification from statsmodels' ANOVA table of D (S, n)."""
    S, n = D.shape
    seed, item = (axis.ravel() for axis in np.indices(D.shape))
    table = anova_lm(ols("D ~ C(seed) + C(item)", pd.DataFrame({"D": D.ravel(), "seed": seed, "item": item})).fit())
    ms_seed, ms_item, ms_error = table["mean_sq"]
    if ms_seed <= ms_error:
        variance, df = ms_item / (S * n), n - 1
    else:
        total = ms_seed + ms_item - ms_error
        variance = max(total, ms_item, ms_seed) / (S * n)
        squares = ms_seed**2 / (S - 1) + ms_item**2 / (n - 1) + ms_error**2 / ((S - 1) * (n - 1))
        df = max(total**2 / squares, S - 1)
    se, mean = np.sqrt(variance), D.mean()
    low, high = stats.t.interval(0.95, df, mean, se)
    low90, high90 = stats.t.interval(0.90, df, mean, se)
    return {
        "difference": mean, "se": se, "df": df, "low": low, "high": high, "low90": low90, "high90": high90,
        "p": 2 * stats.t.sf(abs(mean) / se, df), "S": S, "n": n,
        "sd_seed": np.sqrt(max(0, ms_seed - ms_error) / n), "sd_item": np.sqrt(max(0, ms_item - ms_error) / S),
        "sd_error": np.sqrt(ms_error),
    }  # fmt: skip


def word_by_hand(row: pd.Series) -> str:
    adjusted_away = row["p_holm"] >= 0.05
    if row["low"] > 0 and not adjusted_away:
        return "BETTER"
    if row["high"] < 0 and not adjusted_away:
        return "WORSE"
    if row["low90"] > -MARGIN and row["high90"] < MARGIN:
        return "EQUIVALENT"
    return "NON-INFERIOR" if row["low90"] > -MARGIN else "INCONCLUSIVE"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with threadpool_limits(1):  # least squares on 65 columns: threads only stand in each other's way
        yield


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    place = tmp_path_factory.mktemp("by_hand")
    experiment = write_experiment(place, **SETTINGS)
    write_votes(place, write_texts(place, n=300, noise=0.6), annotators=5, error=0.5)
    consenso.run(experiment, place / "run")
    export_tables(place / "run", place / "csv")
    return Report(place / "csv")


@pytest.fixture(scope="module")
def comparison(report: Report) -> pd.DataFrame:
    return report.read("comparison").query(
        "scope == 'all' and attempt == 'as_run' and metric in ['accuracy', 'macro_f1']"
    )


def test_the_report_says_enough_to_be_checked(comparison: pd.DataFrame) -> None:
    """The run is no trivial one: several contrasts, some of them with seeds that matter, no invalid verdict."""
    assert comparison["contrast"].nunique() >= 6
    assert (comparison["sd_seed"] > 0).any()
    assert comparison["difference"].ne(0).sum() >= 10
    assert not comparison["verdict"].isin(["INVALID", "UNSTABLE RECIPE"]).any()
    assert comparison["verdict"].nunique() >= 3


def test_every_interval_of_the_comparison_follows_from_the_predictions(report, comparison) -> None:
    for _, row in comparison.iterrows():
        D = report.differences(row)
        if not D.any():
            assert row["difference"] == row["se"] == 0
            continue
        for name, expected in two_way_by_hand(D).items():
            assert row[name] == pytest.approx(expected, rel=1e-5, abs=1e-9), (row["contrast"], row["metric"], name)


def test_every_mean_of_an_arm_is_its_mean_score_over_seeds(report, comparison) -> None:
    for _, row in comparison.iterrows():
        seeds = report.seeds(row["arm"], row["control"])
        scores = {"accuracy": accuracy_score, "macro_f1": lambda gold, predicted: f1(gold, predicted, report.classes)}
        arm, control = (
            np.array([scores[row["metric"]](report.gold, report.predicted(row[side], seed)) for seed in seeds])
            for side in ("arm", "control")
        )
        assert row["arm_mean"] == pytest.approx(arm.mean(), abs=1e-12)
        assert row["control_mean"] == pytest.approx(control.mean(), abs=1e-12)
        assert row["difference"] == pytest.approx((arm - control).mean(), abs=1e-12)
        level = np.isclose(arm, control, rtol=0, atol=1e-12)
        assert row["seeds_better"] == pytest.approx(np.where(level, 0.5, arm > control).mean())


def test_holms_p_is_that_of_statsmodels(comparison: pd.DataFrame) -> None:
    declared = (comparison["contrast"] == "consensus − gold-aligned") & (comparison["metric"] == "macro_f1")
    family = comparison[(comparison["effect"] != "sanity") & ~declared]
    assert family.groupby("metric").size().to_dict() == {"accuracy": 6, "macro_f1": 5}
    for _, rows in family.groupby("metric"):
        assert rows["p_holm"].to_numpy() == pytest.approx(multipletests(rows["p"], method="holm")[1], rel=1e-9)
    assert comparison.drop(family.index)["p_holm"].isna().all()


def test_every_verdict_follows_from_its_row(comparison: pd.DataFrame) -> None:
    judged = comparison[comparison["verdict"] != "NO VERDICT"]
    assert len(judged) >= 10
    for _, row in judged.iterrows():
        assert row["margin"] == MARGIN
        assert row["verdict"] == word_by_hand(row), row["contrast"]


def test_the_smallest_difference_that_can_be_seen_has_power_80(comparison: pd.DataFrame) -> None:
    for _, row in comparison[comparison["detectable"].notna() & (comparison["se"] > 0)].iterrows():
        edge = stats.t.ppf(0.975, row["df"])
        assert stats.nct.sf(edge, row["df"], row["detectable"] / row["se"]) == pytest.approx(0.8, abs=1e-4)


def test_every_score_is_that_of_scikit_learn(report: Report) -> None:
    gold = report.read("texts").set_index("text_id")["gold"]
    scores = report.read("scores").query("attempt == 'as_run'").set_index(["arm", "seed", "part", "metric"])["value"]
    seen = set()
    for (arm, seed, part), run in report.predictions.groupby(["arm", "seed", "part"]):
        truth, predicted = gold[run["text_id"]].to_numpy(), run["predicted"].to_numpy()
        classes = sorted(set(truth))
        expected = {"accuracy": accuracy_score(truth, predicted), "macro_f1": f1(truth, predicted, classes)}
        recalls = recall_score(truth, predicted, labels=classes, average=None, zero_division=0)
        expected |= {f"recall:{name}": recall for name, recall in zip(classes, recalls)}
        for metric, value in expected.items():
            assert scores[arm, seed, part, metric] == pytest.approx(value, abs=1e-12)
            seen.add((arm, seed, part, metric))
    assert seen == {key for key in scores.index if key[3].partition(":")[0] in {"accuracy", "macro_f1", "recall"}}


def test_the_figures_of_the_guards_follow_from_the_predictions(report: Report) -> None:
    guards = report.read("guards").set_index("guard")
    found = {name: json.loads(guards.loc[name, "figures"]) for name in ("gold beats the floor", "margin")}
    for name, arm in (("gold beats the floor", "gold"), ("margin", "gold-aligned")):
        floors = [name for name in ("floor", "floor-prior") if name in set(report.test["arm"])]
        better = max(
            floors, key=lambda floor: np.mean([report.values(floor, s, "macro_f1") for s in report.seeds(floor)])
        )
        assert found[name]["floor"] == better
        by_hand = two_way_by_hand(report.differences(pd.Series({"arm": arm, "control": better, "metric": "macro_f1"})))
        for figure in {"difference", "se", "low", "S", "n"} & set(found[name]):
            assert found[name][figure] == pytest.approx(by_hand[figure], rel=1e-5)
        holds = by_hand["difference"] > 5 * by_hand["se"] if arm == "gold" else by_hand["low"] / 2 >= MARGIN
        assert guards.loc[name, "outcome"] == ("passed" if holds else "failed")


def test_class_differences_follow_from_the_predictions(report: Report) -> None:
    table = report.read("class_differences").query("attempt == 'as_run'")
    assert len(table)
    for contrast, rows in table.groupby("contrast"):
        arm, control = contrast.split(" − ")
        for _, row in rows.iterrows():
            of_class = report.gold == row["label"]
            D = report.differences(pd.Series({"arm": arm, "control": control, "metric": "accuracy"}))[:, of_class]
            assert row["n"] == of_class.sum()
            assert row["difference"] == pytest.approx(D.mean(), abs=1e-12)
            assert row["difference"] == pytest.approx(row["arm_recall"] - row["control_recall"], abs=1e-12)
            if D.any():
                by_hand = two_way_by_hand(D)
                for name in ("low", "high", "p"):
                    assert row[name] == pytest.approx(by_hand[name], rel=1e-6, abs=1e-9)
        adjusted = multipletests(rows["p"], method="holm")[1]
        assert rows["p_holm"].to_numpy() == pytest.approx(adjusted, rel=1e-9)


def test_seed_differences_follow_from_the_predictions(report: Report) -> None:
    table = report.read("seed_differences").query("attempt == 'as_run'")
    assert len(table)
    for _, row in table.iterrows():
        arm, control = (report.predicted(name, row["seed"]) for name in row["contrast"].split(" − "))
        right = arm == report.gold, control == report.gold
        only_arm, only_control = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
        assert (row["only_arm"], row["only_control"]) == (only_arm, only_control)
        assert row["accuracy"] == pytest.approx((only_arm - only_control) / len(report.gold), abs=1e-12)
        change = f1(report.gold, arm, report.classes) - f1(report.gold, control, report.classes)
        assert row["macro_f1"] == pytest.approx(change, abs=1e-12)
        exact = mcnemar([[0, only_arm], [only_control, 0]], exact=True).pvalue
        assert row["p_mcnemar"] == pytest.approx(exact, rel=1e-9)
