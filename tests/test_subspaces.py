"""What is read of a site, and the illusion of a direction that works through what is not."""

import numpy as np
import pytest
import torch
from conftest import load
from torch.testing import assert_close

from interp import Site, subspaces, tasks
from interp.arrays import checks_of

PROMPTS = ["John gave a drink to", "Anna gave a ball to", "you hate the drink so"]


def _matrix(model, kind):
    """The weights that read a site, by name: (d_model, width)."""
    names = {
        "mlp_post": ("mlp.c_proj", "dense_4h_to_h", "down_proj", "fc2"),
        "z": ("attn.c_proj", "attention.dense", "o_proj", "out_proj", "self_attn.dense"),
    }
    (module,) = [m for name, m in model.module.named_modules() if ".1." in name and name.endswith(names[kind])]
    weight = module.weight.detach()
    return weight.T if type(module).__name__ == "Conv1D" else weight


def test_what_is_read_is_the_row_space_of_the_output_matrix(family):
    model = load(family)
    tokens = model.tokens(PROMPTS)
    for kind in ("mlp_post", "z"):
        matrix = _matrix(model, kind)
        if kind == "z":
            matrix = matrix[:, : model.shape.d_head]
        rows = subspaces.read_space(model, Site(kind, 1), tokens, head=0 if kind == "z" else None)
        projection = torch.linalg.pinv(matrix) @ matrix
        assert_close(rows.T @ rows, projection, atol=1e-3, rtol=1e-3)


def test_backends_read_the_same(backend):
    ours, reference = load("gpt2", backend), load("gpt2")
    rows = [subspaces.read_space(m, Site("mlp_post", 1), m.tokens(PROMPTS)) for m in (ours, reference)]
    assert_close(rows[0].T @ rows[0], rows[1].T @ rows[1], atol=1e-4, rtol=1e-4)


def _report(model, direction, site=Site("mlp_post", 1), **more):
    task = tasks.ioi(model, n=6)
    return subspaces.illusion(model, task.clean, task.corrupt, site, task.logit_diff, direction, **more)


@pytest.fixture(scope="module")
def read(embedded):
    return subspaces.read_space(embedded, Site("mlp_post", 1), tasks.ioi(embedded, n=6).clean)


def test_what_is_not_read_has_no_effect(embedded, read):
    noise = torch.randn(384, generator=torch.Generator().manual_seed(0))
    unread = noise - noise @ read.T @ read
    array = _report(embedded, unread, randoms=0)
    np.testing.assert_allclose(array.sel(part=["subspace", "unread"]), 0, atol=1e-5)
    assert bool(array.sel(part="read").isnull().all())


def test_a_direction_that_is_read_is_no_illusion(embedded, read):
    array = _report(embedded, read[0], randoms=0)
    np.testing.assert_allclose(array.sel(part="read"), array.sel(part="subspace"), atol=1e-4)
    assert bool(array.sel(part="unread").isnull().all())


def test_a_planted_illusion_is_found(embedded):
    """The unread part differs between the runs, the read part does not: only together do they have an effect."""
    task, site = tasks.ioi(embedded, n=6), Site("mlp_post", 3)
    read = subspaces.read_space(embedded, site, task.clean)
    clean, corrupt = (embedded.run(tokens, read=[site], grad=True) for tokens in (task.clean, task.corrupt))
    difference = (clean[site] - corrupt[site]).detach()[:, -1].mean(0)
    (gradient,) = torch.autograd.grad(task.logit_diff(corrupt).sum(), corrupt[site])
    matters, differs = gradient[:, -1].mean(0) @ read.T, difference @ read.T
    matters = (matters - (matters @ differs) / (differs @ differs) * differs) @ read
    unread = difference - differs @ read
    # Copied along both at once, what nothing reads moves what matters.
    array = _report(embedded, unread / unread.norm() + matters / matters.norm(), site, pos=-1)
    part, none, *_ = checks_of(array)
    assert (part.status, none.status) == ("warn", "pass")
    effect = abs(array.mean("prompt"))
    assert float(effect.sel(part="subspace")) > 3 * float(effect.sel(part="read")) and part.value < 0.5


def test_all_of_a_site_is_the_whole_site(embedded):
    array = _report(embedded, torch.eye(384), randoms=0)
    np.testing.assert_allclose(array.sel(part="subspace"), array.sel(part="whole site"), atol=1e-4)


def test_where_many_read_nothing_is_split(embedded):
    array = _report(embedded, torch.ones(128), Site("resid_post", 1), randoms=2)
    assert array.attrs["split"].startswith("none: resid_post.1 is not read by one matrix")
    np.testing.assert_array_equal(array.sel(part="read"), array.sel(part="subspace"))
    assert [check.status for check in checks_of(array)][:2] == ["skipped", "skipped"]
    assert (
        _report(embedded, torch.ones(32), Site("z", 1), randoms=0, head=2).attrs["split"].startswith("none: the matrix")
    )


def test_the_spread_is_that_of_the_projections(embedded):
    task = tasks.ioi(embedded, n=6)
    site, direction = Site("resid_post", 1), torch.randn(128, generator=torch.Generator().manual_seed(0))
    array = _report(embedded, direction, site, randoms=0, pos=-1)
    values = torch.cat([embedded.run(t, read=[site])[site][:, -1] for t in (task.clean, task.corrupt)])
    assert float(array.spread[0]) == pytest.approx(float((values @ direction / direction.norm()).std()), rel=1e-4)
