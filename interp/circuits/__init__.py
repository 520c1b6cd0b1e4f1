"""Circuits: which edges between heads, MLPs and logits carry what distinguishes two prompts?"""

from interp.circuits.attribution import eap as eap
from interp.circuits.attribution import eap_ig as eap_ig
from interp.circuits.patching import graph as graph
from interp.circuits.patching import patch_each_edge as patch_each_edge
from interp.circuits.patching import patch_edges as patch_edges
