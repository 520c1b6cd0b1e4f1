"""Circuits: which edges between heads, MLPs and logits carry what distinguishes two prompts?"""

from interp.circuits.attribution import eap as eap
from interp.circuits.attribution import eap_ig as eap_ig
from interp.circuits.criteria import completeness as completeness
from interp.circuits.criteria import minimality as minimality
from interp.circuits.curves import areas as areas
from interp.circuits.evaluation import evaluate as evaluate
from interp.circuits.evaluation import faithfulness as faithfulness
from interp.circuits.export import from_json as from_json
from interp.circuits.export import to_dot as to_dot
from interp.circuits.export import to_json as to_json
from interp.circuits.export import to_networkx as to_networkx
from interp.circuits.hypotheses import hypothesis_tests as hypothesis_tests
from interp.circuits.patching import graph as graph
from interp.circuits.patching import patch_each_edge as patch_each_edge
from interp.circuits.patching import patch_edges as patch_edges
from interp.circuits.paths import path_patch as path_patch
from interp.circuits.scrubbing import Rule as Rule
from interp.circuits.scrubbing import scrub as scrub
from interp.circuits.search import acdc as acdc
from interp.circuits.search import learn_mask as learn_mask
from interp.circuits.selection import prune as prune
from interp.circuits.selection import random_circuits as random_circuits
from interp.circuits.selection import select as select
from interp.circuits.selection import stability as stability
from interp.circuits.verification import verify as verify
