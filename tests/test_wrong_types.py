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
model = interp.load()
task = tasks.ioi(model, n=2)
pair = task.clean, task.corrupt
ids = torch.tensor([[1, 2, 3]])
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
    "model.words(ids)": "words are those of one prompt's token ids, such as model.tokens(text).ids[0]",
}

SAME = {  # what may be written in another way
    "patching.patch(model, *pair, Site('z', 0), task.logit_diff, over='head').dims": "('layer', 'head', 'prompt')",
    "isinstance(generate(model, ids, 2, edits.zero(Site('z', 0))), list)": "True",
    "model.sites('z', layers=1)": "[Site(kind='z', layer=1)]",
    "[Site('z', layer) for layer in np.arange(1)]": "[Site(kind='z', layer=0)]",
    "model.run(ids, edits=edits.put(Site('z', 0), 0.0), read=Site('z', 0))[Site('z', 0)].abs().max().item()": "0.0",
    "edits.remove(Site('resid_pre', 0), np.ones(128)).site": "Site(kind='resid_pre', layer=0)",
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
