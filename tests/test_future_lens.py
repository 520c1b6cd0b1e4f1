"""What hidden states say of later tokens, against counting and least squares done by hand."""

import random
from collections import Counter
from math import log

import numpy as np
import pytest
import tiny
import torch
from conftest import load
from torch.testing import assert_close

from interp import Site, lens, stats, tasks
from interp.arrays import checks_of
from interp.lens.skipgrams import Skipgrams
from interp.traces import Tokens
from interp.zoo import corpus

PADDED = Tokens(
    torch.tensor([[0, 0, 1, 2, 3, 1], [1, 2, 1, 2, 4, 4]]), torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
)


def texts(n: int, seed: int, words: int = 60) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(corpus.draw_text(rng, words)) for _ in range(n)]


@pytest.fixture(scope="module")
def future(embedded) -> lens.FutureLens:
    return lens.fit_future(embedded, texts(150, 0))


@pytest.mark.parametrize("apart", [1, 2, 3])
def test_pairs_are_counted_as_by_hand(apart):
    found = Skipgrams.of(PADDED, apart, 5)
    rows = [[1, 2, 3, 1], [1, 2, 1, 2, 4, 4]]
    pairs = Counter((row[i], row[i + apart]) for row in rows for i in range(len(row) - apart))
    single = Counter([token for row in rows for token in row])
    share = [(single[token] + 1) / (10 + 5) for token in range(5)]
    prior = found.prior
    for first in range(5):
        total = sum(count for (a, _), count in pairs.items() if a == first)
        wanted = [(pairs[first, second] + prior * share[second]) / (total + prior) for second in range(5)]
        assert sum(wanted) == pytest.approx(1)
        log_probs = found.log_prob(torch.full((5,), first), torch.arange(5))
        assert_close(log_probs, torch.tensor(wanted).log(), atol=1e-5, rtol=1e-5)
        assert wanted[int(found.best[first])] == pytest.approx(max(wanted))


def test_a_prior_is_small_where_pairs_repeat_and_large_where_they_do_not():
    repeated = torch.arange(20).repeat(5)[None]
    drawn = torch.randint(0, 20, (1, 100), generator=torch.Generator().manual_seed(0))
    small, large = (Skipgrams.of(Tokens(ids, torch.ones_like(ids)), 1, 20).prior for ids in (repeated, drawn))
    assert small < 1 < 10 < large


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_a_reader_is_least_squares_over_pairs_of_one_document(family):
    model = load(family)
    ids = torch.randint(3, len(tiny.WORDS), (40, 8), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[::2, :3] = 0
    sites = model.sites("resid_post")
    found = lens.fit_future(model, (ids, mask), ahead=2, sites=sites[:1], penalty=1e-12)
    trace = model.run((ids, mask), read=sites)
    rows = [(i, t) for i in range(40) for t in range(3 * (i % 2 == 0), 7)]
    x, y = (
        torch.stack([trace[site][i, t + d] for i, t in rows]).double() for site, d in ((sites[0], 0), (sites[-1], 1))
    )
    root = 1 / y.pow(2).mean(-1, keepdim=True).sqrt()
    wanted = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], 1) * root, y * root).solution
    translator = found.maps[2][sites[0]].translator
    got = torch.cat([translator.weight + torch.eye(32), translator.bias[None]])
    assert_close(got.double(), wanted, atol=1e-3, rtol=1e-3)


def test_what_is_measured_is_what_each_reader_says(embedded, future):
    (document,) = texts(1, 7, words=30)
    found = lens.foresight(embedded, future, [document])
    ids = embedded.tokens(document).ids[0]
    site = Site("resid_post", 1)
    trace = embedded.run(document, read=[site])
    n, own = len(ids), trace.logits[0].detach().log_softmax(-1)
    for k in (1, 3):
        said = future.maps[k][site].log_probs(embedded, trace[site][0]).detach()
        surprisal = [-float(said[t, ids[t + k]]) for t in range(n - k)]
        right = [int(said[t].argmax()) == int(ids[t + k]) for t in range(n - k)]
        agrees = [int(said[t].argmax()) == int(own[t + k - 1].argmax()) for t in range(n - k)]
        for name, values in {"surprisal": surprisal, "accuracy": right, "agreement": agrees}.items():
            cell = found[name].sel(reader="resid_post.1", ahead=k, prompt=0)
            assert float(cell) == pytest.approx(np.mean(values), abs=1e-4)
        model = -np.mean([float(own[t + k - 1, ids[t + k]]) for t in range(n - k)])
        assert float(found.surprisal.sel(reader="model", ahead=k, prompt=0)) == pytest.approx(model, abs=1e-4)
        single = future.skipgrams[k].unigram
        unigram = -np.mean([log(float(single[ids[t + k]])) for t in range(n - k)])
        assert float(found.surprisal.sel(reader="unigram", ahead=k, prompt=0)) == pytest.approx(unigram, abs=1e-4)


def test_each_document_has_its_own_row(embedded, future):
    documents = texts(20, 5, words=12)
    many, one = (lens.foresight(embedded, future, some) for some in (documents, documents[18:19]))
    for name in ("surprisal", "accuracy", "agreement"):
        np.testing.assert_allclose(many[name].isel(prompt=18), one[name].isel(prompt=0), atol=1e-4)


def test_the_last_stream_foresees_the_next_token_as_the_model_does(embedded, future):
    found = lens.foresight(embedded, future, texts(16, 3)).sel(ahead=1).mean("prompt")
    assert float(found.agreement.sel(reader="resid_post.3")) > 0.99
    assert float(found.surprisal.sel(reader="resid_post.3") - found.surprisal.sel(reader="model")) < 0.02


def test_hidden_states_know_more_than_pairs_of_tokens(embedded, future):
    rng = random.Random(5)  # pairs of tokens say little of random words that are said again
    repeats = [" ".join(corpus.draw_repetition(rng, "test").words) for _ in range(48)]
    documents = [" ".join(f"{first} {then}".split()[:60]) for first, then in zip(repeats, texts(48, 5))]
    found = lens.foresight(embedded, future, documents)
    assert checks_of(found)[0].status == "pass"
    for k in (2, 3):
        gain = found.surprisal.sel(reader="bigram", ahead=k) - found.surprisal.sel(reader="resid_post.2", ahead=k)
        assert float(stats.interval(gain)["low"]) > 0.5
    assert bool((found.agreement.sel(reader="model") == 1).all())


def test_of_tokens_drawn_at_random_nothing_is_foreseen():
    """A check that could not fail would be none."""
    model = load("gpt2")
    ids = torch.randint(3, len(tiny.WORDS), (150, 12), generator=torch.Generator().manual_seed(0))
    found = lens.foresight(model, lens.fit_future(model, ids[:100]), ids[100:])
    gain = (found.surprisal.sel(reader="unigram") - found.surprisal.isel(reader=slice(0, 3))).mean("prompt")
    assert float(gain.max()) < 0.02


def test_what_is_foreseen_is_decoded_at_each_position(embedded, future):
    task = tasks.ioi(embedded, n=2)
    found = lens.foresee(embedded, future, task.clean, top=2)
    site = Site("resid_post", 2)
    resid = embedded.run(task.clean, read=[site])[site]
    best = future.maps[3][site].log_probs(embedded, resid[1]).detach().topk(2)
    cell = found.sel(site="resid_post.2", ahead=3, prompt=1)
    assert cell.token.T.values.tolist() == [embedded.words(ids) for ids in best.indices.tolist()]
    np.testing.assert_allclose(cell.probability.T, best.values.exp(), rtol=1e-4)
    last = lens.foresee(embedded, future, task.clean, at=-1)
    assert last.token.isel(top=0).values.tolist() == found.token.isel(top=0, pos=-1).values.tolist()


def test_messages(embedded, future):
    with pytest.raises(ValueError, match="to foresee 3 tokens, every document must be longer; the shortest has 3"):
        lens.fit_future(embedded, ["the dog"])
    with pytest.raises(ValueError, match=r"a future lens reads the residual stream; z\.0 has axes"):
        lens.fit_future(embedded, texts(2, 0), sites=embedded.sites("z"))
    with pytest.raises(ValueError, match="this lens belongs to a model with weights"):
        lens.foresight(load("gpt2"), future, torch.ones(2, 9, dtype=torch.long))
