"""What is shown of a value in a notebook is one line that says what it is, whatever tensors it holds."""

import pytest
import torch

import interp
from interp import Site, generation, lens, probing, steering, tasks
from interp.recording import record
from interp.zoo import handset


def _of_probing(model):
    data = tasks.concepts.number(model, n=40)
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    yield data, r"Labelled(grammatical number, known of Tokens(40 prompts"
    yield tasks.Labelled("size", model.tokens("the"), [1.5]), "labels: numbers)"
    yield probing.fit(x, data.y), "Probe(1 output of 8 features)"
    yield probing.leace(x, data.y), "Eraser(1 of 8 dimensions)"
    yield (
        probing.collect(model, data.prompts, model.sites("z", layers=[1]), [-1]),
        "Activations(40 prompts at z.1; positions: [-1])",
    )


def _of_steering(model):
    concept = steering.contrast_pairs(model, "mood", ["the dog was happy"] * 4, ["the dog was sad"] * 4)
    vector = steering.extract(model, concept, Site("resid_post", 1))
    yield concept, "Concept(mood: 4 positive and 4 negative prompts, pairs)"
    yield vector, "Vector(mood at resid_post.1, read at -1; gap "
    yield steering.Vector.of(Site("z", 1), torch.ones(32), head=2), "Vector(a direction at z.1 of head 2, read at"
    yield steering.Setting(vector), "Setting(vectors=Vector(mood at resid_post.1"
    task = tasks.ioi(model, n=4, seed=0)
    wrong = interp.metrics.logit_diff(task.wrong, task.right)
    chosen = steering.tune(model, {"mine": vector}, task.clean, wrong, ["the dog", "a cat"], [0.0, 1.0])
    yield chosen, "at dose "


def _of_the_rest(model):
    task = tasks.ioi(model, n=4, seed=0)
    yield interp.weights.heads(model), "Heads(4 layers of 4, each (d_head, d_model) (32, 128); left out: nothing)"
    yield task, "Task(indirect object: 4 pairs, clean Tokens(4 prompts"
    yield record(model, task.clean, [Site("resid_post", 0)], False), "Recording(4 blocks; Trace(of Tokens(4 prompts"
    yield generation.continuations(model, "the", 3), "Continuations(1 of at most 3 tokens: ['"
    translator = lens.tuned.Translator(torch.zeros(8, 8), torch.zeros(8))
    yield translator, "Translator(d_model 8)"
    yield lens.TunedLens({Site("resid_post", 0): translator}, "some model"), "TunedLens(resid_post.0)"
    readers = {1: {Site("resid_post", 0): lens.future.Reader(translator)}}
    yield lens.FutureLens(readers, {}, "some model"), "FutureLens(1 tokens ahead, from resid_post.0)"
    yield handset.copying(), "edges that matter: "


@pytest.mark.parametrize("values", [_of_probing, _of_steering, _of_the_rest])
def test_it_is_one_line_that_says_what_it_is(embedded: interp.Model, values):
    for value, said in values(embedded):
        text = repr(value)
        assert said in text and "\n" not in text and "tensor(" not in text and len(text) < 400
