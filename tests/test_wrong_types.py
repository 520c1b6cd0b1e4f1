"""Things of another type get one clear error, too; in a process where no annotation is checked before they arrive."""

import json
import subprocess
import sys

import pytest

SETUP = """
import json, sys
import numpy as np, torch
import interp
from interp import *
from interp.generation import continuations
from interp.zoo import compiled
model = interp.load()
task = tasks.ioi(model, n=2)
pair = task.clean, task.corrupt
ids = torch.tensor([[1, 2, 3]])
vector = steering.Vector.of(Site('resid_post', 1), torch.ones(128))
"""

CASES = {
    "lens.logit_lens(model, ids, lambda logits: logits[:, 0])": "this takes one interp.metrics.Metric, not function; "
    "write Metric('name', function of logits (batch, vocab)), or metrics.logit_diff(right, wrong)",
    "circuits.eap(model, *pair, [task.logit_diff])": "this takes one interp.metrics.Metric, not list; write "
    "Metric('name', function of logits (batch, vocab)), or metrics.logit_diff(right, wrong)",
    "effects.decompose(model, ids, components.each(model, edits.zero), [task.logit_diff])": "this takes one "
    "interp.metrics.Metric, not list; write Metric('name', function of logits (batch, vocab)), or "
    "metrics.logit_diff(right, wrong)",
    "patching.patch(model, *pair, model.sites('z'), 3)": "this takes interp.Metric, one or several, not 3; write "
    "interp.metrics.Metric('name', function of logits (batch, vocab))",
    "metrics.logit_diff(' Mary', ' Tom')": "an answer is a token id, not ' Mary'; give model.token_id(' Mary')",
    "metrics.logit(3)(model.run(ids).logits)": "logit is measured in a run, not in Tensor; give model.run(prompts)",
    "patching.patch(model, *pair, 'z', task.logit_diff)": "this takes interp.Site, one or several, not 'z'; write "
    "Site('resid_pre', 0), or model.sites('resid_pre') for every layer",
    "model.run(ids, read='z.0')": "this takes interp.Site, one or several, not 'z.0'; write "
    "Site('resid_pre', 0), or model.sites('resid_pre') for every layer",
    "edits.zero('z.0')": "an edit is of an interp.Site, not 'z.0'; write Site('z', 0)",
    "model.run(ids, edits=[Site('z', 0)])": "this takes interp.Edit, one or several, not Site(kind='z', layer=0); "
    "write interp.edits.zero(Site('z', 0), head=1)",
    "model.run(task)": "prompts are a text, texts, token ids, (ids, mask), what a tokenizer returns, or Tokens, "
    "not Task; give its .clean or .corrupt",
    "model.tokens(5)": "prompts are a text, texts, token ids, (ids, mask), what a tokenizer returns, or Tokens, "
    "not int",
    "probing.fit(torch.randn(4, 3), [0, 1, 0, 1], 'lda')": "penalty= is a number, not 'lda'; what kind of probe it "
    "is, is said by by=",
    "circuits.graph(model).mask(('embed', 'logits'))": "'edges' should be a mask by (writer, reader), or a list of "
    "edges such as ('L0H1', 'L1H0.q'); str 'embed' is neither",
    "generate(model, ids, 2.5)": "n_tokens is a whole number, not 2.5",
    "generate(model, ids, 2, temperature='hot')": "a temperature is a number from 0 on, not 'hot'; 0 takes the "
    "likeliest token",
    "generate(model, ids, 2, temperature=1.0, top_k=2.5)": "top_k is a whole number, not 2.5",
    "stats.summary(np.zeros((3, 4)))": "this takes a labelled array, such as methods return, not ndarray; give names "
    "to the axes by xarray.DataArray(values, dims=('layer', 'prompt'))",
    "plots.heatmap(np.zeros((3, 4)))": "this takes a labelled array, such as methods return, not ndarray; give names "
    "to the axes by xarray.DataArray(values, dims=('layer', 'prompt'))",
    "steering.steer(vector, '2')": "a dose is a number, not '2'",
    "steering.steer(vector, float('nan'))": "a dose is a finite number, not nan",
    "steering.steer(None)": "a steering vector is a steering.Vector, not NoneType; make one by steering.extract, or of "
    "a tensor by steering.Vector.of(site, tensor)",
    "steering.dose_response(model, ids, vector, task.logit_diff, 2.0)": "doses are several numbers, such as [0, 1, 2], "
    "not 2.0",
    "steering.side_effects(model, ids, vector, [])": "doses are at least one number; none was given",
    "steering.top_tokens(model, vector, 513)": "n is a number of tokens from 1 to 512, not 513",
    "steering.top_tokens(model, steering.Vector.of(Site('resid_post', 1), torch.ones(3)))": "a vector of 3 entries is "
    "none of embedded, whose stream has 128",
    "steering.preview(model, ids, steering.steer(vector), -1)": "n_tokens is at least 0, not -1",
    "model.sites(['z'])": "unknown site kind ['z']; choose from embed, resid_pre, q, k, v, scores, pattern, z, "
    "attn_out, resid_mid, mlp_pre, mlp_post, mlp_out, resid_post, resid_final",
    "model.tokens(ids, roles=['END'])": "roles are places by name, such as {'END': -1}, not ['END']",
    "model.token_id(5)": "a token is named by its text here, such as ' the', not 5",
    "edits.scale(Site('z', 0), 'half')": "this takes a number, an array or a tensor, not 'half'",
    "edits.add(Site('z', 0), None)": "this takes a number, an array or a tensor, not None",
    "lens.decode(model, ids, by='tuned')": "a lens is what lens.tune or lens.load gives, not 'tuned'; None is the "
    "logit lens",
    "lens.tune(model, ids, steps=-1)": "steps is at least 0, not -1",
    "lens.fit_future(model, ids, ahead=0)": "ahead is at least 1, not 0",
    "check('gpt2')": "this checks an interp.Model, not a str; give interp.load(...) of it",
    "tasks.ioi(model, n='4')": "n is a whole number, not '4'",
    "tasks.ioi(model, n=0)": "n is at least 1, not 0",
    "tasks.ioi(model, seed=-1)": "seed is at least 0, not -1",
    "tasks.CONCEPTS['sentiment'](model, 1)": "n is at least 2, not 1",
    "load(prepack='yes')": "prepack is True or False, not 'yes'",
    "load(bos='no')": "bos is True or False, not 'no'",
    "load(device='gpu')": "device=gpu cannot be computed on here; there is cpu",
    "generate(model, ids, 2, seed='a')": "seed is a whole number, not 'a'",
    "generate(model, ids, 2, stop=['.'])": "stop= takes token ids, from 0 to 511, not '.'; give [model.token_id('.')]",
    "generate(model, ids, 2, cached='yes')": "cached is True or False, not 'yes'",
    "model.words(ids)": "words are those of one prompt's token ids, such as model.tokens(text).ids[0]",
    "probing.fit(torch.randn(4, 3), ['a', 'b', 'a', 'b'])": "labels are numbers or truth values, not 'a'; number the "
    "classes from 0 on",
    "weights.ov(model, ids=['Mary', 'Tom'])": "tokens are ids, not 'Mary'; give [model.token_id(word) for "
    "word in words]",
    "task.clean.followed_by(model.tokens(ids))": "prompts of 15 and 3 positions do not stand in one batch; give "
    "model.tokens all their texts",
    "model.tokens(ids, {'S': None})": "role 'S' is a position or a word of prompt 0, not None",
    "attribution.gradient_x_input(model, ids, Site('embed'), [task.logit_diff])": "this takes one "
    "interp.metrics.Metric, not list; write Metric('name', function of logits (batch, vocab)), or "
    "metrics.logit_diff(right, wrong)",
    "compiled.model_of(compiled.PROGRAMS['sort']().output)": "a model is made of a Program, not Apply; give "
    "Program(..., output=that)",
}

SAME = {  # what may be written in another way
    "edits.scale(Site('z', 0), np.float32(2)).change(torch.ones(2)).tolist()": "[2.0, 2.0]",
    "edits.add(Site('z', 0), 0.1).change(torch.zeros(1, dtype=torch.double)).item()": "0.1",
    "edits.remove(Site('z', 0), [3, 4]).change(torch.tensor([[3.0, 4.0]])).abs().max().item() < 1e-6": "True",
    "steering.steer([vector], np.float64(2.0))[0].site": "Site(kind='resid_post', layer=1)",
    "patching.patch(model, *pair, Site('z', 0), task.logit_diff, over='head').dims": "('layer', 'head', 'prompt')",
    "isinstance(generate(model, ids, 2, edits.zero(Site('z', 0))), list)": "True",
    "model.sites('z', layers=1)": "[Site(kind='z', layer=1)]",
    "[Site('z', layer) for layer in np.arange(1)]": "[Site(kind='z', layer=0)]",
    "model.run(ids, edits=edits.put(Site('z', 0), 0.0), read=Site('z', 0))[Site('z', 0)].abs().max().item()": "0.0",
    "edits.remove(Site('resid_pre', 0), np.ones(128)).site": "Site(kind='resid_pre', layer=0)",
    "model.tokens(np.array(['Mary', 'Tom'])).ids.tolist() == model.tokens(['Mary', 'Tom']).ids.tolist()": "True",
    "continuations(model, ids, 3, stop=5).lengths.shape": "torch.Size([1])",
    "probing.fit(np.eye(4), [0, 1, 0, 1]).weight.dtype": "torch.float64",
    "Tokens(ids, ids > 0, {'S': 1, 'T': [2]}).roles": "{'S': tensor([1]), 'T': tensor([2])}",
}


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    code = (
        SETUP
        + f"""
found = {{}}
for case in {[*CASES, *SAME]!r}:
    try:
        found[case] = repr(eval(case))
    except (TypeError, ValueError) as error:
        found[case] = str(error)
print(json.dumps(found))
"""
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize("case", [*CASES, *SAME])
def test_message(case: str, found: dict[str, str]):
    assert found[case] == (CASES | SAME)[case]
