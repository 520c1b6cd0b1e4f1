"""Commands on what is stored: `list`, `show`, `diff`, `verify` and the rest."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.lab import logs
from experiments.lab.command_options import COMMANDS as COMMANDS
from experiments.lab.command_options import parser_of
from experiments.storage.comparing import differences, largest_differences
from experiments.storage.manifests import sha256
from experiments.storage.records import Run
from experiments.store import PAGES, Store

_SAME = 1e-5  # of an array's largest value: what other threads and kernels may change in float32


def run(name: str, arguments: Sequence[str]) -> int:
    """Run a command; return its exit code."""
    logs.show()
    given = parser_of(name).parse_intermixed_args(arguments)
    actions: dict[str, Callable[[Store, argparse.Namespace], int]] = {
        "list": _list, "show": _show, "diff": _diff, "rerun": _rerun, "verify": _verify, "gc": _gc, "page": _page,
        "compare": _compare, "pictures": _pictures, "gallery": _gallery, "harvest": _harvest, "export": _export,
    }  # fmt: skip
    return actions[name](Store(given.store), given)


def write_page(runs: Sequence[Run], root: str, file: str = "", sweep: str = "") -> Path:
    """Write the page of one run, of a sweep, or of several runs; return where it is."""
    from experiments.report import gallery_page, run_page, write

    first = runs[0]
    if sweep:
        name, page = f"{first.experiment}-sweep-{sweep}", _sweep_page(runs, Store(root), sweep)
    elif len(runs) == 1:
        name, page = f"{first.experiment}-{first.key}", run_page(first)
    else:
        name, page = (
            f"several-{_together(runs)}",
            gallery_page(runs, "Several runs", ", ".join(run.name for run in runs)),
        )
    return write(Path(file) if file else pages(root) / f"{name}.html", page)


def pages(root: str) -> Path:
    """Where pages go: beside the runs, or into a folder of this machine if those are elsewhere."""
    return Path(PAGES) if "://" in root else Path(root) / PAGES


def _together(runs: Sequence[Run]) -> str:
    """A name for several runs in their order."""
    return sha256(" ".join(run.name for run in runs).encode())[:12]


def _sweep_page(runs: Sequence[Run], store: Store, sweep: str) -> str:
    from experiments.report import sweep_page

    noted = store.sweeps()[sweep]
    return sweep_page(runs, _asked(store, sweep), noted.get("command", ""), noted.get("points", 0))


def _asked(store: Store, sweep: str) -> str:
    what = store.sweeps()[sweep]["what"]
    return (
        " ".join(what) if isinstance(what, list) else ", ".join(f"{name} in {values}" for name, values in what.items())
    )


def _list(store: Store, given: argparse.Namespace) -> int:
    if given.sweeps:
        for name, note in store.sweeps().items():
            print(f"{name}  {note['experiment']}  {_asked(store, name)}")
        return 0
    frame = store.frame(given.experiment, given.sweep)
    if frame.empty:
        print(f"there are no runs of {given.experiment or 'anything'} in {store.root}")
        return 0
    varied = [
        name
        for name in frame.columns
        if name in ("key", "experiment", "seconds") or frame[name].nunique(dropna=False) > 1
    ]
    print((frame if given.all else frame[varied]).to_string(index=False, na_rep="", float_format=lambda x: f"{x:.4g}"))
    return 0


def _show(store: Store, given: argparse.Namespace) -> int:
    run = store.find(given.key)
    print(f"{run.name}\n{run.question}\n{run.answer}\n")
    for title, values in (("options", run.config), ("numbers", run.numbers)):
        print(
            title,
            *(
                f"  {name} = {value:.4g}" if isinstance(value, float) else f"  {name} = {value}"
                for name, value in values.items()
            ),
            sep="\n",
        )
    print(
        "checks",
        *(f"  {c['status']:7} {c['name']}: {c['value']:.3g}, threshold {c['threshold']:.3g}" for c in run.checks),
        sep="\n",
    )
    print("files", *(f"  {name}" for name in run.manifest["files"]), sep="\n")
    if given.log:
        print(run.log)
    return 0


def _diff(store: Store, given: argparse.Namespace) -> int:
    runs = [store.find(given.key), store.find(given.other)]
    found = differences(runs)
    for part, rows in found.items():
        for name, (a, b) in rows.items():
            mark = "" if a != b else "  (same)"
            print(f"{part:8}  {name}: {_short(a)} -> {_short(b)}{mark}")
    for name, apart in largest_differences(runs[0].arrays, runs[1].arrays).items():
        print(
            f"arrays    {name}: {'the same' if apart == 0 else 'not comparable' if apart == float('inf') else f'{apart:.2e} apart'}"
        )
    return 0


def _rerun(store: Store, given: argparse.Namespace) -> int:
    from experiments.lab.keeping import repeat

    old = store.find(given.key)
    key, arrays = repeat(old, store)
    apart = largest_differences(old.arrays, arrays)
    for name, value in apart.items():
        print(f"{name}: {value:.2e} of its largest value apart" if value < float("inf") else f"{name}: not comparable")
    if key != old.key:
        print(f"kept as {old.experiment}/{key}: its code, version, model or data is another than in {old.name}")
    same = max(apart.values(), default=0.0) <= _SAME
    print("the same numbers" if same else f"other numbers (more than {_SAME:g} apart)")
    return 0 if same else 1


def _verify(store: Store, given: argparse.Namespace) -> int:
    if not store.experiments():
        raise ValueError(f"there is nothing to verify in {store.root}; is it the right --store?")
    problems = store.verify()
    for problem in problems:
        print(problem)
    runs = store.runs()
    files = sum(1 + len(run.manifest["files"]) for run in runs)
    print(
        f"{len(problems)} files are not what they were"
        if problems
        else f"every file is what it was: {files} of {len(runs)} runs"
    )
    return 1 if problems else 0


def _gc(store: Store, given: argparse.Namespace) -> int:
    found = store.gc(given.hours * 3600, given.dry)
    print(*found, f"{len(found)} leftovers {'found' if given.dry else 'removed'}", sep="\n")
    return 0


def _page(store: Store, given: argparse.Namespace) -> int:
    runs = store.runs(sweep=given.sweep) if given.sweep else [store.find(key) for key in given.keys]
    if not runs:
        raise ValueError("give the keys of runs, or --sweep NAME")
    print(f"page: {write_page(runs, given.store, given.page, given.sweep)}")
    return 0


def _compare(store: Store, given: argparse.Namespace) -> int:
    from experiments.report import comparison_page, write

    runs = [store.find(key) for key in given.keys]
    file = Path(given.page) if given.page else pages(given.store) / f"compare-{_together(runs)}.html"
    print(f"page: {write(file, comparison_page(runs))}")
    return 0


def _pictures(store: Store, given: argparse.Namespace) -> int:
    from experiments.report import pictures

    print(pictures([store.find(key) for key in given.keys], Path(given.folder), given.formats.split(",")))
    return 0


def _harvest(store: Store, given: argparse.Namespace) -> int:
    from experiments.lab.harvest import harvest
    from experiments.lab.options import OnModel, configured
    from experiments.lab.subjects import lines_of

    texts = lines_of(given.file)
    sites = [word for word in given.words if "=" not in word]
    cfg = configured(OnModel, [word for word in given.words if "=" in word])
    kept = harvest(cfg, texts, sites, store, given.shard, precision=given.precision, on=given.on, jobs=given.jobs)
    print(f"{len(kept)} tokens of {len(texts)} texts in {len(kept.shards)} shards of {store.root}/activations")
    return 0


def _gallery(store: Store, given: argparse.Namespace) -> int:
    from experiments.lab.gallery import gallery

    return gallery(store, given.overrides, Path(given.page) if given.page else pages(given.store) / "index.html")


def _export(store: Store, given: argparse.Namespace) -> int:
    from experiments.lab import exporters

    print(exporters.EXPORTERS[given.to](store.find(given.key), given.project))
    return 0


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
