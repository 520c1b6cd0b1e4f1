"""Bad input gets one clear error: what was given, what was expected, what to try."""

import random
from collections.abc import Callable

import pytest
import tiny
import torch

import interp
from interp import (
    Edit,
    Site,
    attribution,
    attribution_patching,
    circuits,
    edits,
    lens,
    metrics,
    patching,
    plots,
    probing,
    stats,
    steering,
    tasks,
)
from interp.sweep import sweep
from interp.traces import Tokens
from interp.zoo import corpus

IDS = torch.tensor([[1, 2, 3]])
RESID = Site("resid_pre", 0)
RANK = metrics.Metric("rank", lambda logits: logits.argmax(-1).float())
NO_GRADIENT = "rank has no gradient; make it of differentiable operations on the logits"


def _train_mode(model: interp.Model) -> None:
    module = tiny.build("gpt2")
    module.train()
    interp.load(module).run(IDS)


def _patch(m: interp.Model, metric: metrics.Metric | None = None, sites=(RESID,), **more) -> object:
    task = tasks.ioi(m, n=2)
    return patching.patch(m, task.clean, task.corrupt, sites, metric or task.logit_diff, **more)


def _rewritten() -> interp.Model:
    """A bridge whose weights are no longer those that were published."""
    model = interp.load(tiny.build("gpt2"), backend="transformer_lens")
    model.module.enable_compatibility_mode(disable_warnings=True)
    return model


def _adapted() -> torch.nn.Module:
    module = tiny.build("gpt2")
    attention = module.transformer.h[0].attn
    attention.c_proj = torch.nn.Sequential(attention.c_proj).eval()
    return module


def _edges(m: interp.Model, mask: torch.Tensor | None = None, **more) -> object:
    sets = {"mine": circuits.graph(m).mask() if mask is None else mask}
    return circuits.patch_edges(m, "the dog", "the cat", sets, metrics.logit(4), **more)


def _probe(m: interp.Model, labels=(True, False, True, False), site: Site = RESID, at: int = -1) -> object:
    return probing.probe(m, tasks.from_labels(m, ["the dog"] * 4, labels, list("abcd")), [site], at=[at])


CASES: dict[str, tuple[Callable[[interp.Model], object], str]] = {
    "unknown kind": (
        lambda m: Site("resid_pots", 1),
        "unknown site kind 'resid_pots'; choose from embed, resid_pre, q, k, v, scores, pattern, z, attn_out, resid_mid, "
        "mlp_pre, mlp_post, mlp_out, resid_post, resid_final",
    ),
    "nothing to generate": (
        lambda m: interp.generate(m, "the dog", n_tokens=0),
        "n_tokens is at least 1, not 0",
    ),
    "no layer": (lambda m: Site("z"), "'z' needs a layer, an int from 0 on, not None; write Site('z', 0)"),
    "negative layer": (lambda m: Site("z", -1), "'z' needs a layer, an int from 0 on, not -1; write Site('z', 0)"),
    "a layer too many": (lambda m: Site("embed", 0), "'embed' has no layer, but 0 was given; write Site('embed')"),
    "layer out of range": (
        lambda m: m.run(IDS, read=[Site("z", 9)]),
        "z.9 is out of range: embedded has layers 0 to 3",
    ),
    "wrong axis": (
        lambda m: edits.zero(RESID, head=1),
        "resid_pre.0 has axes batch, pos, d_model, not head",
    ),
    "role on a head": (
        lambda m: edits.zero(Site("z", 0), head="IO"),
        "axis 'head' of z.0 takes a number, not the role 'IO'",
    ),
    "unknown role": (
        lambda m: m.run(IDS, edits=[edits.zero(RESID, pos="IO")]),
        "these prompts have no role 'IO'; their roles: none",
    ),
    "index out of range": (
        lambda m: m.run(IDS, edits=[edits.zero(Site("z", 0), head=7)]),
        "edit of z.0 at {'head': 7} is out of range; its axes: {'batch': 1, 'pos': 3, 'head': 4, 'd_head': 32}",
    ),
    "nothing selected": (
        lambda m: m.run(IDS, edits=[edits.zero(RESID, pos=slice(2, 2))]),
        "edit of resid_pre.0 at {'pos': slice(2, 2, None)} selects nothing; check its indices",
    ),
    "padding selected": (
        lambda m: m.run((torch.tensor([[0, 1, 2]]), torch.tensor([[0, 1, 1]])), edits=[edits.zero(RESID, pos=0)]),
        "the edit of resid_pre.0 at {'pos': 0} selects nothing but padding in some prompt; numbers are columns of the padded "
        "batch: count from the end, or use a role",
    ),
    "nothing returned": (
        lambda m: m.run(IDS, edits=[Edit(RESID, lambda x: None)]),
        "the change at resid_pre.0 returned NoneType; return the new tensor",
    ),
    "written in place": (
        lambda m: m.run(IDS, edits=[Edit(RESID, lambda x: x.mul_(2))]),
        "the change at resid_pre.0 wrote into its argument; return a new tensor instead",
    ),
    "wrong shape": (
        lambda m: m.run(IDS, edits=[Edit(RESID, lambda x: x[..., :5])]),
        "the selected part of resid_pre.0 has shape (1, 3, 128), but the change returned (1, 3, 5); what comes from "
        "another run is of as many prompts, and at the same indices",
    ),
    "NaN made": (
        lambda m: m.run(IDS, edits=[edits.scale(RESID, float("nan"))]),
        "the edit of resid_pre.0 at {} made NaN out of numbers",
    ),
    "too small to matter": (
        lambda m: m.run(IDS, edits=[edits.add(RESID, torch.full((128,), 1e-30))]),
        "the edit of resid_pre.0 at {} changed nothing; is it too small for this dtype?",
    ),
    "zero direction": (
        lambda m: edits.remove(RESID, torch.zeros(4)),
        "a direction is one vector of finite, non-zero length; given shape (4,), norm 0",
    ),
    "several tokens": (
        lambda m: m.token_id("went to"),
        "'went to' is 2 tokens ['went', 'to'], not one; a leading space often helps",
    ),
    "unknown word": (
        lambda m: m.run("the zork was"),
        "['zork'] is not in the tokenizer's vocabulary of 436 words",
    ),
    "empty prompt": (lambda m: m.run(""), "the prompt '' is empty: it has no tokens"),
    "no prompts": (
        lambda m: m.run([]),
        "prompts are a text, texts, token ids, (ids, mask), what a tokenizer returns, or Tokens, not an empty list",
    ),
    "too long": (
        lambda m: m.run("the " * 96),
        "a prompt of 97 tokens does not fit the model's context of 96",
    ),
    "ids out of range": (
        lambda m: m.run(torch.tensor([[1, 900]])),
        "token ids are integers from 0 to 511, not 1 to 900",
    ),
    "padded on the right": (
        lambda m: m.run((torch.tensor([[1, 2, 0]]), torch.tensor([[1, 1, 0]]))),
        "prompts are padded on the left, so that the mask of each is 0 … 0 1 … 1; this one is not",
    ),
    "no tokenizer": (
        lambda m: interp.load(tiny.build("gpt2")).run("when"),
        "this model has no tokenizer, so it cannot take texts; give it token ids, or load(..., tokenizer=…)",
    ),
    "not read": (
        lambda m: m.run(IDS)[RESID],
        "resid_pre.0 was not read in this run; sites that were: none. Pass it in `read=`",
    ),
    "train mode": (_train_mode, "GPT2LMHeadModel is in train mode (the model); call .eval() on it first"),
    "no such site": (
        lambda m: interp.load(tiny.build("phi")).run(IDS, read=[Site("resid_mid", 0)]),
        "PhiForCausalLM has no 'resid_mid': attention and MLP run side by side, so that nothing lies between them; it has "
        "embed, resid_pre, q, k, v, scores, pattern, z, attn_out, mlp_pre, mlp_post, mlp_out, resid_post, resid_final",
    ),
    "missing folder": (
        lambda m: interp.load("./no/such/folder"),
        "there is no folder './no/such/folder'; give a folder written by save_pretrained, or a hub name",
    ),
    "unknown backend": (
        lambda m: interp.load(backend="jax"),
        "unknown backend 'jax'; choose from huggingface, transformer_lens, nnsight",
    ),
    "different lengths": (
        lambda m: patching.patch(m, "the dog", "the big dog", [RESID], metrics.logit(4)),
        "clean and corrupt must be aligned token by token; their shapes are (1, 3) and (1, 4)",
    ),
    "no gap": (
        lambda m: patching.patch(m, "the dog", "the dog", [RESID], metrics.logit(4)),
        "the gap in logit is nearly zero in prompts [0], so that a share of it means nothing; choose other prompts, or pass "
        "normalize=False",
    ),
    "answers for other prompts": (
        lambda m: metrics.logit(torch.tensor([1, 2]))(m.run(IDS)),
        "answers for 2 prompts were given, but 1 prompts were run",
    ),
    "no sites": (lambda m: _patch(m, sites=[]), "give at least one site, such as those of model.sites('z')"),
    "an axis that only one kind has": (
        lambda m: _patch(m, sites=[Site("z", 0), RESID], over=["head"]),
        "resid_pre has no axis head to go over; it has pos, d_model",
    ),
    "sites with and without a layer": (
        lambda m: _patch(m, sites=[Site("embed"), RESID]),
        "sites with and without a layer cannot share an axis; take embed and resid_final on their own",
    ),
    "no such direction": (
        lambda m: _patch(m, direction="sideways"),
        "unknown direction 'sideways'; choose from denoising, noising",
    ),
    "one direction of both": (
        lambda m: patching.both_directions(m, "a", "a", [RESID], metrics.logit(4), direction="noising"),
        "both_directions patches in both; leave direction= out, or call patch",
    ),
    "two metrics of one name": (
        lambda m: _patch(m, [metrics.logit(4), metrics.logit(5)]),
        "metrics need names that tell them apart, not ['logit', 'logit']; rename by dataclasses.replace",
    ),
    "pairs of different lengths": (
        lambda m: patching.patch(m, ["the dog", "dog"], ["dog", "the dog"], [RESID], metrics.logit(4)),
        "clean and corrupt must be aligned token by token; pairs [0, 1] are of different lengths",
    ),
    "dependent directions": (
        lambda m: _patch(m, subspace=torch.ones(2, 128)),
        "a subspace is a direction (d,) or independent, finite vectors (k, d); these, (2, 128), are not",
    ),
    "a subspace of another width": (
        lambda m: _patch(m, subspace=torch.ones(5)),
        "a vector of 5 entries does not fit the selected part of resid_pre.0, (2, 15, 128)",
    ),
    "a subspace of an axis that is patched over": (
        lambda m: _patch(m, sites=[Site("mlp_post", 0)], over=["neuron"], subspace=torch.ones(512)),
        "a subspace of mlp_post.0 lies in its last axis, which must be a whole one of features, not neuron",
    ),
    "NaN in the metric": (
        lambda m: _patch(m, metrics.Metric("mine", lambda logits: logits[:, 0] * float("nan"))),
        "mine is not a number in 2 of 2 values; are there NaN among the weights? Where half precision overflows, load the "
        "model in float32",
    ),
    "position of a pattern": (
        lambda m: _patch(m, sites=[Site("pattern", 0)], over=["pos"]),
        "pattern has no axis pos to go over; it has head, query, key",
    ),
    "an axis twice": (
        lambda m: _patch(m, over=["pos", "pos"]),
        "over=('pos', 'pos') repeats an axis; name each once",
    ),
    "roles without pos": (
        lambda m: _patch(m, roles=["S2"]),
        "roles ['S2'] were given, but over=() has no axis of positions to run over them",
    ),
    "a role to patch that is not there": (
        lambda m: _patch(m, over=["pos"], roles=["S9"]),
        "these prompts have no role 'S9'; their roles: END, IO, S1, S2, object, place",
    ),
    "layers out of range": (
        lambda m: m.sites("z", layers=[9]),
        "z.9 is out of range: embedded has layers 0 to 3",
    ),
    "gradients of different lengths": (
        lambda m: attribution.integrated_gradients(m, "the dog", "the big dog", RESID, metrics.logit(4)),
        "clean and corrupt must be aligned token by token; their shapes are (1, 3) and (1, 4)",
    ),
    "gradients of a pattern": (
        lambda m: attribution.integrated_gradients(m, "the dog", "the cat", Site("pattern", 0), metrics.logit(4)),
        "pattern has no axis pos to go over; it has head, query, key",
    ),
    "no steps": (
        lambda m: attribution.integrated_gradients(m, "the dog", "the cat", RESID, metrics.logit(4), steps=0),
        "the path needs at least one step; steps=0 was given",
    ),
    "lens of scores": (
        lambda m: lens.logit_lens(m, IDS, metrics.logit(4), kind="scores"),
        "a lens decodes the residual stream and what is added to it; scores has axes batch, head, query, key",
    ),
    "probe of one class": (
        lambda m: _probe(m, (True,) * 4),
        "a probe needs labels of at least two classes, not [True]",
    ),
    "fit of one class": (
        lambda m: probing.fit(torch.randn(4, 3), torch.zeros(4)),
        "a probe needs labels of two classes or more, not [0.0]",
    ),
    "fit of NaN": (
        lambda m: probing.fit(torch.full((4, 3), float("nan")), torch.tensor([0, 1, 0, 1])),
        "the features of 4 examples are not finite numbers",
    ),
    "fit under no penalty": (
        lambda m: probing.fit(torch.randn(4, 8), [0, 1, 0, 1], penalty=0),
        "the penalty of logistic lies above 0, but 0 was given; for hardly any take 1e-6",
    ),
    "fit under too much shrinkage": (
        lambda m: probing.fit(torch.randn(9, 3), [0, 1, 0] * 3, penalty=1.0, by="lda"),
        "the penalty of lda lies between 0 and 1, but 1.0 was given; for hardly any take 1e-6",
    ),
    "fit with a penalty that it has not": (
        lambda m: probing.fit(torch.randn(9, 3), [0, 1, 0] * 3, penalty=1.0, by="mass_mean"),
        "mass_mean takes no penalty, but 1.0 was given; leave penalty= out",
    ),
    "probe of a pattern": (
        lambda m: _probe(m, site=Site("pattern", 0)),
        "pattern.0 has no position axis; its axes are batch, head, query, key",
    ),
    "probe at a position too far": (
        lambda m: _probe(m, at=3),
        "position 3 is out of range: the prompts have 3 positions",
    ),
    "probe of no site": (
        lambda m: probing.collect(m, ["the dog"] * 4, []),
        "no sites were given to probe; give some, such as model.sites('resid_post')",
    ),
    "mean of a pattern": (
        lambda m: steering.mean_difference(m, "the dog", "the cat", Site("pattern", 0)),
        "pattern.0 has no position axis; its axes are batch, head, query, key",
    ),
    "steering vector of another width": (
        lambda m: steering.dose_response(m, IDS, steering.Vector.of(RESID, torch.ones(5)), metrics.logit(4)),
        "a vector of 5 entries does not fit the selected part of resid_pre.0, (1, 1, 128)",
    ),
    "no doses": (
        lambda m: steering.dose_response(
            m, IDS, steering.Vector.of(RESID, torch.ones(128)), metrics.logit(4), doses=()
        ),
        "doses are at least one number; none was given",
    ),
    "direction of another width": (
        lambda m: m.run(IDS, edits=[edits.remove(RESID, torch.ones(5))]),
        "a vector of 5 entries does not fit the selected part of resid_pre.0, (1, 3, 128)",
    ),
    "clamp along another width": (
        lambda m: m.run(IDS, edits=[edits.clamp(RESID, 0, 1, direction=torch.ones(5))]),
        "a vector of 5 entries does not fit the selected part of resid_pre.0, (1, 3, 128)",
    ),
    "answers that are no ids": (
        lambda m: metrics.logit(torch.tensor([1.5]))(m.run(IDS)),
        "answers are token ids, one, (batch,) or (batch, n), not torch.float32 of (1,)",
    ),
    "no answer": (
        lambda m: metrics.logit(torch.tensor([[-1, -1]]))(m.run(IDS)),
        "every prompt needs an answer: token ids from 0 on; -1 only fills up unequal numbers",
    ),
    "reference of other prompts": (
        lambda m: metrics.kl_from(torch.zeros(2, 512))(m.run(IDS)),
        "the reference logits are (2, 512), but the run's are (1, 512); both are (batch, vocab)",
    ),
    "role of a metric, last logits only": (
        lambda m: metrics.logit(4).reading("S2")(m.run(tasks.ioi(m, n=1).clean, last_only=True)),
        "logit reads the role 'S2', but the run was asked for other logits only",
    ),
    "a row with an answer of several tokens": (
        lambda m: tasks.from_rows(m, [dict(clean="the dog", corrupt="the cat", right="runs", wrong=" run to")]),
        "task, row 0, wrong: ' run to' is 2 tokens ['run', 'to'], not one; take a word that is one",
    ),
    "a row without its answers": (
        lambda m: tasks.from_rows(m, [dict(clean="the dog", corrupt="the cat", right="runs", wrong="run"), {}]),
        "task, row 1: each row needs clean, corrupt, right and wrong; missing: clean, corrupt, right, wrong",
    ),
    "unknown split": (
        lambda m: tasks.ioi(m, split="tset"),
        "unknown split 'tset'; choose 'train', 'test', or None for both",
    ),
    "nothing in the split": (
        lambda m: corpus.draw_until(random.Random(0), "test", ["a"], ["c"]),
        "no combination of words from pools of 1 and 1 was found in split 'test'; give more words, or split=None",
    ),
    "no pair in the split": (
        lambda m: corpus.draw_pair(random.Random(0), "test", ("a", "c")),
        "no combination of words from pools of 2 and 2 was found in split 'test'; give more words, or split=None",
    ),
    "no such edge": (
        lambda m: circuits.graph(m).mask([("L3H0", "L1H0.q")]),
        "no edge goes from 'L3H0' to 'L1H0.q'; writers are embed, L0H0, … mlp3, readers L0H0.q, … mlp3, logits, and a writer "
        "comes before its reader",
    ),
    "mask of another graph": (
        lambda m: _edges(m, torch.ones(3, 4)),
        "a mask of edges is (writer, reader) (21, 53) or (pos, writer, reader) (3, 21, 53); 'mine' is (3, 4)",
    ),
    "mask on no edge": (
        lambda m: _edges(m, torch.ones(21, 53)),
        "the mask 'mine' is not 0 from 'L0H0' to 'L0H0.q', where there is no edge; multiply it by graph.precedes",
    ),
    "mask of NaN": (
        lambda m: _edges(m, torch.full((21, 53), float("nan"))),
        "the mask 'mine' holds numbers that are not finite; 0 leaves an edge as it is",
    ),
    "no sets of edges": (
        lambda m: circuits.patch_edges(m, "the dog", "the cat", {}, metrics.logit(4)),
        "no set of edges was given; give some by name, such as {'all': graph(model).mask()}",
    ),
    "sets of edges of two kinds": (
        lambda m: circuits.patch_edges(
            m, "the dog", "the cat", {"a": torch.zeros(21, 53), "b": torch.zeros(3, 21, 53)}, metrics.logit(4)
        ),
        "some sets of edges have positions and others have none; try them in two calls",
    ),
    "no edges to try": (
        lambda m: circuits.patch_each_edge(m, "the dog", "the cat", metrics.logit(4), torch.zeros(21, 53)),
        "no edge was chosen to be tried; give a mask with 1 on some, such as graph(model).mask([('*', 'logits')])",
    ),
    "unknown direction": (
        lambda m: _edges(m, direction="backwards"),
        "unknown direction 'backwards'; choose from denoising, noising",
    ),
    "edges of different lengths": (
        lambda m: circuits.eap(m, "the dog", "the big dog", metrics.logit(4)),
        "clean and corrupt must be aligned token by token; their shapes are (1, 3) and (1, 4)",
    ),
    "edges of different padding": (
        lambda m: circuits.eap(m, (IDS, torch.ones_like(IDS)), (IDS, torch.tensor([[0, 1, 1]])), metrics.logit(4)),
        "clean and corrupt must be aligned token by token; pairs [0] are of different lengths",
    ),
    "edges over heads": (
        lambda m: circuits.eap(m, "the dog", "the cat", metrics.logit(4), over=["head"]),
        "edges are scored by writer and reader and, with over=['pos'], by position; not over ['head']",
    ),
    "edges without a gradient": (lambda m: circuits.eap(m, "the dog", "the cat", RANK), NO_GRADIENT),
    "edges along a path without a gradient": (lambda m: circuits.eap_ig(m, "the dog", "the cat", RANK), NO_GRADIENT),
    "an estimate without a gradient": (
        lambda m: attribution_patching.estimate(m, "the dog", "the cat", [RESID], RANK),
        NO_GRADIENT,
    ),
    "an estimate along a path without a gradient": (
        lambda m: attribution_patching.estimate(m, "the dog", "the cat", [RESID], RANK, by=attribution_patching.INPUTS),
        NO_GRADIENT,
    ),
    "an attribution without a gradient": (
        lambda m: attribution.integrated_gradients(m, "the dog", "the cat", RESID, RANK),
        NO_GRADIENT,
    ),
    "several metrics, one without a gradient": (
        lambda m: sweep(
            m, "the dog", [[edits.add(RESID, torch.zeros(1).requires_grad_())]], [metrics.logit(4), RANK], grad=True
        ),
        NO_GRADIENT,
    ),
    "captum's attribution without a gradient": (
        lambda m: attribution.saliency(m, "the dog", RESID, RANK),
        NO_GRADIENT,
    ),
    "a path of edges without steps": (
        lambda m: circuits.eap_ig(m, "the dog", "the cat", metrics.logit(4), steps=0),
        "the path needs at least one step; steps=0 was given",
    ),
    "a task of the embedded model's language on another model": (
        lambda m: tasks.facts(
            interp.load(tiny.build("gpt2", vocab_size=600), tokenizer=tiny.english_tokenizer()), n=1, seed=1
        ),
        "'the capital of Vel land is' is a sentence of the embedded model's language, of which every word is one token, "
        "but not one of GPT2LMHeadModel; for a pretrained model take the tasks of interp.english, or tasks.from_rows",
    ),
    "edges of a family without a row": (
        lambda m: circuits.graph(interp.load(tiny.build("bitnet"))),
        "it is not known how 'bitnet' reads its residual stream; add `reads=` to a row FAMILIES['bitnet'] in "
        "interp/backends/families.py",
    ),
    "edges of post-norm blocks": (
        lambda m: circuits.graph(interp.load(tiny.build("opt", do_layer_norm_before=False))),
        "in OPTForCausalLM a norm follows each sum, so that its stream is not the sum of what is written to it, and there "
        "are no edges to tell apart",
    ),
    "edges of an adapter": (
        lambda m: circuits.graph(interp.load(_adapted())),
        "attn.c_proj is a Sequential, not a plain matrix, so that its heads cannot be told apart; merge adapters and undo "
        "quantisation first",
    ),
    "edges of a rewritten bridge": (
        lambda m: circuits.graph(_rewritten()),
        "edges need Hugging Face modules with the weights as published, and GPT2LMHeadModel on transformer_lens has none; load "
        "the Hugging Face model itself with interp.load(module)",
    ),
    "heatmap of three axes": (
        lambda m: plots.heatmap(_patch(m, over=["pos"])),
        "a heatmap needs two axes, not ('layer', 'pos', 'prompt'); average the others, as in .mean('prompt')",
    ),
    "a metric that averages": (
        lambda m: _patch(m, metrics.Metric("mine", lambda logits: logits[:, 5].mean())),
        "mine must give one number for each prompt, a tensor of shape (2,), but gave shape (); do not average over prompts",
    ),
    "a role that is not there": (
        lambda m: m.tokens(["Mary and John", "Mary and Mary"], roles={"S": "Mary"}),
        "role 'S' is 'Mary', which prompt 1 has 2 times; give its position",
    ),
    "a role outside": (
        lambda m: m.tokens(["Mary and John"], roles={"S": 7}),
        "role 'S' is position 7, but prompt 0 has 4 tokens",
    ),
    "interval of one value": (
        lambda m: stats.interval(_patch(m).isel(prompt=[0])),
        "an interval needs at least two values along 'prompt'; the array has {'layer': 1, 'prompt': 1}",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_message(case: str, embedded: interp.Model):
    call, message = CASES[case]
    with pytest.raises((ValueError, TypeError, IndexError, KeyError, RuntimeError, OSError)) as caught:
        call(embedded)
    assert caught.value.args[0] == message


def test_prompts_may_be_what_a_tokenizer_gives_or_plain_numbers(embedded: interp.Model):
    text = "Mary and John"
    wanted = embedded.tokens(text)
    ids = wanted.ids.tolist()
    batch = {"input_ids": wanted.ids, "attention_mask": wanted.mask}
    for given in (
        batch,
        {"input_ids": ids},
        ids,
        ids[0],
        wanted.ids.numpy(),
        (wanted.ids.numpy(), wanted.mask.numpy()),
    ):
        found = embedded.tokens(given)
        assert found.ids.equal(wanted.ids) and found.mask.equal(wanted.mask)
    ragged = embedded.tokens([[5, 6], [1, 2, 3]])
    assert ragged.mask.tolist() == [[0, 1, 1], [1, 1, 1]] and ragged.ids[0, 1:].tolist() == [5, 6]


def test_roles_count_a_prompts_own_tokens(embedded: interp.Model):
    roles = {"first": 1, "last": -1, "and": "and", "name": ["John", 1]}
    tokens = embedded.tokens(["Mary and John went", "Mary and John"], roles=roles)
    words = [[embedded.words(row)[int(at)] for row, at in zip(tokens.ids, tokens.role(name))] for name in roles]
    assert words == [["Mary", "Mary"], ["went", "John"], ["and", "and"], ["John", "Mary"]]


def test_tokens_with_roles_can_be_sliced():
    tokens = Tokens(IDS.repeat(2, 1), torch.ones(2, 3, dtype=torch.long), {"END": torch.tensor([2, 1])})
    assert tokens.rows([1]).role("END").tolist() == [1]
