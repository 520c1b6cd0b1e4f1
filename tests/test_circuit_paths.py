"""Path patching is the algorithm of its paper, done slowly with edits of sites."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np
import pytest
from wired import METRIC, model_of, pair

from interp import Model, Site, Tokens, circuits, edits

FAMILIES = ("gpt2", "llama", "gpt_neox")


def slowly(
    model: Model, this: Tokens, other: Tokens, sender: str, receivers: Sequence[str], free: Sequence[str]
) -> np.ndarray:
    """Freeze heads and MLPs one by one, keep what the receivers make of it, and put that into a second run."""
    sites = [*model.sites("z"), *model.sites("mlp_out")]
    said, had = (model.run(tokens, read=sites) for tokens in (other, this))
    frozen = []
    for name in circuits.graph(model).writers[1:]:
        site, at = site_of(name)
        if name == sender:
            frozen.append(edits.copy(said, site, **at))
        elif name not in receivers and not any(fnmatchcase(name, pattern) for pattern in free):
            frozen.append(edits.copy(had, site, **at))
    read = [] if receivers == ["logits"] else [site_of(name)[0] for name in receivers]
    first = model.run(this, read=read, edits=frozen)
    if receivers == ["logits"]:
        return (METRIC(first) - METRIC(had)).numpy()
    put = [edits.copy(first, site, **at) for site, at in map(site_of, receivers)]
    return (METRIC(model.run(this, edits=put)) - METRIC(had)).numpy()


def site_of(name: str) -> tuple[Site, dict]:
    """Where a writer or a reader is seen: `mlp1`, `L0H2`, `L1H2.q`, `L1KV0.v`."""
    if name.startswith("mlp"):
        return Site("mlp_out", int(name[3:])), {}
    place, _, kind = name.partition(".")
    layer, head = place[1:].replace("KV", "H").split("H")
    return Site(kind or "z", int(layer)), {"head": int(head)}


@pytest.mark.parametrize("free", [(), ("mlp*",), ("mlp0", "L1H*")])
@pytest.mark.parametrize("receivers", [["L2H1.q"], ["{kv}.v", "L2H3.q"], ["L1H0.q", "{kv}.k"], ["logits"], ["mlp2"]])
@pytest.mark.parametrize("family", FAMILIES)
def test_path_patching_is_what_edits_of_sites_do(family, receivers, free):
    model = model_of(family)
    clean, corrupt = pair(model)
    group = "L2H0" if model.shape.n_kv_heads == model.shape.n_heads else "L2KV0"
    receivers = [name.format(kv=group) for name in receivers]
    found = circuits.path_patch(model, clean, corrupt, receivers, METRIC, free=free)
    assert "L0H2" in found.sender and "mlp1" in found.sender and "embed" not in found.sender
    for sender in ("L0H2", "L1H3", "mlp0"):
        wanted = slowly(model, clean, corrupt, sender, receivers, free)
        np.testing.assert_allclose(found.sel(sender=sender).values, wanted, atol=1e-9)
    assert float(abs(found.sel(sender="L0H2")).max()) > 1e-3


def test_with_nothing_free_it_is_the_edge():
    model = model_of("llama")
    clean, corrupt = pair(model)
    senders = {"two heads": ["L0H1", "L1H3"]}
    found = circuits.path_patch(model, clean, corrupt, ["L2H2.q"], METRIC, senders, direction="denoising")
    edges = circuits.graph(model).mask([("L0H1", "L2H2.q"), ("L1H3", "L2H2.q")])
    wanted = circuits.patch_edges(model, clean, corrupt, {"two heads": edges}, METRIC)
    np.testing.assert_allclose(found.values, wanted.values, atol=1e-10)


def test_senders_in_one_pass_are_senders_one_by_one():
    model = model_of("gpt2")
    clean, corrupt = pair(model)
    given = model, clean, corrupt, ["L2H1.k"], METRIC
    together, alone = (circuits.path_patch(*given, free=["mlp*"], budget=budget) for budget in (2**26, 1))
    assert alone.attrs["passes"] > together.attrs["passes"]
    np.testing.assert_allclose(together.values, alone.values, atol=1e-10)


ERRORS = {
    "a receiver that there is not": (
        dict(receivers=["L9H0.q"]),
        "no name of receivers matches 'L9H0.q'; they are L0H0.q, L0H1.q, … logits",
    ),
    "logits and others": (
        dict(receivers=["logits", "mlp2"]),
        "the logits hear everything, so that as a receiver they stand alone; try the others in a second call",
    ),
    "a sender that is too late": (
        dict(receivers=["L1H0.q"], senders={"last": ["mlp2"]}),
        "sender 'last' comes after all receivers; senders are earlier writers",
    ),
    "no receivers": (dict(receivers=[]), "no receivers were given; they are L0H0.q, L0H1.q, … logits"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_message(case):
    arguments, message = ERRORS[case]
    model = model_of("gpt2")
    with pytest.raises(ValueError) as caught:
        circuits.path_patch(model, *pair(model), metric=METRIC, **arguments)
    assert caught.value.args[0] == message
