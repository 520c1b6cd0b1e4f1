"""Attribution: how much does each part of a site, or each word, move a metric?"""

from interp.attribution.baselines import mean_baseline as mean_baseline
from interp.attribution.integrated import integrated_gradients as integrated_gradients
