"""The commands on what is stored, and what each understands."""

import argparse
import os

COMMANDS = {
    "list": "the runs of the store, of one experiment or of one sweep",
    "show": "what a run found, with its checks",
    "diff": "in what two runs differ",
    "rerun": "run a stored config again, and compare",
    "verify": "read every file again and name what is corrupted",
    "gc": "remove what killed processes left",
    "page": "write the page of runs or of a sweep again",
    "compare": "write a page with runs side by side",
    "pictures": "write a run's figures as PNG or SVG",
    "gallery": "run every experiment and write one page of all",
    "harvest": "keep a model's activations on a file of texts, in shards",
    "export": "copy a run to wandb or mlflow",
}


def parser_of(name: str) -> argparse.ArgumentParser:
    """What a command understands."""
    parser = argparse.ArgumentParser(prog=f"python -m experiments {name}", description=COMMANDS[name])
    add_store(parser)
    if name in ("show", "diff", "rerun", "export"):
        parser.add_argument("key", help="a run's key, or how it begins")
    if name in ("page", "compare", "pictures"):
        parser.add_argument("keys", nargs="*" if name == "page" else "+", help="keys of runs, or how they begin")
    if name in ("page", "compare", "gallery"):
        parser.add_argument("--page", default="", metavar="FILE", help="where to write it")
    if name == "list":
        parser.add_argument("experiment", nargs="?", default="", help="of this experiment only")
        parser.add_argument("--all", action="store_true", help="all columns, not only those in which runs differ")
        parser.add_argument("--sweeps", action="store_true", help="the sweeps instead of the runs")
    if name in ("list", "page"):
        parser.add_argument("--sweep", default="", help="of this sweep only")
    _more(name, parser)
    return parser


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def add_store(parser: "argparse._ActionsContainer") -> None:
    """The flag that says where runs are; a shell leaves the ~ of --store=~/x to us."""
    at = "folder, or s3://bucket/prefix (default: runs)"
    parser.add_argument("--store", default="runs", type=os.path.expanduser, metavar="STORE", help=at)


def _more(name: str, parser: argparse.ArgumentParser) -> None:
    if name == "show":
        parser.add_argument("--log", action="store_true", help="with its log")
    if name == "diff":
        parser.add_argument("other", help="the other run's key")
    if name == "gc":
        parser.add_argument("--hours", type=float, default=24.0, help="what was written to since stays (default: 24)")
        parser.add_argument("--dry", action="store_true", help="only say what would be removed")
    if name == "pictures":
        parser.add_argument("--folder", default="pictures", help="where to write them (default: pictures)")
        parser.add_argument("--formats", default="png", help="png, svg, pdf, with commas between (default: png)")
    if name == "gallery":
        parser.add_argument(
            "overrides", nargs="*", metavar="key=value", help="for every experiment that has this option"
        )
    if name == "harvest":
        parser.add_argument("file", help="a text on each line")
        parser.add_argument("words", nargs="+", metavar="SITE | key=value", help="resid_post.2, …; model=gpt2, …")
        parser.add_argument("--shard", type=int, default=256, help="texts in a shard (default: 256)")
        parser.add_argument("--precision", default="float16", choices=("float32", "float16", "bfloat16"))
        parser.add_argument("--on", default="here", help="joblib, submitit_local, submitit_slurm, ray; else here")
        parser.add_argument("--jobs", type=count, default=-1, help="at most so many at once")
    if name == "export":
        parser.add_argument("to", choices=("wandb", "mlflow"), help="where to copy it")
        parser.add_argument("--project", default="interp", help="the project or experiment there (default: interp)")
