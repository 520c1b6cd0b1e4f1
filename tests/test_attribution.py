"""Integrated gradients and captum's methods: closed forms, captum itself, what is known of the embedded language."""

import numpy as np
import pytest
import tiny
import torch
from conftest import load
from torch import nn
from torch.testing import assert_close

import interp
from interp import Site, Tokens, attribution, edits, metrics, stats, tasks
from interp.arrays import checks_of
from interp.attribution.baselines import _MAY_BE, baseline_of
from interp.metrics import Metric

EMBED = Site("embed")
CLEAN = ["when Mary and John went to the store , John gave", "the ball and Anna gave John the park"]
CORRUPT = ["when Mary and John went to the park , Anna gave", "the war and Anna gave John the store"]
RIGHT, WRONG = torch.tensor([3, 7]), torch.tensor([9, 12])
METRIC = metrics.logit_diff(RIGHT, WRONG)
SITES = [
    (EMBED, ["pos"]),
    (Site("resid_post", 0), ["pos"]),
    (Site("z", 1), ["head"]),
    (Site("mlp_post", 1), ["neuron"]),
]


def known(array) -> torch.Tensor:
    """A labelled array as a tensor, prompts last, zero at padding."""
    return torch.from_numpy(array.transpose(..., "prompt").values).nan_to_num(0)


def collected(values, site, over) -> torch.Tensor:
    """A tensor of a site summed over all axes but some and the prompts, these last."""
    others = [i for i, axis in enumerate(site.axes) if axis not in ("batch", *over)]
    return values.sum(others).movedim(0, -1)


def linear(dtype=torch.float64) -> interp.Model:
    """A model without norm whose blocks add nothing: logits are a matrix times embedding and position."""
    module = tiny.build("gpt2", dtype)
    module.transformer.ln_f = nn.Identity().eval()
    for block in module.transformer.h:
        for projection in (block.attn.c_proj, block.mlp.c_proj):
            for weight in projection.parameters():
                weight.data.zero_()
    return interp.load(module, tokenizer=tiny.tokenizer())


def last_words(model, texts):
    """The embeddings of each text's last word, on which alone a linear model's last logits depend."""
    return model.module.get_input_embeddings().weight.detach()[model.tokens(texts).ids[:, -1]]


LAST_CLEAN, LAST_CORRUPT = ["when Mary and John", "the ball Anna"], ["when Mary and Anna", "the war park"]


@pytest.mark.parametrize("steps", [1, 3, None])
def test_a_linear_model_is_exact_in_any_number_of_steps(steps):
    model = linear()
    scores = attribution.integrated_gradients(
        model, LAST_CLEAN, LAST_CORRUPT, EMBED, METRIC, over=["pos", "d_model"], steps=steps
    )
    table = model.module.lm_head.weight.detach()
    x, b = last_words(model, LAST_CLEAN), last_words(model, LAST_CORRUPT)
    assert_close(known(scores)[-1].T, (x - b) * (table[RIGHT] - table[WRONG]), atol=1e-12, rtol=0)
    assert float(known(scores)[:-1].abs().max()) == 0
    assert steps is not None or scores.steps.values.tolist() == [5, 5]


def test_one_unit_of_relu_has_its_closed_form():
    model = linear()
    x, table = last_words(model, LAST_CLEAN), model.module.lm_head.weight.detach()
    plain = metrics.logit(RIGHT)(model.run(LAST_CLEAN))
    moved = plain - metrics.logit(RIGHT)(model.run(LAST_CLEAN, edits=[edits.zero(EMBED)]))  # w @ x
    threshold = plain - 0.37 * moved
    unit = Metric("unit", lambda logits: (logits.gather(-1, RIGHT[:, None])[:, 0] - threshold).relu())
    scores = attribution.integrated_gradients(model, LAST_CLEAN, torch.zeros(()), EMBED, unit, over=["pos", "d_model"])
    on = torch.where(moved > 0, 0.37, 0.63)  # the part of the way on which the unit is: the last, or the first
    assert_close(known(scores)[-1].T, on[:, None] * x * table[RIGHT], atol=2e-3, rtol=2e-2)
    assert bool((scores.error <= 1e-3).all())


def test_a_product_from_zero_has_its_closed_form():
    model = linear()
    model.module.transformer.wpe.weight.data.zero_()
    product = Metric("product", lambda logits: logits[:, 3] * logits[:, 9])
    zero, over = torch.zeros(()), ["pos", "d_model"]
    scores = attribution.integrated_gradients(model, LAST_CLEAN, zero, EMBED, product, over=over)
    x, table = last_words(model, LAST_CLEAN), model.module.lm_head.weight.detach()
    a, b = x @ table[3], x @ table[9]
    assert_close(known(scores)[-1].T, x * (table[3] * b[:, None] + table[9] * a[:, None]) / 2, atol=1e-12, rtol=0)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "opt"])
def test_at_the_embedding_it_equals_captum(family):
    from captum.attr import LayerIntegratedGradients

    module = tiny.build(family, torch.float64)
    model = interp.load(module, tokenizer=tiny.tokenizer())
    clean, corrupt = model.tokens(CLEAN), model.tokens(CORRUPT)

    def logits(ids, mask, right, wrong):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        more = {} if family == "opt" else {"position_ids": positions}
        last = module(input_ids=ids, attention_mask=mask, **more).logits[:, -1]
        return (last.gather(1, right[:, None]) - last.gather(1, wrong[:, None]))[:, 0]

    theirs = LayerIntegratedGradients(logits, module.get_input_embeddings()).attribute(
        clean.ids, baselines=corrupt.ids, additional_forward_args=(clean.mask, RIGHT, WRONG), n_steps=20
    )
    ours = attribution.integrated_gradients(model, clean, corrupt, EMBED, METRIC, steps=20)
    assert_close(known(ours), theirs.sum(-1).detach().T, atol=1e-6, rtol=0)


@pytest.mark.parametrize("site, over", SITES)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_at_any_site_and_on_any_backend_it_equals_captum_through_the_adapter(family, backend, site, over):
    from captum.attr import IntegratedGradients

    model = load(family, backend)
    start = model.run(CORRUPT, read=[site])[site]
    function = attribution.SiteFunction.of(model, CLEAN, site, METRIC)
    theirs = IntegratedGradients(function).attribute(
        function.value.requires_grad_(), baselines=start, additional_forward_args=(function.rows,), n_steps=6
    )
    ours = attribution.integrated_gradients(model, CLEAN, CORRUPT, site, METRIC, over=over, steps=6)
    padding = model.tokens(CLEAN).mask.reshape(len(CLEAN), -1, *(1,) * (start.ndim - 2))
    theirs = collected((theirs.detach() * padding), site, over)
    assert_close(known(ours), theirs, atol=1e-5 * float(theirs.abs().max().clamp(min=1)), rtol=0)


def test_the_function_takes_rows_in_any_number_and_order():
    model = load("gpt2")
    site = Site("resid_pre", 1)
    function = attribution.SiteFunction.of(model, CLEAN, site, METRIC)
    rows = torch.tensor([1, 0, 1, 1])
    value = function.value[rows] * torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None]
    for i, row in enumerate(rows.tolist()):
        tokens, metric = model.tokens(CLEAN).rows([row]), metrics.logit_diff(RIGHT[[row]], WRONG[[row]])
        alone = metric(model.run(tokens, edits=[edits.put(site, value[i : i + 1])]))
        assert_close(function(value, rows)[i : i + 1], alone, atol=1e-5, rtol=1e-5)


def test_steps_are_chosen_prompt_by_prompt_and_reach_what_many_steps_give(embedded):
    task = tasks.ioi(embedded, n=6, seed=4)
    call = lambda metric, clean, corrupt, **more: attribution.integrated_gradients(
        embedded, clean, corrupt, Site("resid_pre", 0), metric, **more
    )
    scores = call(task.logit_diff, task.clean, task.corrupt)
    assert len(set(scores.steps.values.tolist())) > 1
    exact = known(call(task.logit_diff, task.clean, task.corrupt, steps=400))
    assert float(((known(scores) - exact).abs().amax(0) / exact.abs().amax(0)).max()) < 5e-3
    i = int(scores.steps.argmin())
    metric = metrics.logit_diff(task.right[[i]], task.wrong[[i]])
    alone = call(metric, task.clean.rows([i]), task.corrupt.rows([i]))
    assert_close(known(alone)[:, 0], known(scores)[:, i], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["facts", "agreement", "ioi", "sentiment"])
def test_tasks_are_complete_from_the_corrupt_run(embedded, name):
    task = tasks.EMBEDDED[name](embedded, n=8, seed=2)
    scores = attribution.integrated_gradients(embedded, task.clean, task.corrupt, EMBED, task.logit_diff)
    change = task.logit_diff(embedded.run(task.clean)) - task.logit_diff(embedded.run(task.corrupt))
    assert float(((known(scores).sum(0) - change).abs() / change.abs()).max()) <= 1e-3
    assert [check.status for check in checks_of(scores)] == ["pass"] * 3


def test_a_site_that_others_bypass_is_complete_against_its_own_reference():
    model, site = load("llama"), Site("mlp_out", 1)
    scores = attribution.integrated_gradients(model, CLEAN, CORRUPT, site, METRIC)
    corrupt = model.run(CORRUPT, read=[site])
    change = METRIC(model.run(CLEAN)) - METRIC(model.run(CLEAN, edits=[edits.copy(corrupt, site)]))
    assert_close(known(scores).sum(0), change, atol=1e-3 * float(change.abs().max()), rtol=0)


def test_several_baselines_and_metrics_are_what_each_is_alone():
    model = load("gpt2")
    mean = attribution.mean_baseline(model, CLEAN)
    both = [METRIC, metrics.logit(4)]
    call = lambda baseline, metric: attribution.integrated_gradients(model, CLEAN, baseline, EMBED, metric, steps=7)
    every = call({"mean": mean, "corrupt": CORRUPT}, both)
    assert every.dims == ("baseline", "metric", "pos", "prompt")
    for name, baseline in {"mean": mean, "corrupt": CORRUPT}.items():
        for metric in both:
            one = every.sel(baseline=name, metric=metric.name)
            assert_close(known(one), known(call(baseline, metric)), atol=1e-6, rtol=1e-5)
    table = attribution.baseline_sensitivity(every.isel(metric=0, drop=True))
    assert_close(torch.from_numpy(table.sel(baseline="mean", other="mean").values), torch.ones(2, dtype=torch.float64))
    assert checks_of(every)[-1].name == "baseline agreement"


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("steps", [None, 50])
def test_a_zero_baseline_is_refused_where_a_norm_makes_it_a_jump(family, steps):
    model = load(family)
    call = lambda **more: attribution.integrated_gradients(
        model, CLEAN, torch.zeros(()), EMBED, METRIC, steps=steps, **more
    )
    with pytest.raises(ValueError, match=r"the path from 'baseline' to embed is degenerate: with \d+ points .* miss"):
        call()
    checks = {check.name: check for check in checks_of(call(refuse=False))}
    assert checks["completeness error"].status == checks["steepness at the baseline"].status == "fail"
    mean = attribution.integrated_gradients(model, CLEAN, attribution.mean_baseline(model, CLEAN), EMBED, METRIC)
    assert checks_of(mean)[0].status == "pass"


def test_a_budget_changes_nothing_but_the_passes():
    model = load("llama")
    call = lambda budget: attribution.integrated_gradients(model, CLEAN, CORRUPT, EMBED, METRIC, steps=9, budget=budget)
    assert_close(known(call(1)), known(call(2**30)), atol=2e-6, rtol=1e-5)


def test_only_the_blocks_above_the_site_are_run():
    model, rows = load("gpt2"), []
    call = lambda: attribution.integrated_gradients(model, CLEAN, CORRUPT, Site("resid_pre", 1), METRIC, steps=32)
    handle = model.blocks[0].register_forward_hook(lambda block, args, output: rows.append(len(args[0])))
    try:
        call()  # the first call with these hooks tries how rows can be run
        rows.clear()
        call()
    finally:
        handle.remove()
    assert sum(rows) == 3 * len(CLEAN)  # clean, corrupt, and the recording


def test_half_precision_is_integrated_to_what_it_can_tell():
    model = load("gpt2", dtype=torch.bfloat16)
    scores = attribution.integrated_gradients(model, CLEAN, CORRUPT, Site("resid_pre", 0), METRIC)
    fine = attribution.integrated_gradients(load("gpt2"), CLEAN, CORRUPT, Site("resid_pre", 0), METRIC)
    assert float((known(scores) - known(fine)).abs().max()) < 0.1 * float(known(fine).abs().max())


def test_roles_are_positions_by_name(embedded):
    task = tasks.ioi(embedded, n=4)
    call = lambda **more: attribution.integrated_gradients(
        embedded, task.clean, task.corrupt, EMBED, task.logit_diff, steps=4, **more
    )
    by_role, by_pos = known(call(roles=["S2", "IO"])), known(call())
    for i, role in enumerate(["S2", "IO"]):
        assert_close(by_role[i], by_pos[task.clean.roles[role], torch.arange(4)])


def test_gradients_times_input_and_their_like():
    model = load("llama")
    site = Site("resid_pre", 1)
    trace = model.run(CLEAN, read=[site], grad=True)
    (gradient,) = torch.autograd.grad(METRIC(trace).sum(), trace[site])
    product = collected(gradient * trace[site].detach(), site, ["pos"])
    assert_close(known(attribution.gradient_x_input(model, CLEAN, site, METRIC)), product, atol=1e-5, rtol=1e-4)
    size = collected(gradient.abs(), site, ["pos"])
    assert_close(known(attribution.saliency(model, CLEAN, site, METRIC)), size, atol=1e-5, rtol=1e-4)
    still = attribution.smooth_grad(model, CLEAN, site, METRIC, noise=0.0, draws=2)
    assert_close(known(still), product, atol=1e-5, rtol=1e-4)


def test_leaving_out_shapley_values_and_windows():
    model, site = load("gpt2"), Site("resid_pre", 1)
    call = lambda method, **more: known(method(model, CLEAN, CORRUPT, site, METRIC, **more))
    left_out = call(attribution.feature_ablation)
    corrupt = model.run(CORRUPT, read=[site])
    for pos in (-1, -3):
        change = METRIC(model.run(CLEAN)) - METRIC(model.run(CLEAN, edits=[edits.copy(corrupt, site, pos=pos)]))
        assert_close(left_out[pos], change, atol=1e-5, rtol=1e-4)
    whole = METRIC(model.run(CLEAN)) - METRIC(model.run(CLEAN, edits=[edits.copy(corrupt, site)]))
    assert_close(call(attribution.shapley, draws=3).sum(0), whole, atol=1e-5, rtol=1e-4)
    assert_close(call(attribution.occlusion, window=1), left_out, atol=1e-5, rtol=1e-4)
    heads = attribution.feature_ablation(model, CLEAN, CORRUPT, Site("z", 1), METRIC, over=["head"])
    z = model.run(CORRUPT, read=[Site("z", 1)])
    change = METRIC(model.run(CLEAN)) - METRIC(model.run(CLEAN, edits=[edits.copy(z, Site("z", 1), head=2)]))
    assert_close(known(heads)[2], change, atol=1e-5, rtol=1e-4)


def test_windows_lie_within_a_prompt_however_it_is_padded():
    model, site = load("gpt2"), Site("resid_pre", 1)
    metric = metrics.logit_diff(3, 4)
    call = lambda prompts, other: attribution.occlusion(model, prompts, other, site, metric, window=2)
    short, shorter = model.tokens(["I love it , you"]), model.tokens(["I hate it , you"])
    alone = known(call(short, shorter))
    wide = [
        Tokens(torch.nn.functional.pad(t.ids, (3, 0)), torch.nn.functional.pad(t.mask, (3, 0)))
        for t in (short, shorter)
    ]
    padded = call(*wide).values
    assert np.isnan(padded[:3]).all()
    assert_close(torch.from_numpy(padded[3:]), alone, atol=1e-5, rtol=1e-4)
    from captum.attr import Occlusion

    wanted = attribution.by_captum(
        model, short, site, metric, Occlusion, baseline=shorter, average=True,
        sliding_window_shapes=(2, model.shape.d_model), strides=(1, model.shape.d_model),
    )  # fmt: skip
    assert_close(alone, known(wanted), atol=1e-5, rtol=1e-4)


def test_the_scale_of_noise_is_that_of_tokens_without_padding():
    from captum.attr import InputXGradient, NoiseTunnel

    model, site = load("gpt2"), Site("resid_pre", 1)
    short = model.tokens(["I love it , you"])
    wide = Tokens(torch.nn.functional.pad(short.ids, (6, 0)), torch.nn.functional.pad(short.mask, (6, 0)))
    metric = metrics.logit_diff(3, 4)
    spread = 0.1 * float(model.run(short, read=[site])[site].std())
    wanted = attribution.by_captum(
        model, wide, site, metric, lambda f: NoiseTunnel(InputXGradient(f)), nt_samples=2, nt_samples_batch_size=1,
        stdevs=spread,
    )  # fmt: skip
    assert_close(
        known(attribution.smooth_grad(model, wide, site, metric, draws=2))[6:], known(wanted)[6:], atol=1e-6, rtol=1e-4
    )


def test_on_a_linear_model_all_methods_agree():
    model = linear()
    clean, corrupt = ["the ball Anna", "the ball John"], ["the ball park", "the ball park"]  # one and the same baseline
    expected = known(attribution.integrated_gradients(model, clean, corrupt, EMBED, METRIC, steps=1))
    for method, more in (
        (attribution.feature_ablation, {}), (attribution.shapley, {"draws": 2}), (attribution.gradient_shap, {})
    ):  # fmt: skip
        found = known(method(model, clean, corrupt, EMBED, METRIC, **more))
        assert_close(found.double(), expected, atol=1e-6, rtol=0)


def test_what_is_drawn_comes_from_the_seed_alone():
    model = load("gpt2")
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
    short = [CLEAN[0]]
    call = lambda seed: known(
        attribution.gradient_shap(model, short, [CORRUPT[0]], EMBED, metrics.logit(3), draws=2, seed=seed)
    )
    assert torch.equal(call(1), call(1)) and not torch.equal(call(1), call(2))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])


ERRORS = {
    "a baseline of another width": (
        lambda m: attribution.integrated_gradients(m, CLEAN, torch.zeros(5), EMBED, METRIC),
        "a baseline of (5,) does not broadcast to (2, 11, 32), which is embed of these prompts",
    ),
    "no baseline": (
        lambda m: attribution.integrated_gradients(m, CLEAN, {}, EMBED, METRIC),
        "no baseline was given; pass prompts, a tensor, or several of them by name",
    ),
    "an odd number of points": (
        lambda m: attribution.integrated_gradients(m, CLEAN, CORRUPT, EMBED, METRIC, most=100),
        "points are doubled up to a power of two, from 4 on; most=100 was given",
    ),
    "metrics of one name": (
        lambda m: attribution.integrated_gradients(m, CLEAN, CORRUPT, EMBED, [METRIC, METRIC]),
        "metrics need names that tell them apart, not ['logit difference', 'logit difference']; rename by "
        "dataclasses.replace",
    ),
    "a window of nothing": (
        lambda m: attribution.occlusion(m, CLEAN, CORRUPT, EMBED, METRIC, window=0),
        "windows are of 1 to 8 positions, the shortest prompt's, of a site that has them; window=0 at embed was given",
    ),
    "baselines of other lengths": (
        lambda m: attribution.gradient_shap(m, CLEAN, CORRUPT, EMBED, METRIC),
        "prompts of different lengths cannot be baselines of each other; give prompts of one length",
    ),
    "the name of a baseline": (
        lambda m: attribution.integrated_gradients(m, CLEAN, "zero", EMBED, METRIC),
        f"'zero' would be read as a prompt; {_MAY_BE}",
    ),
    "nothing for a baseline": (lambda m: baseline_of(None), f"{_MAY_BE}, not NoneType"),
    "a number": (lambda m: baseline_of(0), f"{_MAY_BE}, not int"),
    "several baselines for one": (lambda m: baseline_of({"zero": torch.zeros(32)}), f"{_MAY_BE}, not dict"),
    "integers of the site's width": (
        lambda m: attribution.integrated_gradients(m, CLEAN, torch.zeros(32, dtype=torch.long), EMBED, METRIC),
        f"integers of (32,) would be read as token ids, which are (2, 11) here; {_MAY_BE}",
    ),
    "a window wider than a prompt": (
        lambda m: attribution.occlusion(m, CLEAN, CORRUPT, EMBED, METRIC, window=9),
        "windows are of 1 to 8 positions, the shortest prompt's, of a site that has them; window=9 at embed was given",
    ),
    "rows of another width": (
        lambda m: attribution.SiteFunction.of(m, CLEAN, EMBED, METRIC)(torch.zeros(3, 11, 32)),
        "values at embed were (3, 11, 32) for 2 rows of (11, 32); where captum repeats rows, give it `rows` as well",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_message(case):
    call, message = ERRORS[case]
    with pytest.raises((ValueError, TypeError)) as caught:
        call(load("gpt2"))
    assert caught.value.args[0] == message


def test_an_array_of_numbers_is_a_baseline_as_a_tensor_is():
    model = load("gpt2")
    zeros = np.zeros(32, dtype=np.float32)
    for method in (attribution.integrated_gradients, attribution.occlusion):
        found, wanted = (method(model, CLEAN, kind, EMBED, METRIC) for kind in (zeros, torch.zeros(32)))
        np.testing.assert_array_equal(found, wanted)


def test_facts_are_read_from_the_subject(embedded):
    task = tasks.facts(embedded, n=64, seed=5)
    mean = attribution.mean_baseline(embedded, task.clean)
    scores = attribution.integrated_gradients(embedded, task.clean, mean, EMBED, task.logit_diff, tolerance=1e-2)
    subject = int(task.clean.roles["subject"][0])
    mass = abs(scores).sum("pos")
    share = stats.interval(abs(scores[[subject - 1, subject]]).sum("pos") / mass)  # a country is two words
    assert float(share["low"]) > 0.4
    assert better_than_random(embedded, task, scores, mean)


def test_agreement_is_read_from_the_subject_and_not_from_the_attractor(embedded):
    task = tasks.agreement(embedded, n=64, seed=5)
    mean = attribution.mean_baseline(embedded, task.clean)
    by_role = lambda **more: attribution.integrated_gradients(
        embedded, task.clean, mean, EMBED, task.logit_diff, tolerance=1e-2, **more
    )
    table = stats.interval(by_role(roles=["subject", "attractor"]))
    assert float(table["low"].sel(pos="subject")) > 1 and float(table["high"].sel(pos="attractor")) < 0
    assert better_than_random(embedded, task, by_role(), mean)


def test_the_indirect_object_and_the_repeated_name_pull_apart(embedded):
    task = tasks.ioi(embedded, n=64, seed=5)
    mean = attribution.mean_baseline(embedded, task.clean)
    by_role = lambda **more: attribution.integrated_gradients(
        embedded, task.clean, mean, EMBED, task.logit_diff, tolerance=1e-2, **more
    )
    table = stats.interval(by_role(roles=["IO", "S1"]))
    assert float(table["low"].sel(pos="IO")) > 1 and float(table["high"].sel(pos="S1")) < -1
    assert better_than_random(embedded, task, by_role(), mean)


def better_than_random(model, task, scores, baseline) -> bool:
    """Whether deleting the words that an attribution puts first costs more than deleting random ones, for sure."""
    found = attribution.curves(model, task.clean, baseline, scores, task.logit_diff, shares=[0.2], draws=20)
    return checks_of(found)[0].status == "pass"
