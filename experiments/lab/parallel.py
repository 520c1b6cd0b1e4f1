"""The same function over many items, on the engine that one option names.

Items should take seconds or more each: starting a process costs an import of torch.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any, TypeVar

from interp.progress import Progress, bar

Item = TypeVar("Item")
Found = TypeVar("Found")

ENGINES = ("here", "joblib", "submitit_local", "submitit_slurm", "ray")


def parallel(
    work: Callable[[Item], Found],
    items: Sequence[Item],
    on: str = "here",
    jobs: int = -1,
    progress: Progress = None,
    **options: Any,
) -> list[Found]:
    """What `work` returns for each item, in their order.

    Args:
        on: "here" (this process), "joblib" (processes of this machine), "submitit_local" (the same by the way that
            SLURM goes, for trying it out), "submitit_slurm", or "ray" (the cluster of RAY_ADDRESS, else this machine).
        jobs: At most so many at once; -1 for one a core, or whatever the cluster has.
        options: For submitit, its executor's parameters, such as `timeout_min=60` or `slurm_partition="gpu"`.

    Raises:
        ValueError: An unknown engine, or one that is not installed.
        Exception: What `work` raises first; items that were done by then have done what they do.
    """
    if on not in ENGINES:
        raise ValueError(f"there is no engine {on!r}; choose from {', '.join(ENGINES)}")
    if options and not on.startswith("submitit"):
        raise ValueError(f"{', '.join(options)}: only submitit takes parameters, not {on!r}")
    starts: dict[str, Callable[[], Iterator[tuple[int, Found]]]] = {
        "here": lambda: zip(count(), map(work, items)),
        "joblib": lambda: _joblib(work, items, jobs),
        "ray": lambda: _ray(work, items, jobs),
    }
    start = starts.get(on, lambda: _submitit(work, items, jobs, on.removeprefix("submitit_"), options))
    found: dict[int, Found] = {}
    with bar(len(items), "items", progress) as advance:
        for i, value in start():
            found[i] = value
            advance(1)
    return [found[i] for i in range(len(items))]


def _joblib(work: Callable[[Item], Found], items: Sequence[Item], jobs: int) -> Iterator[tuple[int, Found]]:
    joblib = _imported("joblib", "sweep")
    return joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(  # type: ignore[no-any-return]
        joblib.delayed(_numbered)(work, i, item) for i, item in enumerate(items)
    )


def _submitit(
    work: Callable[[Item], Found], items: Sequence[Item], jobs: int, cluster: str, options: dict[str, Any]
) -> Iterator[tuple[int, Found]]:
    submitit = _imported("submitit", "slurm")
    executor = submitit.AutoExecutor(folder=options.pop("folder", ".submitit/%j"), cluster=cluster)
    if cluster == "slurm" and jobs > 0:
        options["slurm_array_parallelism"] = jobs
    executor.update_parameters(**options)
    # SLURM has a queue of its own; the local executor would start a process for every item at once.
    at_once = len(items) if cluster == "slurm" else jobs if jobs > 0 else os.cpu_count() or 1
    for start in range(0, len(items), max(at_once, 1)):
        for i, job in enumerate(executor.map_array(work, items[start : start + at_once]), start):
            yield i, job.result()


def _ray(work: Callable[[Item], Found], items: Sequence[Item], jobs: int) -> Iterator[tuple[int, Found]]:
    ray = _imported("ray", "ray")
    if not ray.is_initialized():
        ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, include_dashboard=False)
    # A node that is lost takes its items with it; they are run again elsewhere, as often as it happens.
    task = ray.remote(max_retries=-1)(_numbered)
    queue = list(enumerate(items))
    waiting: list[Any] = []
    most = jobs if jobs > 0 else len(items)
    while queue or waiting:
        while queue and len(waiting) < most:
            i, item = queue.pop(0)
            waiting.append(task.remote(work, i, item))
        done, waiting = ray.wait(waiting)
        yield from ray.get(done)


def _numbered(work: Callable[[Item], Found], i: int, item: Item) -> tuple[int, Found]:
    return i, work(item)


def _imported(name: str, extra: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise ValueError(f"{name} is not installed: pip install 'interp[{extra}]'") from None
