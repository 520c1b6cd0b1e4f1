"""`python -m experiments NAME key=value ...`; see `python -m experiments --help`."""

import sys

from experiments.lab.command_line import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
