"""The student models that are trained on the labels: one file each, one line in STUDENTS."""

from __future__ import annotations

from typing import cast

from consenso.finetune.students import contrastive, encoder, frozen, linear
from consenso.finetune.training import Student

STUDENTS: dict[str, Student] = {
    "contrastive": cast(Student, contrastive),
    "encoder": cast(Student, encoder),
    "frozen": cast(Student, frozen),
    "linear": cast(Student, linear),
}
"""Name → module with DETERMINISTIC, LIBRARIES, USES_ENCODER, RECIPE_FIELDS, prepare, train, seconds."""
