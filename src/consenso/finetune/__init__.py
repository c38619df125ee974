"""Train students on the same texts with different labels: arms, recipe, trainings, predictions."""

from consenso.finetune.arm_names import DEFAULT_ARMS, FLOOR_ARMS, PRESETS, is_listed
from consenso.finetune.arm_table import make_arms
from consenso.finetune.arms import ARMS, known_arm
from consenso.finetune.expanding import expand_arms, needs_of
from consenso.finetune.planning import Planned, plan_arms
from consenso.finetune.recipe import Recipe
from consenso.finetune.running import Results, run_arms
from consenso.finetune.selection import InstanceSelection
from consenso.finetune.settings import FinetuneSettings, StudySettings, Variant
from consenso.finetune.students import STUDENTS

__all__ = [
    "ARMS",
    "DEFAULT_ARMS",
    "FLOOR_ARMS",
    "PRESETS",
    "STUDENTS",
    "FinetuneSettings",
    "InstanceSelection",
    "Planned",
    "Recipe",
    "Results",
    "StudySettings",
    "Variant",
    "expand_arms",
    "is_listed",
    "known_arm",
    "make_arms",
    "needs_of",
    "plan_arms",
    "run_arms",
]
