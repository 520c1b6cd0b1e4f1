"""Matrices from weights are what the model computes with, and what is read off them is what was put there."""

import subprocess
import sys

import numpy as np
import pytest
import tiny
import torch
from conftest import load
from torch.testing import assert_close

import interp
from interp import Site, edits, weights
from interp.arrays import checks_of
from interp.readout import uncapped
from interp.weights import detectors, matrices, singular
from interp.zoo import compiled, handset, lexicon

NORMED = ("qwen3", "olmo2")  # norms of queries and keys
WHOLE = ("gemma2", "olmo2")  # a norm follows attention's last matrix


def unit(d_model: int, n: int = 5) -> torch.Tensor:
    x = torch.randn(n, 1, d_model, generator=torch.Generator().manual_seed(1))
    x = x - x.mean(-1, keepdim=True)
    return x / x.std(-1, keepdim=True, correction=0)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    assert_close(a, b, atol=2e-5 * float(b.abs().max()), rtol=0)


def test_what_heads_read_is_what_the_model_makes_of_a_stream(family):
    model, layer = load(family), 1
    found, x, ids = weights.heads(model), unit(model.shape.d_model), torch.ones(5, 1, dtype=torch.long)
    sites = [Site(kind, layer) for kind in ("q", "k", "v")]
    trace, empty = (model.run(ids, sites, [edits.put(Site("resid_pre", layer), stream)]) for stream in (x, 0 * x))
    group = model.shape.n_heads // model.shape.n_kv_heads
    read = lambda matrix: torch.einsum("hed,td->the", matrix[layer], x[:, 0])
    values = (trace[sites[2]] - empty[sites[2]])[:, 0]
    close(read(found.v), values.repeat_interleave(group, dim=1))
    assert ("norms of queries" in found.left_out) == (family in NORMED)
    if family not in NORMED:
        close(read(found.q) + found.q_bias[layer], trace[sites[0]][:, 0])
        close(read(found.k) + found.k_bias[layer], trace[sites[1]][:, 0].repeat_interleave(group, dim=1))


def test_what_heads_write_is_what_attention_adds(family):
    model, layer = load(family), 2
    shape = model.shape
    ids, z = torch.ones(4, 1, dtype=torch.long), torch.randn(4, 1, shape.n_heads, shape.d_head)
    out, nothing = (
        model.run(ids, Site("attn_out", layer), [edits.put(Site("z", layer), value)])[Site("attn_out", layer)][:, 0]
        for value in (z, 0 * z)
    )
    written = torch.einsum("the,hed->td", z[:, 0], weights.heads(model).o[layer])
    if family in WHOLE:  # the scale is the norm's
        written = written * (out.norm(dim=-1) / written.norm(dim=-1))[:, None]
    close(written, out - (0 if family in WHOLE else nothing))


def test_products_of_queries_and_keys_are_scores_before_the_softmax():
    for family in ("gpt2", "opt"):  # no rotary embedding
        model, x = load(family), unit(32, 6)
        found, site = weights.heads(model), Site("scores", 0)
        put = edits.put(Site("resid_pre", 0), x.transpose(0, 1))
        scores = model.run(torch.ones(1, 6, dtype=torch.long), site, [put])[site][0]
        wanted = weights.tokens.token_scores(found, x[:, 0])[0]
        causal = torch.ones(6, 6).tril().bool()
        close(wanted[:, causal], scores[:, causal])


def test_unembedding_and_embedding_are_linear_parts_of_the_model(family):
    model = load(family)
    x = unit(model.shape.d_model)[:, 0].detach()
    logits = (uncapped(model, model.unembed(x)) - uncapped(model, model.unembed(0 * x))).detach()
    close(x @ weights.unembedding(model).T, logits)
    ids = torch.tensor([3, 9, 4])
    close(weights.unembedding(model, ids), weights.unembedding(model)[ids])
    streams = model.run(ids[:, None], Site("resid_pre", 0))[Site("resid_pre", 0)][:, 0]
    close(weights.embedding(model, ids), streams - streams.mean(0))
    assert float((weights.embedding(model, ids, first_mlp=True) - weights.embedding(model, ids)).abs().max()) > 0.01


def test_token_circuits_are_products_of_matrices():
    model = load("gpt2")
    module, ids = model.module, torch.tensor([5, 8, 13, 2])
    scores, logits = weights.qk(model, ids), weights.ov(model, ids)
    e = module.transformer.wte.weight[ids]
    e = e - e.mean(0)
    e = e / e.square().mean(-1, keepdim=True).sqrt()
    block, head, size = module.transformer.h[1], 2, 8
    gain = (torch.eye(32) - 1 / 32) @ torch.diag(block.ln_1.weight)
    parts = [w[:, head * size : (head + 1) * size] for w in block.attn.c_attn.weight.split(32, dim=1)]
    bias = [
        b[head * size : (head + 1) * size]
        for b in (block.ln_1.bias @ block.attn.c_attn.weight + block.attn.c_attn.bias).split(32)
    ]
    q, k, v = (e @ gain @ part for part in parts)
    wanted = ((q + bias[0]) @ (k + bias[1]).T) / size**0.5
    close(torch.tensor(scores.sel(layer=1, head=head).values), (wanted - wanted.mean(-1, keepdim=True)).detach())
    final = (torch.eye(32) - 1 / 32) @ torch.diag(module.transformer.ln_f.weight) @ module.lm_head.weight[ids].T
    wanted = v @ block.attn.c_proj.weight[head * size : (head + 1) * size] @ final
    close(torch.tensor(logits.sel(layer=1, head=head).values), (wanted - wanted.mean(-1, keepdim=True)).detach())


def test_composition_scores_are_norms_of_whole_products(family):
    model = load(family)
    found, scores = weights.heads(model), weights.composition(model, draws=2)["score"]
    qk = torch.einsum("lhed,lhef->lhdf", found.q, found.k).flatten(0, 1)
    ov = torch.einsum("lhef,lhed->lhfd", found.o, found.v).flatten(0, 1)  # on columns: what is written, what is read
    for writer, reader in ((0, 5), (3, 9), (6, 11)):
        size = ov[writer].norm()
        wanted = {
            "q": (qk[reader].T @ ov[writer]).norm() / (qk[reader].norm() * size),
            "k": (qk[reader] @ ov[writer]).norm() / (qk[reader].norm() * size),
            "v": (ov[reader] @ ov[writer]).norm() / (ov[reader].norm() * size),
        }
        for kind, value in wanted.items():
            got = float(scores.sel(kind=kind, writer=found.names[writer], reader=found.names[reader]))
            assert got == pytest.approx(float(value), rel=1e-4)
    assert bool(scores.isel(writer=4, reader=slice(0, 8)).isnull().all())


def test_composition_singles_out_the_edge_of_the_induction_pair():
    found = weights.composition(handset.induction().model)
    above = found["score"].where(found["score"] > found["high"]).stack(edge=("kind", "writer", "reader")).dropna("edge")
    assert [tuple(edge) for edge in above["edge"].values] == [("k", "L0H0", "L1H0")]
    assert float(abs(found["score"].drop_sel(kind="k")).max()) < 1e-6


def test_heads_without_scores_have_no_height_of_chance():
    found = weights.composition(compiled.model_of(compiled.PROGRAMS["first"]()), draws=5)
    assert bool(found["high"].isnull().sel(kind=found["score"].isnull().all(["writer", "reader"])).all())
    assert float(found["high"].fillna(0).min()) >= 0


def test_random_heads_do_not_compose():
    beyond = []
    for seed in range(10):
        model = interp.load(tiny.build("gpt2", seed=seed))
        found = weights.composition(model, draws=20, seed=seed)
        beyond.append(checks_of(found)[0].value)
        np.testing.assert_allclose(found["score"].mean(), found["chance"].mean(), atol=0.02)
    assert np.mean(np.array(beyond) > 0) <= 0.4  # of three kinds in ten models, at 5 % each


def test_ranks_count_what_is_smaller():
    scores = torch.tensor([[3.0, 1.0, 1.0, 2.0], [0.0, 0.0, 0.0, torch.inf]])
    assert detectors.ranks(scores).tolist()[0] == pytest.approx([1, 1 / 6, 1 / 6, 2 / 3])
    assert detectors.ranks(scores)[1, :3].tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("induction", {"previous token": (0, 0), "induction": (1, 0), "copying": (1, 0)}),
        ("copying", {"copying": (0, 0)}),
        ("duplicates", {"duplicate token": (0, 0)}),
    ],
)
def test_detectors_find_the_heads_that_were_set_and_no_others(name, wanted):
    model = handset.HANDSET[name]().model
    found = weights.detect(model)
    seen = weights.behaviour(model, ids=range(1, 9), bos=True)
    for detector in detectors.DETECTORS:
        score = found["score"].sel(detector=detector)
        layer, head = wanted.get(detector, (0, 0))
        if detector in wanted:
            assert float(score[layer, head]) > 0.98 > 0.9 > float(found["high"].sel(detector=detector))
            others = score.values.copy()
            others[layer, head] = 0
            assert others.max() <= 0.58
            behaved = seen["score"].sel(detector=detector).mean("prompt")
            assert int(behaved.argmax()) == layer * model.shape.n_heads + head
    if name == "induction":
        assert found["through"][1, 0] == "L0H0"
        for detector, (layer, head) in wanted.items():
            assert float(seen["score"].sel(detector=detector)[layer, head].min()) == pytest.approx(1, abs=1e-5)
    assert all(check.status == "pass" for check in checks_of(found))


def test_weights_and_behaviour_name_the_same_heads_of_the_embedded_model(embedded):
    pool = [embedded.token_id(word) for word in lexicon.CONTENT]
    by_weights = weights.detect(embedded, pool[:64], draws=5)["score"]
    seen = weights.behaviour(embedded, ids=pool)
    behaved, null = (seen[name].mean("prompt") for name in ("score", "null"))
    for detector in ("previous token", "duplicate token", "induction"):
        clear = behaved.sel(detector=detector) > 0.5
        assert bool(clear.any()) and bool((behaved > 5 * null).sel(detector=detector).where(clear, True).all())
        best = by_weights.sel(detector=detector)
        assert bool(clear.values.flatten()[int(best.argmax())])
    assert bool((by_weights.sel(detector="induction").where(behaved.sel(detector="induction") > 0.5) > 0.8).sum() >= 3)


def test_behaviour_is_attention_read_off_by_hand(embedded):
    seen = weights.behaviour(embedded, n=1, period=5, bos=False, seed=4)
    pool = matrices.chosen_tokens(embedded, None, embedded.shape.d_vocab, 4)
    block = pool[torch.randperm(len(pool), generator=torch.Generator().manual_seed(4))[:5]]
    pattern = embedded.run(torch.cat([block, block])[None], Site("pattern", 2))[Site("pattern", 2)][0]
    for detector, back in (("previous token", 1), ("duplicate token", 5), ("induction", 4)):
        by_hand = np.mean([float(pattern[3, p, p - back]) for p in range(5, 10)])
        assert float(seen["score"].sel(detector=detector, layer=2, head=3)[0]) == pytest.approx(by_hand, abs=1e-6)
        others = {p: [k for k in range(1, p + 1) if k != p - back] for p in range(5, 10)}
        rest = np.mean([float(pattern[3, p, keys].mean()) for p, keys in others.items()])
        assert float(seen["null"].sel(detector=detector, layer=2, head=3)[0]) == pytest.approx(rest, abs=1e-6)


def test_every_family_has_detectors(family):
    model = load(family)
    found, seen = weights.detect(model, n=12, draws=3), weights.behaviour(model, n=2, period=4)
    places = found["score"].sel(detector="previous token")
    assert bool(places.isnull().all()) == (family not in ("gpt2", "opt"))
    assert bool(found["score"].drop_sel(detector="previous token").notnull().all())
    assert bool(seen["score"].sel(detector="copying").isnull().all()) == (family in WHOLE)


def test_singular_vectors_are_those_of_the_whole_matrix(embedded):
    found = weights.heads(embedded)
    v, o = found.v[3, 2], found.o[3, 2]
    read, values, written = singular.svd(v, o)
    assert_close(values, torch.linalg.svdvals(v.T @ o)[:32], atol=1e-4, rtol=1e-4)
    assert_close(torch.einsum("kd,k,ke->de", read, values, written), v.T @ o, atol=1e-4, rtol=0)
    table = weights.singular_vectors(embedded, 3, 2, k=4)
    assert_close(torch.tensor(table["value"].values), values[:4])
    logits = written[:4] @ weights.unembedding(embedded).T
    logits = logits - logits.mean(-1, keepdim=True)
    assert_close(torch.tensor(abs(table["writes"]).values), logits.abs(), atol=1e-4, rtol=1e-4)
    assert bool((table["writes"].max("token") >= -table["writes"].min("token")).all())


def test_a_copying_head_reads_and_writes_the_same_tokens():
    table = weights.singular_vectors(handset.copying().model, 0, 0)
    reads, writes = (table[side].sel(token=list(handset.attention.WORDS)).values for side in ("reads", "writes"))
    for one, other in list(zip(reads, writes))[1:]:  # the first is the same for all words
        assert np.corrcoef(one - one.mean(), other - other.mean())[0, 1] > 0.999


def test_what_is_wrong_is_said(embedded):
    with pytest.raises(ValueError, match="L4H0 is out of range: embedded has layers 0 to 3 and heads 0 to 3"):
        weights.singular_vectors(embedded, 4, 0)
    with pytest.raises(ValueError, match="has one layer, and no head reads"):
        weights.composition(handset.copying().model)
    with pytest.raises(ValueError, match="at least two draws; draws=1"):
        weights.composition(embedded, draws=1)
    with pytest.raises(ValueError, match="tokens are two or more ids from 0 to"):
        weights.qk(embedded, ids=[3])
    with pytest.raises(ValueError, match="three different tokens or more are repeated"):
        weights.behaviour(embedded, ids=[3, 4])


def test_torch_is_used_without_its_warnings():
    """In a process of its own: torch warns at the first use of its forward mode alone."""
    code = "import interp, warnings; warnings.simplefilter('error'); interp.weights.unembedding(interp.load())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
