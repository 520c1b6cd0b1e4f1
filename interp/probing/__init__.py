"""Linear probes: what can be read off each place, how much more than chance, and does the model use it?"""

from interp.probing.activations import Activations as Activations
from interp.probing.activations import Place as Place
from interp.probing.activations import collect as collect
from interp.probing.activations import load as load
from interp.probing.causal import use as use
from interp.probing.ccs import ccs as ccs
from interp.probing.ccs import ccs_directions as ccs_directions
from interp.probing.controls import untrained as untrained
from interp.probing.das import das as das
from interp.probing.erasure import Eraser as Eraser
from interp.probing.erasure import inlp as inlp
from interp.probing.erasure import leace as leace
from interp.probing.erasure import verify as verify
from interp.probing.probe import Probe as Probe
from interp.probing.probe import accuracy as accuracy
from interp.probing.probe import fit as fit
from interp.probing.probe import probe_at as probe_at
from interp.probing.report import probe as probe
