"""Weights: what do heads read and write, by their matrices alone, and does their behaviour bear it out?"""

from interp.weights.behaviours import behaviour as behaviour
from interp.weights.compositions import composition as composition
from interp.weights.detectors import detect as detect
from interp.weights.matrices import Heads as Heads
from interp.weights.matrices import embedding as embedding
from interp.weights.matrices import heads as heads
from interp.weights.matrices import unembedding as unembedding
from interp.weights.singular import singular_vectors as singular_vectors
from interp.weights.tokens import ov as ov
from interp.weights.tokens import qk as qk
