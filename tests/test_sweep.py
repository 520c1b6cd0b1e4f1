"""The engine against the slow loop, where its short cuts could go wrong."""

import pytest
import tiny
import torch
from conftest import load
from torch.testing import assert_close

import interp
from interp import Edit, Site, edits, metrics
from interp.metrics import Metric
from interp.replay import way_of
from interp.sweep import ENGINES, sweep

PROMPTS = ["when Mary and John went to the store , John gave a drink to", "I love it", "you hate it"]
METRIC = metrics.logit_diff(4, 5)


def loop(model, prompts, cells, metric=METRIC):
    return torch.stack([metric(model.run(prompts, edits=cell)) for cell in cells])


def noise(site, scale=0.3, seed=0, **at):
    def change(x):
        generator = torch.Generator().manual_seed(seed)
        return x + scale * torch.randn(x.shape[1:], generator=generator, dtype=torch.float64).to(x)

    return Edit(site, change, at)


def test_rows_are_packed_on_every_family_and_born_on_every_bridge(family):
    assert way_of(load(family)) == "packed"
    assert way_of(load(family, dtype=torch.float64)) == "packed"
    assert way_of(load(family, dtype=torch.bfloat16)) == "packed"
    assert way_of(load(family, "transformer_lens")) == "rows"
    assert way_of(load(family, "nnsight")) == "full"


def test_a_cell_of_edits_at_several_depths_and_positions(family):
    model = load(family, dtype=torch.float64)
    cells = [
        [noise(Site("resid_pre", 0), pos=-1), noise(Site("z", 2), pos=-3, head=1)],
        [noise(Site("mlp_out", 1), pos=-2), noise(Site("resid_post", 1), pos=-2, seed=1)],
        [noise(Site("attn_out", 2)), noise(Site("resid_final"), pos=-1)],
        [noise(Site("embed"), pos=-2), noise(Site("v", 1), head=0)],
        [noise(Site("pattern", 1), head=2, query=-1), noise(Site("scores", 1), head=1, key=-2)],
        [],
    ]
    expected = loop(model, PROMPTS, cells)
    for budget in (1, None):
        assert_close(sweep(model, PROMPTS, cells, [METRIC], budget=budget).values[0], expected, atol=1e-10, rtol=1e-10)


def test_metrics_at_several_positions_in_one_sweep():
    model = load("llama", dtype=torch.float64)
    prompts = model.tokens(PROMPTS)
    some = [METRIC, metrics.log_prob(7).reading(-2), metrics.prob(torch.tensor([3, 4, 5]))]
    cells = [
        [noise(Site(kind, layer), pos=pos)] for kind in ("resid_pre", "z") for layer in (0, 2) for pos in (-3, -2, -1)
    ]
    expected = torch.stack([loop(model, prompts, cells, metric) for metric in some])
    assert_close(sweep(model, prompts, cells, some).values, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("backend", ["huggingface", "nnsight"])
def test_a_position_that_several_metrics_read_is_decoded_once(backend):
    model, decoded = load("gpt2", backend), []
    at_last = [metrics.log_prob(4), METRIC, metrics.kl_from(model.run(PROMPTS).logits[:, -1])]
    several = [at_last[0], at_last[0].reading(-2), *at_last[1:], METRIC.reading(-2)]
    cells = [[noise(Site("resid_post", 0))], [noise(Site("z", 1), head=1)]]
    model.module.get_output_embeddings().register_forward_hook(lambda *_: decoded.append(1))
    alone = torch.cat([sweep(model, PROMPTS, cells, [metric]).values for metric in several])
    decoded.clear()
    together = sweep(model, PROMPTS, cells, several)
    assert_close(together.values, alone)
    assert backend == "nnsight" or len(decoded) == 1 + 2  # the prompts' own run, and each position


def test_a_metric_of_ones_own_that_looks_at_its_values():
    model = load("gpt2")
    own = Metric("own", lambda logits: logits.max(-1).values if float(logits.sum()) > 0 else logits.min(-1).values)
    cells = [[noise(Site("resid_pre", 1), pos=-1, seed=i)] for i in range(4)]
    assert_close(sweep(model, PROMPTS, cells, [own]).values[0], loop(model, PROMPTS, cells, own), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_gradients_reach_what_the_edits_were_made_of(family):
    model = load(family, dtype=torch.float64)
    sites = [Site("resid_pre", 1), Site("z", 1), Site("mlp_post", 1), Site("resid_final")]
    traced = model.run(PROMPTS, read=sites)
    vectors = [
        torch.zeros_like(traced[site][0, 0]).requires_grad_() for site in sites
    ]  # adding zero changes nothing yet
    cells = [[Edit(site, lambda x, v=v: x + v, {"pos": -2})] for site, v in zip(sites[:-1], vectors)]
    cells.append([Edit(sites[-1], lambda x: x + vectors[-1], {"pos": -1})])
    swept = sweep(model, PROMPTS, cells, [METRIC], grad=True).values.sum()
    looped = sum(METRIC(model.run(PROMPTS, edits=cell, grad=True)).sum() for cell in cells)
    for ours, theirs in zip(torch.autograd.grad(swept, vectors), torch.autograd.grad(looped, vectors)):
        assert theirs.abs().max() > 0
        assert_close(ours, theirs, atol=1e-10, rtol=1e-8)


def test_only_what_an_edit_can_change_is_run(embedded):
    task = interp.tasks.ioi(embedded, n=1)
    trace = embedded.run(task.corrupt, read=embedded.sites("resid_pre"))
    n_layers, n_pos = embedded.shape.n_layers, task.clean.ids.shape[1]

    def work(cells):
        return sweep(embedded, task.corrupt, cells, [task.logit_diff]).work

    assert work([[edits.copy(trace, Site("resid_pre", 2))]]) == 0  # writing back what is there
    assert work([[edits.zero(Site("resid_pre", 2), pos=-1)]]) == n_layers - 2
    assert work([[edits.zero(Site("resid_pre", 1), pos=-3)]]) == 3 * (n_layers - 1)
    assert work([[edits.zero(Site("resid_post", n_layers - 1), pos=0)]]) == 0  # after the last block
    assert work([[edits.zero(Site("z", 0), head=0)]]) == n_pos * n_layers
    assert work([[edits.zero(Site("embed"))]]) == n_pos * n_layers


def test_what_the_engine_did_is_said(embedded):
    task = interp.tasks.ioi(embedded, n=2)
    cells = [[edits.zero(site)] for site in embedded.sites("z")]
    done = sweep(embedded, task.corrupt, cells, [task.logit_diff])
    assert done.engine == ENGINES["packed"]
    again = sweep(interp.load(backend="nnsight"), task.corrupt, cells, [task.logit_diff])
    assert again.engine == f"{ENGINES['full']}: blocks of embedded are not called one by one on nnsight"
    assert_close(again.values, done.values, atol=1e-4, rtol=1e-4)


def test_progress_is_told(embedded):
    told = []
    cells = [[edits.zero(site)] for site in embedded.sites("z")]
    prompts = interp.tasks.ioi(embedded, n=2).corrupt
    sweep(embedded, prompts, cells, [METRIC], budget=1, progress=lambda done, total: told.append((done, total)))
    assert told == [(i, len(cells)) for i in range(1, len(cells) + 1)]


@pytest.mark.parametrize("family", ["bloom", "gptj", "gpt_bigcode", "stablelm", "falcon"])
def test_families_without_a_row_are_swept_as_well(family):
    model = interp.load(tiny.build(family), tokenizer=tiny.tokenizer())
    cells = [[noise(site, pos=-2)] for site in model.sites("resid_pre")]
    done = sweep(model, PROMPTS, cells, [METRIC])
    assert_close(done.values[0], loop(model, PROMPTS, cells), atol=1e-5, rtol=1e-5)
    assert done.engine != ENGINES["full"]


def test_a_context_of_three_tokens_is_enough():
    model = interp.load(tiny.build("gpt2", n_positions=3))
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    swept = sweep(model, ids, [[edits.zero(Site("z", 1), pos=1)]], [metrics.logit(3)])
    assert_close(swept.values[0, 0], metrics.logit(3)(model.run(ids, edits=[edits.zero(Site("z", 1), pos=1)])))
    assert interp.generate(interp.load(tiny.build("gpt2", n_positions=5)), ids, 2) != []


def test_what_has_a_value_for_each_head_is_not_taken_for_that_of_prompts():
    model = interp.load(tiny.build("mpt", d_model=32, n_heads=8, n_layers=2))
    ids = torch.randint(2, 30, (8, 5), generator=torch.Generator().manual_seed(0))
    edit = edits.zero(Site("resid_post", 0), pos=1)
    swept = sweep(model, ids, [[edit]], [metrics.logit(3)])
    assert_close(swept.values[0, 0], metrics.logit(3)(model.run(ids, edits=[edit])))


def test_what_is_not_a_number_is_refused():
    model = interp.load(tiny.build("gpt2"))
    silent = metrics.Metric("nothing", lambda logits: logits[:, 0] * float("nan"))
    with pytest.raises(
        ValueError, match=r"nothing is not a number in 1 of 1 values, first in prompt 0 under z.1 at {}"
    ):
        sweep(model, torch.tensor([[1, 2, 3]]), [[edits.zero(Site("z", 1))]], [silent])
