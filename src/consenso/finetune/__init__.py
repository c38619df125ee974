"""Train students on the same texts with different labels: arms, recipe, trainings, predictions."""

from consenso.finetune.arms import ARMS, DEFAULT_ARMS, FLOOR_ARMS, make_arms
from consenso.finetune.planning import Planned, plan_arms
from consenso.finetune.recipe import Recipe
from consenso.finetune.running import Results, run_arms
from consenso.finetune.settings import FinetuneSettings
from consenso.finetune.students import STUDENTS

__all__ = [
    "ARMS",
    "DEFAULT_ARMS",
    "FLOOR_ARMS",
    "STUDENTS",
    "FinetuneSettings",
    "Planned",
    "Recipe",
    "Results",
    "make_arms",
    "plan_arms",
    "run_arms",
]
