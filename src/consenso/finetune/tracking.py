"""Trainings reported to trackers: TensorBoard, MLflow, Weights & Biases; one that fails is switched off, nothing else ends.

Thin writers of our own: accelerate's and transformers' trackers write to the one active run of a process and need its
global state, while here many short runs end one after the other in a process that trains meanwhile.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from consenso.errors import ConfigError, MissingExtraError, nearest
from consenso.finetune.training import Outcome
from consenso.store import RunFolder

logger = logging.getLogger(__name__)

CURVES = ("dev_macro_f1", "dev_loss", "dev_accuracy", "train_loss")
"""What is shown over the steps."""
FOLDER = "trackers"
"""Where trackers write, inside a run folder."""

Numbers = dict[str, float]
Result = TypeVar("Result")


def run_name(student: str, arm: str, fold: int, seed: int) -> str:
    """Return what a training is called in every tracker: encoder/consensus/fold0/seed1."""
    return f"{student}/{arm}/fold{fold}/seed{seed}"


class Tracking:
    """Where trainings are reported to: `start` one, log its points as they come, `end` it; or `log_training` at its end."""

    def __init__(self, report_to: Sequence[str] | str, place: Path, project: str = "consenso") -> None:
        """`report_to`: keys of TRACKERS; `place`: the folder that local trackers write to; `project`: what groups the runs.

        Raises `ConfigError` for an unknown tracker, `MissingExtraError` for one that is not installed.
        """
        names = (report_to,) if isinstance(report_to, str) else tuple(report_to)
        for name in names:
            need_tracker(name)
        self._place, self._project = Path(place), project
        self._trackers: dict[str, Tracker | None] = dict.fromkeys(names)
        self._off: set[str] = set()

    @classmethod
    def of_run(cls, report_to: Sequence[str] | str | Tracking, folder: RunFolder | None) -> Tracking:
        """Return the trackers of a run folder, in its `trackers/` and under its name; without a folder in ./trackers."""
        if isinstance(report_to, Tracking):
            return report_to
        if folder is None:
            return cls(report_to, Path(FOLDER))
        return cls(report_to, folder.path / FOLDER, folder.path.resolve().name)

    def start(self, name: str, params: Mapping[str, Any]) -> Tracked:
        """Begin a run under a name (parts divided by /) with what was chosen for it, and return it to log points to."""
        found = {each: self.quietly(each, partial(self._begin, each, name, params)) for each in self._trackers}
        return Tracked(self, {each: record for each, record in found.items() if record is not None})

    def log_training(self, name: str, params: Mapping[str, Any], outcome: Outcome) -> None:
        """Report a training that has ended: its curve, its final facts, its status."""
        tracked = self.start(name, params)
        tracked.log_points((int(point["step"]), point) for point in outcome.curve)
        tracked.end(outcome.status, outcome.facts, outcome.reason)

    def _begin(self, tracker: str, name: str, params: Mapping[str, Any]) -> Record:
        opened = self._trackers[tracker] or TRACKERS[tracker](self._place, self._project)
        self._trackers[tracker] = opened
        return opened.start(name, params)

    def quietly(self, name: str, deed: Callable[[], Result]) -> Result | None:
        """Do something with a tracker; whatever it fails of is one warning, and from then on it is off: None."""
        if name in self._off:
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return deed()
        except Exception as error:  # noqa: BLE001 - trackers are of others: whatever they die of, the training goes on
            self._off.add(name)
            reason = " ".join(str(error).split())
            logger.warning(
                "tracker %s is off from here on (%s: %s); trainings go on", name, type(error).__name__, reason
            )
            return None


class Tracked:
    """One training in every tracker."""

    def __init__(self, tracking: Tracking, records: dict[str, Record]) -> None:
        self._tracking, self._records = tracking, records

    def log_point(self, step: int, scores: Mapping[str, Any]) -> None:
        """Log the scores of one evaluation (those of CURVES that are there) at its step."""
        self.log_points([(step, scores)])

    def log_points(self, points: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """Log several evaluations: (step, scores) each."""
        chosen = [(step, numbers({name: scores.get(name) for name in CURVES})) for step, scores in points]
        for name, record in self._records.items():
            self._tracking.quietly(name, partial(record.log, chosen))

    def end(self, status: str, facts: Mapping[str, Any], reason: str | None = None) -> None:
        """End the run: `facts` are its final numbers, `status` (ok, collapsed, failed) stands as a tag."""
        for name, record in self._records.items():
            self._tracking.quietly(name, partial(record.end, status, numbers(facts), reason))


def numbers(values: Mapping[str, Any]) -> Numbers:
    """Return the values that are numbers, as floats; flags, texts and what is missing are left out."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


class Record(Protocol):
    """One training in one tracker."""

    def log(self, points: Sequence[tuple[int, Numbers]]) -> None:
        """Log scores at steps."""

    def end(self, status: str, facts: Numbers, reason: str | None) -> None:
        """Log the final numbers and the status, and close."""


class Tracker(Protocol):
    """A place that trainings are reported to."""

    def start(self, name: str, params: Mapping[str, Any]) -> Record:
        """Begin a run."""


class TensorBoard:
    """Event files in tensorboard/<student>/<arm>/…: `tensorboard --logdir <run folder>/trackers/tensorboard`."""

    def __init__(self, place: Path, project: str) -> None:
        self._place = place / "tensorboard"

    def start(self, name: str, params: Mapping[str, Any]) -> Record:
        """Begin a run in a folder of its own; one that was reported before keeps its folder."""
        path = self._place.joinpath(*map(_file_name, name.split("/")))
        again = 1
        while path.exists():
            again += 1
            path = path.with_name(f"{path.name.partition(' again ')[0]} again {again}")
        return _Events(path, params)


def _file_name(part: str) -> str:
    """Part of a run's name as a file system takes it."""
    plain = re.sub(r"[^\w .+@()=~-]", "_", part).strip()
    return plain if plain.strip(".") else "_"


class _Events:
    def __init__(self, path: Path, params: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(path))
        self._params = {
            name: value if isinstance(value, int | float | str) else str(value) for name, value in params.items()
        }

    def log(self, points: Sequence[tuple[int, Numbers]]) -> None:
        for step, scores in points:
            for name, value in scores.items():
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self, status: str, facts: Numbers, reason: str | None) -> None:
        self._writer.add_text("status", status if reason is None else f"{status}: {reason}")
        final = {f"final/{name}": value for name, value in facts.items()}
        self._writer.add_hparams({**self._params, "status": status}, final, run_name=".")
        self._writer.close()


class MLflow:
    """mlflow.db, a SQLite file; MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME win."""

    def __init__(self, place: Path, project: str) -> None:
        asked = os.environ.get("MLFLOW_TRACKING_URI")
        if not asked:
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read as mlflow is imported: nothing leaves here
            place.mkdir(parents=True, exist_ok=True)
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=asked or f"sqlite:///{(place / 'mlflow.db').resolve().as_posix()}")
        project = os.environ.get("MLFLOW_EXPERIMENT_NAME") or project
        found = self._client.get_experiment_by_name(project)
        artifacts = None if asked else (place / "mlflow-artifacts").resolve().as_uri()
        self._experiment = found.experiment_id if found else self._client.create_experiment(project, artifacts)

    def start(self, name: str, params: Mapping[str, Any]) -> Record:
        """Begin a run."""
        return _MLflowRun(self._client, self._client.create_run(self._experiment, run_name=name).info.run_id, params)


class _MLflowRun:
    def __init__(self, client: Any, run: str, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        self._client, self._run = client, run
        client.log_batch(run, params=[Param(_key(name), str(value)[:6000]) for name, value in params.items()])

    def log(self, points: Sequence[tuple[int, Numbers]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(
            self._run, [Metric(name, value, now, step) for step, scores in points for name, value in scores.items()]
        )

    def end(self, status: str, facts: Numbers, reason: str | None) -> None:
        from mlflow.entities import RunTag

        self.log([(0, {f"final/{name}": value for name, value in facts.items()})])
        tags = {"status": status} | ({} if reason is None else {"reason": reason[:5000]})
        self._client.log_batch(self._run, tags=[RunTag(name, value) for name, value in tags.items()])
        self._client.set_terminated(self._run, "FAILED" if status == "failed" else "FINISHED")


def _key(name: str) -> str:
    """A name as MLflow takes it."""
    return re.sub(r"[^\w .:/-]", "_", name)


class WandB:
    """Offline runs (`wandb sync` sends them); WANDB_MODE, WANDB_PROJECT and WANDB_DIR win."""

    def __init__(self, place: Path, project: str) -> None:
        self._place, self._project = place, project

    def start(self, name: str, params: Mapping[str, Any]) -> Record:
        """Begin a run beside whatever run the process has open."""
        import wandb

        self._place.mkdir(parents=True, exist_ok=True)
        given = {"mode": "offline", "project": _plain(self._project), "dir": str(self._place)}
        chosen = {key: value for key, value in given.items() if not os.environ.get(f"WANDB_{key.upper()}")}
        quiet = wandb.Settings(silent=True, console="off", x_disable_stats=True)
        return _WandBRun(wandb.init(name=name, config=dict(params), reinit="create_new", settings=quiet, **chosen))


def _plain(project: str) -> str:
    """A project's name as Weights & Biases takes it."""
    return re.sub(r"[/\\#?%:]", "-", project)[:128]


class _WandBRun:
    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, points: Sequence[tuple[int, Numbers]]) -> None:
        for step, scores in points:
            self._run.log(scores, step=step)

    def end(self, status: str, facts: Numbers, reason: str | None) -> None:
        self._run.summary.update({f"final/{name}": value for name, value in facts.items()})
        self._run.tags = (*(self._run.tags or ()), status)
        self._run.summary["status"] = status if reason is None else f"{status}: {reason}"
        self._run.finish(exit_code=1 if status == "failed" else 0)


TRACKERS: dict[str, Callable[[Path, str], Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}
"""What `report_to` may name."""
_NEEDS = {"tensorboard": ("tensorboard", "torch"), "mlflow": ("mlflow", "sqlalchemy", "alembic"), "wandb": ("wandb",)}
_BY_HAND = {"mlflow": "mlflow-skinny sqlalchemy alembic", "wandb": "wandb"}


def need_tracker(name: str) -> None:
    """Raise `ConfigError` for a tracker that is unknown, `MissingExtraError` for one that is not installed."""
    if name not in TRACKERS:
        raise ConfigError(
            f"report_to: unknown tracker {name!r}; choose from {', '.join(TRACKERS)}.{nearest(name, TRACKERS)}"
        )
    missing = [module for module in _NEEDS[name] if importlib.util.find_spec(module) is None]
    if not missing:
        return
    if "torch" in missing:
        raise MissingExtraError("report_to: tensorboard", "finetune")
    if name == "tensorboard":
        raise MissingExtraError("report_to: tensorboard", "trackers")
    raise MissingExtraError(f"report_to: {name}", "trackers", by_hand=_BY_HAND[name])
