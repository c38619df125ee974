"""The answer to a question in one metric."""

from __future__ import annotations

from dataclasses import dataclass

from consenso.compare.estimates import Estimate, Values, estimate
from consenso.compare.paired import TwoWay
from consenso.compare.questions import Question


@dataclass(frozen=True)
class Measured:
    """The answer to a question in one metric, before its verdict."""

    question: Question
    """What was asked."""
    metric: str
    """In which metric."""
    estimate: Estimate
    """The difference, its interval and what each arm scored."""

    @property
    def result(self) -> TwoWay:
        """The difference and its interval."""
        return self.estimate.result


def measure(question: Question, metric: str, alpha: float, kept: Values) -> Measured:
    """Return the estimate of the question's two arms (`estimates.estimate`)."""
    found = estimate(question.pair, metric, alpha=alpha, train_sizes=question.train_sizes, kept=kept)
    return Measured(question, metric, found)
