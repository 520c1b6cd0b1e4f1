"""Pages of finished runs: self-contained, readable offline, made again from the store alone at any time."""

from experiments.report.comparing import comparison_page as comparison_page
from experiments.report.page import write as write
from experiments.report.pictures import pictures as pictures
from experiments.report.running import gallery_page as gallery_page
from experiments.report.running import run_page as run_page
from experiments.report.sweeps import sweep_page as sweep_page
