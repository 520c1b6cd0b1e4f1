"""Copies of finished runs for trackers; the store stays the record."""

import json
import tempfile
from pathlib import Path
from typing import Any

from experiments.storage.records import Run


def to_wandb(run: Run, project: str) -> str:
    """Copy a run to Weights & Biases, as WANDB_MODE and its login say; say where it is.

    Raises:
        ValueError: wandb is not installed.
    """
    wandb = _imported("wandb")
    tags = [run.experiment, f"version {run.manifest.get('version')}"]
    with wandb.init(
        project=project, id=run.key, name=run.name, config=run.config, tags=tags, notes=run.answer, resume="allow"
    ) as there:
        there.summary.update(run.numbers | {f"check: {c['name']}": c["status"] for c in run.checks})
        there.log({name: wandb.Plotly(run.show(name)) for name in run.names("figure")})
        artifact = wandb.Artifact(f"{run.experiment}-{run.key}", type="run", metadata={"question": run.question})
        with tempfile.TemporaryDirectory() as folder:
            _write(run, Path(folder))
            artifact.add_dir(folder)
            there.log_artifact(artifact)
        where = there.url or str(Path(there.dir).parent)
    return f"{run.name} is in wandb, project {project}: {where}"


def to_mlflow(run: Run, project: str) -> str:
    """Copy a run to MLflow, where MLFLOW_TRACKING_URI says; say which run it is. One that is there is not copied again.

    Raises:
        ValueError: mlflow is not installed.
    """
    mlflow = _imported("mlflow")
    mlflow.set_experiment(project)
    known = mlflow.search_runs(
        filter_string=f"tags.key = '{run.key}' and attributes.status = 'FINISHED'", output_format="list"
    )
    if known:
        return f"{run.name} is in mlflow already: {known[0].info.run_id}"
    tags = {"key": run.key, "experiment": run.experiment, "mlflow.note.content": f"{run.question} {run.answer}"}
    with mlflow.start_run(run_name=run.name, tags=tags) as there, tempfile.TemporaryDirectory() as folder:
        mlflow.log_params(run.config)
        mlflow.log_metrics(run.numbers)
        mlflow.set_tags({f"check.{i}": f"{c['status']}: {c['name']}" for i, c in enumerate(run.checks)})
        _write(run, Path(folder))
        mlflow.log_artifacts(folder)
    return f"{run.name} is in mlflow, experiment {project}: {there.info.run_id}"


EXPORTERS = {"wandb": to_wandb, "mlflow": to_mlflow}


def _write(run: Run, folder: Path) -> None:
    """The run's files, and its manifest."""
    for name in run.manifest["files"]:
        (folder / name).write_bytes(run.read(name))
    (folder / "manifest.json").write_text(json.dumps(run.manifest, indent=1))


def _imported(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise ValueError(f"{name} is not installed: pip install 'interp[{name}]'") from None
