"""Mechanistic interpretability of small language models: run, read, edit, measure."""

from interp.backends import load as load
from interp.edits import Edit as Edit
from interp.model import Model as Model
from interp.sites import Site as Site
from interp.traces import Tokens as Tokens
from interp.traces import Trace as Trace
