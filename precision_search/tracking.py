"""Tracking: a study as a run in MLflow; the only place that imports it."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from backends.emulation.audition import excess
from precision.candidate import Candidate
from precision.study import LOG
from precision_search.overview import SHARES, Overview, binding
from precision_search.report.figures import number

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "precision-search"
TAG = "precision_search.study"
"""Tag of a run: the hash of the study's log, so that the same study is not tracked twice."""
ARTIFACTS = ("policy.yaml", "summary.json", "report.html", "recipe.yaml")
FINAL = (*SHARES, "evaluations", "repairs", "seconds", "covered_mac_share")
_BATCH = 1000  # metrics that MLflow takes in one call


class TrackingError(ValueError):
    """A study that cannot be tracked; the message says what to do."""


def track(overview: Overview, uri: str | None) -> dict[str, Any]:
    """Write a study that has ended as one finished run: parameters, final metrics, each evaluation as a step, files.

    Args:
        overview: the study.
        uri: a tracking store; None is the one that MLflow is set to (MLFLOW_TRACKING_URI, or its default).

    Returns:
        `run_id`, `experiment`, `uri`, and `known`: whether the store had this very study before, and nothing was added.

    Raises:
        TrackingError: the study has not ended, MLflow or what its store needs is not installed, or the store refuses.
    """
    if overview.results is None:
        raise TrackingError(f"{overview.folder} has not ended, and a run is tracked whole; finish it by run --resume")
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise TrackingError(
            "--mlflow: MLflow is not installed; install it by: pip install 'precision-search[mlflow]'"
        ) from error
    try:
        named = uri if uri is not None else mlflow.get_tracking_uri()
        run_id, known = _tracked(MlflowClient(tracking_uri=named), overview)
    except ImportError as error:  # a store's own library, as sqlalchemy
        raise TrackingError(f"--mlflow: {named} needs a package that is not installed: {error}") from error
    except (MlflowException, OSError) as error:
        raise TrackingError(f"--mlflow: {named} refuses: {error}") from error
    return {"run_id": run_id, "experiment": EXPERIMENT, "uri": named, "known": known}


def _tracked(client: "MlflowClient", overview: Overview) -> tuple[str, bool]:
    from mlflow.entities import Metric, Param

    study = hashlib.sha256((overview.folder / LOG).read_bytes()).hexdigest()[:16]
    experiment = client.get_experiment_by_name(EXPERIMENT)
    where = client.create_experiment(EXPERIMENT) if experiment is None else str(experiment.experiment_id)
    for run in client.search_runs([where], f"tags.`{TAG}` = '{study}'"):
        if run.info.status == "FINISHED":
            return str(run.info.run_id), True
    ended = int(1e3 * overview.written)
    begun = ended - int(1e3 * (number(overview.summary.get("seconds")) or 0.0))
    name = str(overview.study.header.get("recipe", overview.folder.name))
    run = client.create_run(where, start_time=begun, run_name=name, tags={TAG: study})
    run_id = str(run.info.run_id)
    try:
        client.log_batch(run_id, params=[Param(key, value) for key, value in parameters(overview).items()])
        metrics = [Metric(key, value, ended, 0) for key, value in final_metrics(overview).items()]
        metrics += [Metric(key, value, ended, step) for key, value, step in step_metrics(overview)]
        for first in range(0, len(metrics), _BATCH):
            client.log_batch(run_id, metrics=metrics[first : first + _BATCH])
        for file in ARTIFACTS:
            if (overview.folder / file).is_file():
                client.log_artifact(run_id, str(overview.folder / file))
    except BaseException:
        client.set_terminated(run_id, "FAILED")  # so that it is not taken for the study the next time
        raise
    client.set_terminated(run_id, "FINISHED", end_time=ended)
    return run_id, False


def parameters(overview: Overview) -> dict[str, str]:
    """What was asked: the study's header, the card, the arithmetic, and the recipe's sections of plain values."""
    summary = overview.summary
    found = {key: str(value) for key, value in overview.study.header.items()}
    found |= {key: str(summary[key]) for key in ("device", "backend", "arithmetic", "policy_digest") if key in summary}
    for section in ("model", "target", "data", "calibrate", "search"):
        values = overview.recipe.get(section)
        if isinstance(values, Mapping):
            found |= {f"{section}.{key}": str(value) for key, value in values.items()}
    return found


def final_metrics(overview: Overview) -> dict[str, float]:
    """What came of it; only finite numbers, since not every store holds others."""
    row = overview.to_dict()
    found = {key: number(overview.summary.get(key)) for key in FINAL}
    found |= {key: number(row[key]) for key in ("seconds_cost", "usd_per_stream", "ratio")}
    found |= {f"gate/{gate['metric']}/{gate['over']}": number(gate["value"]) for gate in overview.gates}
    found["kept"] = float(overview.state == "kept")
    return {key: value for key, value in found.items() if value is not None and math.isfinite(value)}


def step_metrics(overview: Overview) -> Iterator[tuple[str, float, int]]:
    """Of each evaluation, numbered in the order of the log, key, value and step; keys begin with the clips it is of."""
    cheapest = math.inf
    for step, heard in enumerate(overview.study.candidates()):
        values = _step(heard)
        if heard.split == "search" and heard.kept and heard.seconds_cost < cheapest:
            cheapest = heard.seconds_cost
        if heard.split == "search" and math.isfinite(cheapest):
            values["cheapest_kept"] = cheapest
        for key, value in values.items():
            if math.isfinite(value):
                yield f"{heard.split}/{key}", value, step


def _step(heard: Candidate) -> dict[str, float]:
    found = binding(heard)
    worst = math.nan if found is None else excess(found)
    values = {"seconds_cost": heard.seconds_cost, "kept": float(heard.kept), "worst_excess": worst}
    return values | {f"gate/{v.gate.metric}/{v.gate.over}": v.value for v in heard.gates}
