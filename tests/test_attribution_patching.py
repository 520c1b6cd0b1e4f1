"""Attribution patching against exact patching, finite differences, and the limits in which it is exact."""

import numpy as np
import pytest
import tiny
import torch
import xarray as xr
from conftest import load
from torch.testing import assert_close

import interp
from interp import Site, Tokens, edits, metrics, patching, tasks
from interp import attribution_patching as ap
from interp.arrays import checks_of
from interp.attribution_patching import softmax

METRIC = metrics.logit_diff(5, 9)
IDS = torch.randint(3, 30, (2, 2, 5), generator=torch.Generator().manual_seed(3))
IDS[:, 0, :2], MASK = 0, torch.ones_like(IDS[0])
MASK[0, :2] = 0  # the first pair is shorter
END = torch.tensor([4, 4])
ROLES = {"one": torch.tensor([2, 1]), "last": END}, {"one": torch.tensor([3, 2]), "last": END}
CLEAN, CORRUPT = (Tokens(ids, MASK, roles) for ids, roles in zip(IDS, ROLES))
OWN = ap.Estimator("own", steps=40)
FINE = {"gpt2": (1e-5, 1e-7), "llama": (3e-3, 5e-3), "gpt_neox": (1e-5, 1e-7)}  # Llama's norm computes in float32
NAMES = ["gpt2", "llama", "gpt_neox"]
PLACES = [
    ("z", ["head"]), ("q", ["pos"]), ("k", ["head"]), ("v", ["head"]), ("mlp_out", ["pos"]),
    ("attn_out", []), ("resid_pre", ["pos"]), ("pattern", ["head"]), ("mlp_pre", ["pos"]), ("resid_final", ["pos"]),
]  # fmt: skip
EVERY = pytest.mark.parametrize("kind, over", PLACES, ids=[kind for kind, _ in PLACES])


def sites(model: interp.Model, kind: str) -> list[Site]:
    return [Site(kind)] if kind == "resid_final" else [Site(kind, layer) for layer in (1, 2)]


def exact(model, kind, over, **more) -> np.ndarray:
    return patching.patch(model, CLEAN, CORRUPT, sites(model, kind), METRIC, over=over, normalize=False, **more).values


def estimated(model, kind, over, by=ap.ATP, **more) -> np.ndarray:
    more = dict(normalize=False) | more
    return ap.estimate(model, CLEAN, CORRUPT, sites(model, kind), METRIC, over, by=by, **more).values


@EVERY
@pytest.mark.parametrize("name", NAMES)
def test_gradients_over_a_nodes_own_activation_add_up_to_patching_it(name, kind, over):
    model = load(name, dtype=torch.float64)
    np.testing.assert_allclose(estimated(model, kind, over, OWN), exact(model, kind, over), atol=1e-4)


def test_own_paths_add_up_to_patching_on_the_embedded_model(embedded):
    task = tasks.ioi(embedded, n=4)
    given = embedded, task.clean, task.corrupt, embedded.sites("z"), task.logit_diff
    found = ap.estimate(*given, ["head"], by=ap.Estimator("own", steps=80))
    np.testing.assert_allclose(found, patching.patch(*given, over=["head"]), atol=1e-4)


@EVERY
@pytest.mark.parametrize("name", NAMES)
def test_the_estimate_is_the_slope_of_patching_by_a_little(name, kind, over):
    """Patching a small part of the way, by finite differences."""
    model, step, atol = load(name, dtype=torch.float64), *FINE[name]
    found = estimated(model, kind, over)
    found = torch.tensor(found[None] if kind == "resid_final" else found)
    clean = model.run(CLEAN, read=sites(model, kind))
    for i, site in enumerate(sites(model, kind)):
        for index in [*np.ndindex(*found.shape[1:-1])][::7]:
            measured = found[(i, *index)].isfinite()
            at = dict(zip(over, index)) | {"batch": measured.nonzero().flatten()}
            edit = [[edits.blend(clean, site, s, **at)] for s in (step, -step)]
            up, down = (METRIC(model.run(CORRUPT, edits=e)) for e in edit)
            assert_close(found[(i, *index)][measured], ((up - down) / (2 * step))[measured], atol=atol, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_role_is_taken_from_where_each_prompt_has_it(name):
    model = load(name, dtype=torch.float64)
    found = estimated(model, "resid_pre", ["pos"], OWN, roles=["one", "last"])
    np.testing.assert_allclose(found, exact(model, "resid_pre", ["pos"], roles=["one", "last"]), atol=1e-4)
    end = estimated(model, "z", ["head", "pos"], roles=["last"])[:, :, 0]
    np.testing.assert_allclose(end, estimated(model, "z", ["head", "pos"])[:, :, -1])
    clean = model.run(CLEAN, read=sites(model, "k"))
    step, atol = FINE[name]
    up, down = (
        METRIC(model.run(CORRUPT, edits=[edits.blend(clean, Site("k", 1), s, pos="one")])) for s in (step, -step)
    )
    atp = torch.tensor(estimated(model, "k", ["pos"], roles=["one"]))[0, 0]
    assert_close(atp, (up - down) / (2 * step), atol=atol, rtol=1e-5)


def one_softmax(name: str) -> interp.Model:
    """One layer of attention, no MLP to speak of and no final norm: the logits are linear in its pattern."""
    module = tiny.build(name, torch.float64, **{"n_layer" if name == "gpt2" else "num_hidden_layers": 1})
    inner = module.transformer if name == "gpt2" else module.model
    last = inner.h[0].mlp.c_proj if name == "gpt2" else inner.layers[0].mlp.down_proj
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.zero_()
    setattr(inner, "ln_f" if name == "gpt2" else "norm", torch.nn.Identity())
    return interp.load(module.eval())


@pytest.mark.parametrize("over", [["pos", "head"], ["head"], ["pos"], []], ids=str)
@pytest.mark.parametrize("kind", ["q", "k"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_fix_is_exact_through_one_softmax(name, kind, over):
    given = one_softmax(name), CLEAN, CORRUPT, [Site(kind, 0)], METRIC
    wanted = patching.patch(*given, over=over, normalize=False).values
    plain, fixed = (
        ap.estimate(*given, over, normalize=False, by=by).values for by in (ap.ATP, ap.Estimator(qk_fix=True))
    )
    np.testing.assert_allclose(fixed, wanted, atol=1e-9)
    assert np.nanmax(abs(plain - wanted)) > 1e-3


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("kind", ["q", "k"])
def test_the_fix_is_the_change_of_the_pattern_times_its_gradient(name, kind):
    """Node by node, on grouped heads and with padding: the pattern of a run in which the node is patched."""
    model = load(name, dtype=torch.float64)
    site, pattern = Site(kind, 1), Site("pattern", 1)
    clean, base = model.run(CLEAN, read=[site]), model.run(CORRUPT, read=[pattern], grad=True)
    (slope,) = torch.autograd.grad(METRIC(base).sum(), [base[pattern]])
    found = torch.tensor(estimated(model, kind, ["pos", "head"], ap.Estimator(qk_fix=True)))[0]
    for pos, head in np.ndindex(*found.shape[:2]):
        measured = found[pos, head].isfinite()
        if not measured.any():
            continue
        edit = edits.copy(clean, site, batch=measured.nonzero().flatten(), pos=pos, head=head)
        changed = model.run(CORRUPT, read=[pattern], edits=[edit])[pattern]
        wanted = ((changed - base[pattern].detach()) * slope).sum((1, 2, 3))
        assert_close(found[pos, head][measured], wanted[measured], atol=1e-9, rtol=1e-7)


def test_a_sure_head_keeps_its_numbers_finite():
    """Two keys; each one's change alone moves all of the attention, or none."""
    scores, changed = (
        torch.tensor([[[[200.0, 0.0]]], [[[0.0, -1e30]]]]),
        torch.tensor([[[[-9.0, 500.0]]], [[[7.0, 9.0]]]]),
    )
    gradient = torch.tensor([1.0, 3.0]).expand(2, 1, 1, 2)
    found = softmax.by_key(scores, changed, gradient)
    assert_close(found.flatten(), torch.tensor([2.0, 2.0, 0.0, 2.0]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_dropping_a_layer_leaves_the_skip_connection(name):
    """Of two layers: a node of the second has its plain size; one of the first what it has with the second frozen."""
    module = tiny.build(name, torch.float64, **{"n_layer" if name == "gpt2" else "num_hidden_layers": 2})
    model = interp.load(module, tokenizer=tiny.tokenizer())
    layers = [Site("z", 0), Site("z", 1)]
    given = model, CLEAN, CORRUPT, layers, METRIC, ["head"]
    plain, dropped = (
        torch.tensor(ap.estimate(*given, normalize=False, by=by).values)
        for by in (ap.ATP, ap.Estimator(grad_drop=True))
    )
    assert_close(dropped[1], plain[1].abs())
    kept = [Site("attn_out", 1), Site("mlp_out", 1)]
    clean, corrupt = model.run(CLEAN, read=layers), model.run(CORRUPT, read=kept)
    frozen = [edits.copy(corrupt, site) for site in kept]
    for head in range(4):
        up, down = (
            METRIC(model.run(CORRUPT, edits=[edits.blend(clean, layers[0], s, head=head), *frozen]))
            for s in (FINE[name][0], -FINE[name][0])
        )
        assert_close(dropped[0, head], ((up - down) / (2 * FINE[name][0])).abs(), atol=FINE[name][1], rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_along_the_inputs_add_up_at_the_inputs(name):
    """All that differs between the runs is their embeddings."""
    model = load(name, dtype=torch.float64)
    by = ap.Estimator("inputs", steps=100)
    found = ap.estimate(model, CLEAN, CORRUPT, [Site("embed")], METRIC, ["pos"], by=by, normalize=True)
    np.testing.assert_allclose(found.sum("pos"), 1, atol=1e-3)


@pytest.mark.parametrize("by", [ap.ATP, ap.ATP_STAR, ap.INPUTS], ids=["atp", "star", "inputs"])
@pytest.mark.parametrize("kind", ["z", "k"])
def test_prompts_do_not_mind_each_other_nor_padding(by, kind):
    model = load("llama", dtype=torch.float64)
    both = estimated(model, kind, ["head"], by)
    for i, width in enumerate((3, 5)):
        alone = [ids[i : i + 1, -width:] for ids in IDS]
        one = ap.estimate(model, *alone, sites(model, kind), METRIC, ["head"], normalize=False, by=by).values
        np.testing.assert_allclose(both[..., i], one[..., 0], atol=1e-9)


@pytest.mark.parametrize("by", [ap.ATP, ap.ATP_STAR, ap.INPUTS, OWN], ids=["atp", "star", "inputs", "own"])
@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_all_kinds_at_once_are_each_on_its_own(by, direction):
    """Key-value heads are fewer than query heads: what is not there is not a number."""
    model, kinds = load("llama", dtype=torch.float64), ["q", "k", "z"]
    every = [site for kind in kinds for site in sites(model, kind)]
    more = dict(over=["head"], by=by, direction=direction, normalize=False)
    found = ap.estimate(model, CLEAN, CORRUPT, every, METRIC, **more)
    for kind in kinds:
        alone = ap.estimate(model, CLEAN, CORRUPT, sites(model, kind), METRIC, **more)
        here = found.sel(kind=kind, head=alone["head"].values)
        np.testing.assert_allclose(here, alone, atol=1e-9)
        assert found.sel(kind=kind).isel(head=slice(alone.sizes["head"], None)).isnull().all()


@pytest.mark.parametrize("by", [ap.ATP, ap.ATP_STAR, ap.INPUTS], ids=["atp", "star", "inputs"])
def test_every_backend_gives_the_same_estimates(by, backend):
    here, there = (estimated(load("gpt2", backend), "q", ["head"], by) for backend in ("huggingface", backend))
    np.testing.assert_allclose(there, here, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("by", [ap.ATP, ap.ATP_STAR], ids=["atp", "star"])
def test_verifying_every_node_is_patching(embedded, by):
    task = tasks.ioi(embedded, n=4)
    given = embedded, task.clean, task.corrupt, embedded.sites("k"), task.logit_diff
    found = ap.verify(*given, ["head"], by=by, top=4, others=99)
    wanted = patching.patch(*given, over=["head"])
    np.testing.assert_allclose(found.exact, wanted, atol=1e-5)
    guess, effect = (
        a.mean("prompt").values.flatten() for a in (found.estimate, abs(wanted) if by.grad_drop else wanted)
    )
    checks = {check.name: check.value for check in checks_of(found.estimate)}
    np.testing.assert_allclose(checks["Pearson correlation with exact"], np.corrcoef(guess, effect)[0, 1], rtol=1e-4)
    ranks = [values.argsort().argsort() for values in (guess, effect)]
    np.testing.assert_allclose(checks["rank correlation with exact"], np.corrcoef(*ranks)[0, 1], rtol=1e-4)
    np.testing.assert_allclose(checks["worst miss"], abs(guess - effect).max() / abs(effect).max(), rtol=1e-4)


def test_verification_patches_the_first_and_a_sample_of_the_rest(embedded):
    task = tasks.ioi(embedded, n=4)
    given = embedded, task.clean, task.corrupt, embedded.sites("z"), task.logit_diff
    found = ap.verify(*given, ["pos", "head"], top=5, others=7)
    measured = found.exact.notnull().all("prompt")
    size = abs(found.estimate).mean("prompt")
    assert int(measured.sum()) == 12 and found.attrs["engine"]
    assert int((measured & (size >= np.sort(size.values.flatten())[-5])).sum()) == 5
    wanted = patching.patch(*given, over=["pos", "head"])
    np.testing.assert_allclose(found.exact.where(measured, 0), wanted.where(measured, 0), atol=1e-5)


def test_estimates_are_kept_in_files(tmp_path):
    made = ap.verify(load("gpt2"), CLEAN, CORRUPT, [Site("z", 0), Site("z", 1)], METRIC, ["head"], by=ap.ATP_STAR)
    made.to_netcdf(tmp_path / "made.nc")
    made.estimate.to_netcdf(tmp_path / "estimate.nc")
    assert xr.load_dataset(tmp_path / "made.nc").attrs == made.attrs


REFUSED = {
    "path": (lambda m: ap.Estimator("weights"), "along None, 'inputs' or 'own', not 'weights'"),
    "steps": (lambda m: ap.Estimator(steps=4), "None has just one"),
    "own": (lambda m: ap.Estimator("own", 4, qk_fix=True), "leave qk_fix and grad_drop out"),
    "one node": (lambda m: ap.verify(m, CLEAN, CORRUPT, [Site("z", 0)], METRIC), "needs two nodes or more"),
    "part of q": (lambda m: estimated(m, "q", ["d_head"], ap.ATP_STAR), "leave 'd_head' out"),
    "same": (lambda m: ap.estimate(m, CLEAN, CLEAN, [Site("z", 0)], METRIC), "is nearly zero"),
    "one layer": (
        lambda m: ap.estimate(one_softmax("gpt2"), CLEAN, CORRUPT, [Site("z", 0)], METRIC, by=ap.ATP_STAR),
        "needs two layers or more",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call(load("gpt2"))
