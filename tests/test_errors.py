"""Bad input gets one clear error: what was given, what was expected, what to try."""

from collections.abc import Callable

import pytest
import tiny
import torch

import interp
from interp import Edit, Site, attribution, edits, lens, metrics, patching, plots, stats, steering, tasks  # noqa: F401
from interp.traces import Tokens

IDS = torch.tensor([[1, 2, 3]])
RESID = Site("resid_pre", 0)


def _train_mode(model: interp.Model) -> None:
    module = tiny.build("gpt2")
    module.train()
    interp.load(module).run(IDS)


CASES: dict[str, tuple[Callable[[interp.Model], object], str]] = {
    "unknown kind": (
        lambda m: Site("resid_pots", 1),
        "unknown site kind 'resid_pots'; choose from embed, resid_pre, q, k, v, scores, pattern, z, attn_out, resid_mid, "
        "mlp_pre, mlp_post, mlp_out, resid_post, resid_final",
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
        "the edit of resid_pre.0 at {'pos': 0} selects padding only; count positions from the end, or use a role",
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
        "the selected part of resid_pre.0 has shape (1, 3, 128), but the change returned (1, 3, 5)",
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
        "prompts are a text, texts, token ids, (ids, mask) or Tokens, not an empty list",
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
        "this model has no tokenizer, so it cannot take texts; give it token ids",
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
        "clean and corrupt give nearly the same logit (prompts [0]), so that a share of the gap means nothing; choose other "
        "prompts, or pass normalize=False",
    ),
    "answers for other prompts": (
        lambda m: metrics.logit(torch.tensor([1, 2]))(m.run(IDS)),
        "answers for 2 prompts were given, but 1 prompts were run",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_message(case: str, embedded: interp.Model):
    call, message = CASES[case]
    with pytest.raises((ValueError, TypeError, IndexError, KeyError, RuntimeError, OSError)) as caught:
        call(embedded)
    assert caught.value.args[0] == message


def test_tokens_with_roles_can_be_sliced():
    tokens = Tokens(IDS.repeat(2, 1), torch.ones(2, 3, dtype=torch.long), {"END": torch.tensor([2, 1])})
    assert tokens.rows([1]).role("END").tolist() == [1]
