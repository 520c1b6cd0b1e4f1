"""nnsight's remote runs: rehearsed here, and shipped to a process that does not have this package."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nnsight
import pytest
import tiny
import torch
from nnsight.schema.request import RequestModel
from nnsight.tracing.backend import Backend
from nnsight.tracing.util import push
from torch.testing import assert_close

import interp
from interp import Edit, Site, edits, metrics, patching, steering
from interp.generation import continuations

PROMPTS = ["when Mary and John went to the store", "I love it"]


def build(family: str, attention: str = "eager"):
    module = tiny.build(family)
    module.set_attn_implementation(attention)
    return module


def rehearsed(family: str, attention: str = "eager") -> interp.Model:
    module = build(family, attention)
    return interp.load(module, backend="nnsight", tokenizer=tiny.tokenizer(), remote="local")


def same_runs(ours: interp.Trace, theirs: interp.Trace) -> None:
    real = ours.tokens.mask.bool()
    assert_close(ours.logits[real], theirs.logits[real], atol=1e-5, rtol=1e-5)
    for site in theirs.activations:
        a, b = ours[site], theirs[site]
        if site.kind in ("scores", "pattern"):
            a, b = a.transpose(1, 2)[real], b.transpose(1, 2)[real]
            if site.kind == "scores":
                a, b = a.softmax(-1), b.softmax(-1)
        else:
            a, b = a[real], b[real]
        assert_close(a, b, atol=1e-5, rtol=1e-5, msg=lambda m, site=site: f"{site}: {m}")


def test_identities_in_a_rehearsal(family):
    report = interp.check(rehearsed(family))
    assert report.holds, str(report)


def test_a_rehearsal_gives_the_numbers_of_the_default_backend(family):
    there, here = rehearsed(family), interp.load(tiny.build(family), tokenizer=tiny.tokenizer())
    assert list(there.editable) == list(here.editable)
    changes = [edits.add(Site("resid_pre", 1), torch.ones(32), pos=-1), edits.scale(Site("k", 1), 0.5, head=1)]
    for some in ([], changes):
        ours, theirs = (model.run(PROMPTS, read=model.sites(), edits=some) for model in (there, here))
        same_runs(ours, theirs)


def test_steering_in_a_rehearsal():
    there, here = rehearsed("llama"), interp.load(tiny.build("llama"), tokenizer=tiny.tokenizer())
    vector = steering.Vector.of(Site("resid_post", 1), torch.randn(32, generator=torch.Generator().manual_seed(0)))
    vector = replace(vector, mean=torch.zeros(32), norm=1.0)  # some operators need the midpoint of the classes
    for op in steering.OPERATORS:
        for when in (None, steering.Condition(vector, "token", 0.0), steering.Condition(vector, -1, 0.0)):
            ours, theirs = (
                model.run(PROMPTS, edits=steering.steer(vector, 0.7, op, when=when)) for model in (there, here)
            )
            same_runs(ours, theirs)
    found = continuations(there, PROMPTS, 3, steering.steer(vector, 2.0))
    assert found.how["keys"] == "not kept: nnsight has no cache for this model"
    assert found.texts == continuations(here, PROMPTS, 3, steering.steer(vector, 2.0)).texts


def test_patching_in_a_rehearsal():
    clean, corrupt = "Mary and John went to the store", "Anna and John went to the park"
    there, here = rehearsed("gpt2"), interp.load(tiny.build("gpt2"), tokenizer=tiny.tokenizer())
    metric = metrics.logit_diff(4, 5)
    ours, theirs = (
        patching.patch(m, clean, corrupt, m.sites("z"), metric, over=["head"]).values for m in (there, here)
    )
    assert_close(torch.tensor(ours), torch.tensor(theirs), atol=1e-4, rtol=1e-4)


def test_the_trace_holds_what_the_model_saw_there():
    model = rehearsed("gpt2")
    noisy = Edit(Site("resid_final"), torch.rand_like)  # drawn once there; a second draw here must not take its place
    trace = model.run(PROMPTS, read=[Site("resid_final")], edits=[noisy])
    assert_close(model.unembed(trace[Site("resid_final")]), trace.logits)


class Elsewhere(Backend):
    """Runs a trace in another process, where this package cannot be imported, as a server would."""

    def __init__(self, folder: str, room: Path) -> None:
        self.folder, self.request, self.answer = folder, room / "request", room / "answer"

    def __call__(self, tracer) -> None:
        self.request.write_bytes(RequestModel.serialize(tracer))
        script = Path(__file__).with_name("server.py")
        subprocess.run([sys.executable, script, self.folder, self.request, self.answer], check=True)
        push(tracer.info.frame, torch.load(self.answer, weights_only=False))


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_a_request_runs_where_this_package_is_not(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tiny.save(family, tmp_path / "model")
    envoy = nnsight.TransformersModel(folder, task="text-generation", dispatch=True, attn_implementation="eager")
    monkeypatch.setattr(type(envoy), "_remote_backend", lambda *options: Elsewhere(folder, tmp_path))
    there, here = interp.load(envoy, remote=True), interp.load(folder)
    changes = [edits.scale(Site("q", 0), 0.5, head=1), edits.zero(Site("pattern", 1), head=0, key=-1)]
    changes += [edits.zero(Site("scores", 2), head=1), edits.put(Site("pattern", 2), torch.tensor(0.1), head=0)]
    changes += [edits.remove(Site("resid_mid", 1), torch.ones(32), pos=-1), edits.add(Site("z", 2), torch.ones(8))]
    ours, theirs = (model.run(PROMPTS, read=model.sites(), edits=changes) for model in (there, here))
    same_runs(ours, theirs)


def test_what_a_remote_run_refuses():
    module = tiny.build("gpt2")
    with pytest.raises(ValueError, match="remote='local' is for backend='nnsight'; huggingface runs models on this"):
        interp.load(module, remote="local")
    with pytest.raises(ValueError, match="runs a model that the server has, under its hub name, not the weights"):
        interp.load(module, backend="nnsight", tokenizer=tiny.tokenizer(), remote=True)
    with pytest.raises(ValueError, match=r"needs a nnsight\.TransformersModel, not a NNsight"):
        interp.load(nnsight.NNsight(module), remote=True)
    with pytest.raises(ValueError, match="a gradient does not come back"):
        rehearsed("gpt2").run(PROMPTS, grad=True)
    with pytest.raises(ValueError, match="has no 'pattern': on a server, 'sdpa' attention has none"):
        rehearsed("gpt2", "sdpa").run(PROMPTS, read=[Site("pattern", 0)])
    with pytest.raises(ValueError, match="changed nothing"):
        rehearsed("gpt2").run(PROMPTS, edits=[edits.add(Site("resid_pre", 0), torch.full((32,), 1e-30))])


def test_weights_that_are_elsewhere_are_not_unembedded_here(tmp_path: Path):
    folder = tiny.save("gpt2", tmp_path)
    lazy = nnsight.TransformersModel(folder, task="text-generation", tokenizer=tiny.tokenizer())
    model = interp.load(lazy, remote=True)
    assert all(parameter.is_meta for parameter in model.module.parameters())
    with pytest.raises(ValueError, match="are on the server only"):
        model.unembed(torch.zeros(32))
