"""The scorecard: every method, scored against models whose answers are known; `python -m interp.zoo.scorecard`."""

from interp.zoo.scorecard.rows import Row as Row
from interp.zoo.scorecard.rows import as_array as as_array
from interp.zoo.scorecard.rows import as_text as as_text
from interp.zoo.scorecard.score import SECTIONS as SECTIONS
from interp.zoo.scorecard.score import Size as Size
from interp.zoo.scorecard.score import score as score
