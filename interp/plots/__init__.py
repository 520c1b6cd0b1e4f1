"""Labelled arrays to plotly figures."""

from interp.plots.circuit import circuit_graph as circuit_graph
from interp.plots.curves import bars as bars
from interp.plots.curves import distributions as distributions
from interp.plots.curves import lines as lines
from interp.plots.maps import heatmap as heatmap
from interp.plots.maps import triangle as triangle
