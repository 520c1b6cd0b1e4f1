"""Command line: `python -m interp check [MODEL]` says whether a model is supported."""

import argparse
import sys

import interp


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m interp", description=__doc__)
    parser.add_argument("command", choices=["check"])
    parser.add_argument("model", nargs="?", help="hub name or local folder; the embedded model if left out")
    parser.add_argument("--backend", choices=interp.BACKENDS)
    args = parser.parse_args()
    report = interp.check(interp.load(args.model, backend=args.backend))
    print(report)
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
