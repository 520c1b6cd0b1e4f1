"""Labelled arrays to plotly figures."""

from interp.plots.circuit import circuit_graph as circuit_graph
from interp.plots.curves import bars as bars
from interp.plots.curves import distributions as distributions
from interp.plots.curves import lines as lines
from interp.plots.curves import scatter as scatter
from interp.plots.doses import doses as doses
from interp.plots.maps import heatmap as heatmap
from interp.plots.maps import triangle as triangle
from interp.plots.probes import probes as probes
from interp.plots.text import TextView as TextView
from interp.plots.text import token_map as token_map
from interp.plots.text import token_text as token_text
from interp.plots.words import trajectories as trajectories
from interp.plots.words import words as words
