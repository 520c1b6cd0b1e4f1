"""Command line: `python -m interp check [MODEL]` says whether a model is supported."""

import argparse
import sys

import interp

_ABOUT = """Mechanistic interpretability of small language models.

  check    run the identities that define the sites on a model, in seconds, and say what holds"""
_NOTES = """examples:
  python -m interp check                              the embedded model
  python -m interp check ./my-model                   a folder written by save_pretrained
  python -m interp check gpt2 --backend nnsight       a hub name, through another backend

exit code: 0 if every identity holds, 1 if one does not, 2 if the model cannot be loaded"""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m interp", description=_ABOUT, epilog=_NOTES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["check"], metavar="check", help="what to do")
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="hub name or local folder; the embedded model if left out"
    )
    parser.add_argument("--backend", choices=interp.BACKENDS, help="the library that runs it (default: huggingface)")
    args = parser.parse_args()
    try:
        model = interp.load(args.model, backend=args.backend)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"{parser.prog} {args.command}: {error}", file=sys.stderr)
        return 2
    report = interp.check(model)
    print(report)
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
