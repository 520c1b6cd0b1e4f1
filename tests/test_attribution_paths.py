"""Conductance and continuations, against sums that must hold and captum."""

import copy

import pytest
import tiny
import torch
from conftest import load
from test_attribution import CLEAN, CORRUPT, EMBED, METRIC, known
from torch.testing import assert_close

import interp
from interp import Site, attribution, metrics, tasks
from interp.arrays import checks_of
from interp.quadrature import chebyshev_derivative, clenshaw_curtis, gauss_legendre

PROMPT, OTHER = "when Mary and John went to the store , John gave", "when Mary and John went to the park , Anna gave"
FOLLOWS, INSTEAD = "Mary a ball .", "Anna the drink ,"


@pytest.mark.parametrize("rule", [clenshaw_curtis(8), gauss_legendre(5)])
def test_rules_integrate_polynomials_and_their_derivative(rule):
    points, weights = (torch.tensor(x, dtype=torch.float64) for x in (rule.points, rule.weights))
    for power in range(10):
        assert_close((weights * points**power).sum(), torch.tensor(1 / (power + 1), dtype=torch.float64))


def test_finer_points_hold_the_coarser_and_derivatives_are_exact():
    points = torch.tensor(clenshaw_curtis(8).points, dtype=torch.float64)
    assert_close(points[::2], torch.tensor(clenshaw_curtis(4).points, dtype=torch.float64))
    assert_close(torch.from_numpy(chebyshev_derivative(8)) @ points**6, 6 * points**5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_conductance_of_neurons_and_heads_adds_up_to_that_of_their_layer(family):
    model = load(family, dtype=torch.float64)
    call = lambda kind, over: known(
        attribution.conductance(model, CLEAN, CORRUPT, model.sites(kind), METRIC, over=over, tolerance=1e-4, most=64)
    )
    assert_close(call("mlp_post", ["neuron"]).sum(1), call("mlp_out", []), atol=1e-9, rtol=0)
    assert_close(call("z", ["head"]).sum(1), call("attn_out", []), atol=1e-9, rtol=0)


def test_conductance_of_a_prompt_is_what_it_is_alone():
    model = load("gpt2", dtype=torch.float64)
    call = lambda which, metric: known(
        attribution.conductance(
            model, [CLEAN[i] for i in which], [CORRUPT[i] for i in which], model.sites("z"), metric, over=["head"]
        )
    )
    alone = [call([i], metrics.logit_diff(right, wrong)) for i, (right, wrong) in enumerate([(3, 9), (7, 12)])]
    assert_close(call([0, 1], METRIC), torch.cat(alone, -1), atol=1e-9, rtol=0)


def test_conductance_of_the_stream_is_the_change_in_the_metric():
    model = load("gpt2", dtype=torch.float64)
    found = attribution.conductance(model, CLEAN, CORRUPT, model.sites("resid_post"), METRIC)
    change = METRIC(model.run(CLEAN)) - METRIC(model.run(CORRUPT))
    assert_close(known(found).sum(1), change.expand(3, -1), atol=1e-3, rtol=1e-3)
    assert [check.status for check in checks_of(found)] == ["pass", "pass"]


def test_conductance_is_the_limit_of_captum_s():
    from captum.attr import LayerConductance

    module = tiny.build("gpt2", torch.float64)
    model = interp.load(module, tokenizer=tiny.tokenizer())
    start, end = (model.run(text, read=[EMBED])[EMBED].detach() for text in (OTHER, PROMPT))
    of_last = lambda embedded: module(inputs_embeds=embedded).logits[:, -1, 3]
    theirs = LayerConductance(of_last, module.transformer.h[1].mlp.act).attribute(end, start, n_steps=400).detach()
    ours = attribution.conductance(
        model, PROMPT, OTHER, [Site("mlp_post", 1)], metrics.logit(3), over=["pos", "neuron"], tolerance=1e-4
    )
    assert_close(known(ours)[0, ..., 0], theirs[0], atol=5e-3 * float(theirs.abs().max()), rtol=0)


def test_conductance_above_a_path_in_the_middle_is_the_change_that_path_makes():
    model, path = load("llama", dtype=torch.float64), Site("resid_pre", 1)
    found = attribution.conductance(model, CLEAN, CORRUPT, [Site("resid_post", 1)], METRIC, path=path, tolerance=1e-4)
    own = attribution.integrated_gradients(model, CLEAN, CORRUPT, path, METRIC)
    assert_close(known(found).sum((0, 1)), torch.from_numpy(own.change.values), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_continuation_equals_captum(family):
    from captum.attr import LayerIntegratedGradients, LLMGradientAttribution, TextTokenInput

    module, words = tiny.build(family, torch.float64), tiny.tokenizer()
    model = interp.load(module, tokenizer=words)
    method = LLMGradientAttribution(LayerIntegratedGradients(module, module.get_input_embeddings()), words)
    asked, follows = TextTokenInput(PROMPT, words, baselines=5), torch.tensor(words(FOLLOWS).input_ids)
    theirs = method.attribute(asked, target=follows, n_steps=12).token_attr
    filler = torch.full_like(model.tokens(PROMPT).ids, 5)
    ours = attribution.of_continuation(model, PROMPT, filler, FOLLOWS, steps=12)
    assert ours.dims == ("target", "pos", "prompt")
    assert_close(known(ours)[:, : theirs.shape[1], 0], theirs.double(), atol=1e-6, rtol=0)
    assert float(known(ours)[:, theirs.shape[1] :].abs().max()) == 0  # what follows is not moved


def test_the_whole_is_the_sum_of_its_targets_and_a_contrast_their_difference():
    model = load("gpt2", dtype=torch.float64)
    call = lambda **more: known(attribution.of_continuation(model, PROMPT, OTHER, FOLLOWS, steps=6, **more))
    assert_close(call(whole=True), call().sum(0))
    contrast = call(instead=INSTEAD)
    tokens = model.tokens(f"{PROMPT} {FOLLOWS}")
    longer = tokens.ids[:, :-1]
    corrupt = torch.cat([model.tokens(OTHER).ids, model.tokens(FOLLOWS).ids[:, :-1]], 1)
    for i in range(4):
        right, wrong = (model.tokens(text).ids[0, i] for text in (FOLLOWS, INSTEAD))
        each = [
            attribution.integrated_gradients(
                model, longer, corrupt, EMBED, metrics.log_prob(int(token)).reading(i - 4), steps=6
            )
            for token in (right, wrong)
        ]
        assert_close(contrast[i], known(each[0]) - known(each[1]), atol=1e-9, rtol=1e-9)


def test_a_word_has_no_share_in_what_came_before_it():
    model = load("llama")
    mean = attribution.mean_baseline(model, PROMPT)
    scores = attribution.of_continuation(model, PROMPT, mean, FOLLOWS, own=True)
    values, length = known(scores)[..., 0], model.tokens(PROMPT).ids.shape[1]
    own = values[:, length:]  # the second target is the first to follow a word of the continuation
    assert float(own.triu().abs().max()) == 0 and bool((own.diagonal(-1).abs() > 1e-4).all())
    assert float(scores.error.max()) <= 1e-3
    still = known(attribution.of_continuation(model, PROMPT, mean, FOLLOWS, steps=4))[..., 0]
    assert float(still[:, length:].abs().max()) == 0 < float(still[:, :length].abs().min(1).values.max())


def test_targets_are_named_by_their_words(embedded):
    names = ["Mary", "John"]
    task = interp.tasks.ioi(embedded, n=2)
    both = attribution.integrated_gradients(
        embedded, task.clean, task.corrupt, EMBED, attribution.targets(embedded, names), steps=4
    )
    assert both.metric.values.tolist() == names
    one = metrics.log_prob(embedded.token_id("John"))
    alone = attribution.integrated_gradients(embedded, task.clean, task.corrupt, EMBED, one, steps=4)
    assert_close(known(both.sel(metric="John")), known(alone))


ERRORS = {
    "sites below the path": (
        lambda m: attribution.conductance(m, CLEAN, CORRUPT, [EMBED], METRIC),
        "embed does not come after embed, which moves; choose later sites, or another path",
    ),
    "continuations of two lengths": (
        lambda m: attribution.of_continuation(m, CLEAN, CORRUPT, ["Mary", "a ball"]),
        "2 prompts need one continuation, or 2, all of one length; their lengths are [1, 2]",
    ),
    "too few words instead": (
        lambda m: attribution.of_continuation(m, PROMPT, OTHER, "Mary .", instead="John"),
        "2 tokens follow, but 1 were given instead of them; give as many",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_message(case):
    call, message = ERRORS[case]
    with pytest.raises(ValueError) as caught:
        call(load("gpt2"))
    assert caught.value.args[0] == message


def test_conductance_in_half_precision_is_near_that_in_single(embedded):
    half = interp.load(copy.deepcopy(embedded.module).bfloat16(), tokenizer=embedded.tokenizer, bos=embedded.bos)
    found = []
    for model in (embedded, half):
        task = tasks.greater_than(model, n=4)
        of_heads = dict(metric=task.logit_diff, over=["head"], most=256)
        found.append(attribution.conductance(model, task.clean, task.corrupt, model.sites("z"), **of_heads))
    (check,) = checks_of(found[1])
    assert check.threshold == 0.05 and check.status == "pass"
    axes = ("layer", "head")
    assert float((abs(found[1] - found[0]).max(axes) / abs(found[0]).max(axes)).max()) < 0.05
