"""Attribution: how much does each part of a site, or each word, move a metric?"""

from interp.attribution.baselines import mean_baseline as mean_baseline
from interp.attribution.conductance import conductance as conductance
from interp.attribution.faithfulness import baseline_sensitivity as baseline_sensitivity
from interp.attribution.faithfulness import curves as curves
from interp.attribution.flow import relevance as relevance
from interp.attribution.flow import rollout as rollout
from interp.attribution.function import SiteFunction as SiteFunction
from interp.attribution.integrated import integrated_gradients as integrated_gradients
from interp.attribution.knockout import knock_out as knock_out
from interp.attribution.linearised import MLP as MLP
from interp.attribution.linearised import linearised as linearised
from interp.attribution.methods import by_captum as by_captum
from interp.attribution.methods import feature_ablation as feature_ablation
from interp.attribution.methods import gradient_shap as gradient_shap
from interp.attribution.methods import gradient_x_input as gradient_x_input
from interp.attribution.methods import occlusion as occlusion
from interp.attribution.methods import saliency as saliency
from interp.attribution.methods import shapley as shapley
from interp.attribution.methods import smooth_grad as smooth_grad
from interp.attribution.randomisation import randomisation as randomisation
from interp.attribution.randomisation import reinitialised as reinitialised
from interp.attribution.sequences import of_continuation as of_continuation
from interp.attribution.sequences import targets as targets
from interp.attribution.subsets import sufficient_subsets as sufficient_subsets
