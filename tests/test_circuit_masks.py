"""A masked run that is taken up at a block and a position is the whole masked run; several sources add up."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close
from wired import EXACT, METRIC, model_of, pair

from interp import circuits
from interp.circuits.masks import Exchange
from interp.circuits.pair import Pair


def exchange_of(family: str, dtype: torch.dtype = torch.float64) -> Exchange:
    model = model_of(family, dtype)
    return Pair.of(model, *pair(model), "noising").exchange(METRIC)


def some_masks(exchange: Exchange, n: int = 4, seed: int = 0) -> torch.Tensor:
    """Random circuits' masks, one of them on readers of the last layer alone."""
    graph = exchange.run.wiring.graph
    generator = torch.Generator().manual_seed(seed)
    masks = (torch.rand(n, *graph.precedes.shape, generator=generator) > 0.3) & graph.precedes
    masks[0, :, : graph.attention(graph.n_layers - 1).start] = False
    return masks.double()


@pytest.mark.parametrize("dtype", EXACT)
def test_a_run_taken_up_is_the_whole_run(family, dtype):
    exchange = exchange_of(family, dtype)
    assert exchange.run.recording is not None and exchange.start == 3
    masks = some_masks(exchange)
    whole = replace(exchange, run=replace(exchange.run, recording=None))
    wanted = whole.values(masks)
    tolerance = dict(atol=EXACT[dtype] * float(wanted.abs().max()), rtol=0)
    assert_close(exchange.values(masks), wanted, **tolerance)
    assert_close(exchange.values(masks[:1]), wanted[:1], **tolerance)
    assert_close(torch.cat([exchange.values(mask[None]) for mask in masks]), wanted, **tolerance)
    assert_close(replace(exchange, start=0).values(masks), wanted, **tolerance)


def test_several_sources_add_up(family):
    exchange = exchange_of(family)
    masks = some_masks(exchange)
    one, two = exchange.others, 2 * exchange.others.flip(1)
    share = torch.linspace(0, 1, 4, dtype=torch.float64)[:, None, None]
    for run in (exchange.run, replace(exchange.run, recording=None)):
        both = Exchange(run, torch.cat([one, two]))
        found = both.mixed(torch.stack([share * masks, (1 - share) * masks], 1))
        mixed = [
            Exchange(run, s * one + (1 - s) * two).values(mask[None])
            for s, mask in zip(share.flatten().tolist(), masks)
        ]
        assert_close(found, torch.cat(mixed), atol=1e-10, rtol=0)


def test_a_metric_at_another_position_reads_it(family):
    model = model_of(family)
    for at in (-2, 1):
        exchange = Pair.of(model, *pair(model), "noising").exchange(METRIC.reading(at))
        masks = some_masks(exchange)
        whole = replace(exchange, run=replace(exchange.run, recording=None)).values(masks)
        assert_close(exchange.values(masks), whole, atol=1e-10, rtol=0)
    assert_close(whole, exchange.run.values.expand_as(whole), atol=1e-10, rtol=0)  # before what differs


def test_gradients_of_a_run_taken_up_are_those_of_the_whole_run():
    exchange = exchange_of("llama")
    found = []
    for run in (exchange.run, replace(exchange.run, recording=None)):
        masks = some_masks(exchange).requires_grad_()
        found.append(torch.autograd.grad(Exchange(run, exchange.others).values(masks).sum(), masks)[0])
    assert_close(*found, atol=1e-10, rtol=0)


def test_an_exchange_of_nothing_is_the_run_itself():
    exchange = exchange_of("gpt2")
    nothing = torch.zeros(2, *circuits.graph(exchange.run.model).precedes.shape)
    assert_close(exchange.values(nothing), exchange.run.values.expand(2, -1), atol=0, rtol=0)
