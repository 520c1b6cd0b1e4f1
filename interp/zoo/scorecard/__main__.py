"""`python -m interp.zoo.scorecard docs/scorecard.md` scores every method; `--small` in a minute."""

import argparse
import sys
import time
from pathlib import Path

from interp.backends import load
from interp.version import __version__
from interp.zoo.scorecard.rows import as_array, as_text
from interp.zoo.scorecard.score import SMALL, Size, score

_HEAD = """# Scorecard

Every method against models whose answers are known: hand-set and compiled ones, and the embedded model, measured
exhaustively. ✗ marks what falls short of what is wanted. Made by `make scorecard`: version {version}, seed {seed},
{seconds:.0f} s.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m interp.zoo.scorecard", description=__doc__)
    parser.add_argument("out", type=Path, help="the page; the numbers go beside it as netCDF")
    parser.add_argument("--small", action="store_true", help="some models, few prompts")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    start = time.perf_counter()
    rows = score(SMALL if args.small else Size(), args.seed)
    seconds = time.perf_counter() - start
    head = _HEAD.format(version=__version__, seed=args.seed, seconds=seconds)
    args.out.write_text(f"{head}\n{as_text(rows)}")
    array = as_array(rows, load(), version=__version__, seed=args.seed)
    array.to_netcdf(args.out.with_suffix(".nc"), engine="h5netcdf")
    failed = [row for row in rows if row.status == "fail"]
    print(f"{args.out}: {len(rows)} numbers, {len(failed)} short of what is wanted, {seconds:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
