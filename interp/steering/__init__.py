"""Steering vectors: which direction writes a concept, how strongly does it act, and what else does it do?

From prompts to a vector (`contrast_pairs`, `labelled_set`, `extract`, `scan`); from a vector to edits (`steer`,
`applied`, `preview`); whether it works, and what it costs (`dose_response`, `side_effects`, `tune`, `evaluate`,
`slopes`, `specificity`); what it is made of (`top_tokens`, `writers`, `readers`); and to files and back (`save`,
`load`, `export_gguf`, `import_gguf`).
"""

from interp.steering.application import CHOOSING as CHOOSING
from interp.steering.application import OPERATORS as OPERATORS
from interp.steering.application import Condition as Condition
from interp.steering.application import Setting as Setting
from interp.steering.application import steer as steer
from interp.steering.artefact import content_hash as content_hash
from interp.steering.artefact import load as load
from interp.steering.artefact import save as save
from interp.steering.comparison import prefixed as prefixed
from interp.steering.comparison import specificity as specificity
from interp.steering.concept import Concept as Concept
from interp.steering.concept import contrast_pairs as contrast_pairs
from interp.steering.concept import labelled_set as labelled_set
from interp.steering.estimators import METHODS as METHODS
from interp.steering.evaluation import dose_response as dose_response
from interp.steering.evaluation import side_effects as side_effects
from interp.steering.evaluation import slopes as slopes
from interp.steering.explanation import readers as readers
from interp.steering.explanation import top_tokens as top_tokens
from interp.steering.explanation import writers as writers
from interp.steering.extraction import extract as extract
from interp.steering.extraction import extract_each as extract_each
from interp.steering.extraction import mean_difference as mean_difference
from interp.steering.extraction import permuted_like as permuted_like
from interp.steering.gguf_files import export_gguf as export_gguf
from interp.steering.gguf_files import import_gguf as import_gguf
from interp.steering.nulls import random_like as random_like
from interp.steering.nulls import varied_like as varied_like
from interp.steering.scanning import projections as projections
from interp.steering.scanning import scan as scan
from interp.steering.selection import Tuned as Tuned
from interp.steering.selection import evaluate as evaluate
from interp.steering.selection import tune as tune
from interp.steering.vector import UNITS as UNITS
from interp.steering.vector import Vector as Vector
from interp.steering.view import applied as applied
from interp.steering.view import preview as preview
