"""The command line: which experiment or command is meant, and help that imports nothing heavy."""

import argparse
import logging
import sys
from collections.abc import Sequence

from experiments.lab import commands, logs
from experiments.lab.command_options import add_store, count
from experiments.lab.experiment import Experiment, find, shipped
from experiments.lab.options import chosen, describe

_USAGE = """usage: python -m experiments NAME [key=value ...] [options]
       python -m experiments COMMAND ...

Each experiment asks one question. What it finds is kept in a store and is not computed again.
"""
_EXAMPLES = """
examples
  python -m experiments indirect_object n=16            one run, and its page
  python -m experiments indirect_object --help          what can be set
  python -m experiments indirect_object model=gpt2      on another model
  python -m experiments self_repair -m task=ioi,facts 'seed=range(0,5)'            a sweep of ten points
  python -m experiments sentiment_steering --maximize response --trials 30 'dose=interval(0,4)' layer=0,1,2,3
  python -m experiments ./my_question.py n=8            an experiment of your own, in any folder

exit code: 0 if all is well, 1 if something was found wrong, 2 for a mistake in the command, 130 after Ctrl-C
"""


def main(arguments: Sequence[str]) -> int:
    """Run a command line; return its exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    name, *rest = arguments
    try:
        if name in commands.COMMANDS:
            return commands.run(name, rest)
        experiment = find(name)
        if {"-h", "--help"} & set(rest):
            print(help_of(experiment))
            return 0
        return _run(experiment, name, rest)
    except KeyboardInterrupt:
        print("\nstopped; what was finished is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        logging.getLogger("experiments").debug("", exc_info=True)
        print(f"python -m experiments {name}: {error}", file=sys.stderr)
        return 2


def overview() -> str:
    """What there is: experiments with their questions, and commands."""
    found = shipped()
    wide = max(map(len, [*found, *commands.COMMANDS]))
    lines = [_USAGE, "experiments", *(f"  {name:{wide}}  {question}" for name, question in found.items())]
    lines += ["", "commands", *(f"  {name:{wide}}  {about}" for name, about in commands.COMMANDS.items())]
    return "\n".join(lines) + "\n" + _EXAMPLES


def help_of(experiment: Experiment) -> str:
    """The options of an experiment: type, default, meaning."""
    options = describe(experiment.config)
    types, defaults = (
        [*map(str, column)] for column in ([o.type for o in options], [_shown(o.default) for o in options])
    )
    wide = [max(map(len, column)) for column in ([o.name for o in options], types, defaults)]
    lines = [
        f"  {option.name:{wide[0]}}  {type_:{wide[1]}}  {default:{wide[2]}}  {option.meaning}{' *' if option.where else ''}"
        for option, type_, default in zip(options, types, defaults)
    ]
    about = (experiment.module.__doc__ or "").strip()
    head = f"{experiment.question}\n\n{about}\n\noptions, as key=value: name, type, default, meaning"
    return "\n".join(
        [head, *lines, "", "* says where to run; results do not depend on it", "", _parser("NAME").format_help()]
    )


def _run(experiment: Experiment, name: str, rest: Sequence[str]) -> int:
    given, overrides = _parser(name).parse_known_args(rest)
    if any(word.startswith("--trials") for word in rest) and not given.maximize and not given.minimize:
        raise ValueError("--trials is for a search: say what is to be largest or smallest, by --maximize or --minimize")
    if (given.maximize or given.minimize) and not overrides:
        raise ValueError("a search needs options to vary, such as layer=0,1,2 or 'dose=interval(0,4)'; see --help")
    if wrong := [word for word in overrides if "=" not in word and not word.startswith("~")]:
        raise ValueError(f"{wrong[0]!r} is neither an option (key=value) nor a flag; see --help")
    for word in overrides:  # Hydra adds what is not there, to a config that takes nothing more
        added = word.lstrip("+").partition("=")[0]
        if word.startswith("+") and not added.startswith("hydra"):
            chosen([added], [option.name for option in describe(experiment.config)], "options")
    logs.show(given.verbose)
    try:
        from experiments.lab import hydra_layer
    except ImportError as error:
        raise ValueError(f"the command line needs Hydra ({error}): pip install 'interp[sweep]'") from None
    return hydra_layer.launch(experiment, name, overrides, given)


def _parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m experiments {name}", usage=argparse.SUPPRESS, add_help=False)
    group = parser.add_argument_group("flags")
    group.add_argument("-m", "--multirun", action="store_true", help="a sweep: n=8,16 'seed=range(0,5)'")
    group.add_argument(
        "--on", default="here", metavar="ENGINE", help="joblib, submitit_local, submitit_slurm, ray; else here"
    )
    group.add_argument("--jobs", type=count, default=0, metavar="N", help="at most so many at once")
    group.add_argument(
        "--maximize", default="", metavar="NUMBER", help="search for the largest value of one of its numbers"
    )
    group.add_argument("--minimize", default="", metavar="NUMBER", help="search for the smallest")
    group.add_argument("--trials", type=count, default=20, metavar="N", help="how many points a search tries in all")
    add_store(group)
    group.add_argument("--page", default="", metavar="FILE", help="where to write the page (default: beside the store)")
    group.add_argument("--no-page", action="store_true", help="write none")
    group.add_argument("-v", "--verbose", action="store_true", help="show what it logs")
    return parser


def _shown(default: object) -> str:
    return repr(default) if default == "" else str(default)
