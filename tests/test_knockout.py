"""Attention knock-out against masks put into Hugging Face's own attention, one run at a time."""

from contextlib import ExitStack
from itertools import product

import numpy as np
import pytest
import tiny
import torch
from conftest import load
from torch import Tensor, nn

from interp import attribution, metrics, tasks
from interp.backends.families import FAMILIES

PROMPTS = [
    "Mary and John went , John gave to",
    "I love it",
    "the war lasted from year 17",
    "she went and Anna gave a ball to",
]
METRIC = metrics.logit_diff(4, 5)


def _attention(module: nn.Module, layer: int) -> nn.Module:
    row = FAMILIES[module.config.model_type]
    return module.get_submodule(f"{row.blocks}.{layer}.{row.attention}")


def _masked(module: nn.Module, ids: Tensor, layers: list[int], edges: list[tuple[int, int]]) -> float:
    """The metric of one prompt, with edges masked in some layers by way of the module's own attention mask."""

    def cut(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        mask = kwargs["attention_mask"].clone()
        for query, key in edges:
            mask[:, :, query, key] = torch.finfo(mask.dtype).min
        return args, {**kwargs, "attention_mask": mask}

    with ExitStack() as stack, torch.no_grad():
        for layer in layers:
            handle = _attention(module, layer).register_forward_pre_hook(cut, with_kwargs=True)
            stack.callback(handle.remove)
        return METRIC.of(module(input_ids=ids, use_cache=False).logits[:, -1]).item()


@pytest.mark.parametrize("query", [-1, None])
def test_every_cell_is_one_run_with_masked_scores(family, query):
    model = load(family)
    raw = tiny.build(family)
    raw.set_attn_implementation("eager")
    prompts = PROMPTS[:2]
    n_pos = model.tokens(prompts).ids.shape[1]
    found = attribution.knock_out(model, prompts, METRIC, query=query, windows=2)
    assert list(found.window.values) == ["0", "0-1", "1-2"]
    for i, text in enumerate(prompts):
        ids = torch.tensor([tiny.tokenizer()(text).input_ids])
        n, base = ids.shape[1], _masked(raw, ids, [], [])
        assert np.isnan(found.values[:, : n_pos - n, i]).all()
        for (w, layers), key in product(enumerate([[0], [0, 1], [1, 2]]), range(n)):
            value = found.values[w, n_pos - n + key, i]
            queries = [n - 1] if query == -1 else [q for q in range(n) if q != key]
            if np.isfinite(value):
                wanted = _masked(raw, ids, layers, [(q, key) for q in queries]) - base
                np.testing.assert_allclose(value, wanted, atol=2e-5)
            else:  # in a layer with a window of four tokens, nothing further back is there to be cut
                bounded = family == "mistral" or (family == "gemma2" and layers == [0])
                assert (query == -1 and bounded and key < n - 4) or (query is None and key == n - 1)


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral"])
def test_all_keys_but_itself_leave_a_position_its_own_values(family):
    """What attention then adds is its own value through the output matrix, and nothing else."""
    module = tiny.build(family)

    def own(part: nn.Module, args: tuple, kwargs: dict, output: tuple) -> tuple:
        stream = kwargs.get("hidden_states", args[0] if args else None)
        if family == "gpt2":
            added = part.c_proj(part.c_attn(stream)[..., 64:])
        else:
            heads = part.v_proj(stream).unflatten(-1, (2, 8)).repeat_interleave(2, dim=-2).flatten(-2)
            added = part.o_proj(heads)
        return (torch.cat([output[0][:, :-1], added[:, -1:]], 1), *output[1:])

    model = load(family)
    ids = model.tokens(PROMPTS[:1]).ids
    with torch.no_grad():
        before = METRIC.of(module(input_ids=ids, use_cache=False).logits[:, -1])
        for layer in range(3):
            _attention(module, layer).register_forward_hook(own, with_kwargs=True)
        after = METRIC.of(module(input_ids=ids, use_cache=False).logits[:, -1])
    others = {"all but itself": range(ids.shape[1] - 1)}
    found = attribution.knock_out(model, PROMPTS[:1], METRIC, others, windows=[[0, 1, 2]])
    np.testing.assert_allclose(found.values[0, 0], after - before, atol=2e-5)


def test_a_query_left_with_nothing_is_not_measured(embedded):
    n = embedded.tokens("the dog runs").ids.shape[1]
    sets = {"all": range(n), "some": range(n - 1)}
    found = attribution.knock_out(embedded, "the dog runs", METRIC, sets, windows=[[1]])
    assert np.isnan(found.sel(key="all").values).all() and np.isfinite(found.sel(key="some").values).all()


def test_roles_are_the_positions_that_they_name(embedded):
    task = tasks.ioi(embedded, n=6)
    call = lambda keys, query: attribution.knock_out(embedded, task.clean, task.logit_diff, keys, query)
    roles = call(["IO", "S2"], "END")
    wide = call((), -1)
    for role in ("IO", "S2"):
        at = task.clean.role(role).numpy()
        for i in range(len(task)):
            np.testing.assert_allclose(roles.sel(key=role, prompt=i), wide.isel(key=at[i], prompt=i), atol=1e-4)
    together = call({"both": ["IO", "S2"]}, ["END"])
    apart = call({"both": [int(task.clean.role("IO")[0]), int(task.clean.role("S2")[0])]}, [-1])
    np.testing.assert_allclose(together.sel(prompt=0), apart.sel(prompt=0), atol=1e-4)


@pytest.mark.parametrize(
    "width, wanted", [(1, [[0], [1], [2], [3]]), (3, [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3]]), (9, [[0, 1, 2, 3]])]
)
def test_windows_are_centred_and_end_with_the_model(embedded, width, wanted):
    call = lambda windows: attribution.knock_out(embedded, "the dog runs", METRIC, [1], windows=windows)
    np.testing.assert_allclose(call(width), call(wanted), atol=1e-6)
    assert list(call(width).window.values) == list(call(wanted).window.values)


def test_several_queries_are_cut_together(embedded):
    """Every later position by name is what None means."""
    text = "the dog runs ."
    n = embedded.tokens(text).ids.shape[1]
    call = lambda query: attribution.knock_out(embedded, text, METRIC, [1], query, windows=[[0, 2]]).values
    np.testing.assert_allclose(call(range(2, n)), call(None), atol=1e-5)
    assert abs(call(range(2, n)) - call([-1])).max() > 1e-3


def test_shares_and_several_metrics(embedded):
    task = tasks.ioi(embedded, n=4)
    both = [task.prob_diff, metrics.log_prob(task.right)]
    base = torch.stack([metric(embedded.run(task.clean)) for metric in both])
    call = lambda normalize: attribution.knock_out(embedded, task.clean, both, ["S2"], normalize=normalize)
    change, shares = call(False), call(True)
    np.testing.assert_allclose(shares.values * base[:, None, None].numpy(), change.values, atol=1e-5)
    alone = attribution.knock_out(embedded, task.clean, both[1], ["S2"])
    np.testing.assert_allclose(change.isel(metric=1), alone, atol=1e-5)


def test_what_cannot_be_cut_is_said(embedded):
    call = lambda **more: attribution.knock_out(embedded, "the dog runs", METRIC, **more)
    for more, message in (
        (dict(windows=0), "a window has at least one layer; windows=0"),
        (dict(windows=[[]]), "has an empty one"),
        (dict(windows=[[7]]), "has layers 0 to 3"),
        (dict(keys=["S2"]), "no role 'S2'"),
        (dict(keys=[9]), "position 9 is out of range: the prompts have"),
        (dict(keys={"none": []}), "names at least one position or role"),
    ):
        with pytest.raises(ValueError, match=message):
            call(**more)
