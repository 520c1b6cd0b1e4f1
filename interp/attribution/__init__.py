"""Attribution: how much does each part of a site, or each word, move a metric?"""

from interp.attribution.flow import relevance as relevance
from interp.attribution.flow import rollout as rollout
from interp.attribution.integrated import integrated_gradients as integrated_gradients
from interp.attribution.knockout import knock_out as knock_out
from interp.attribution.linearised import MLP as MLP
from interp.attribution.linearised import linearised as linearised
