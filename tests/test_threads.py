"""Threads that share a model get what each gets alone; gradients do not depend on the mode around a call."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import tiny
import torch
from conftest import load
from torch.testing import assert_close

import interp
from interp import Site, attribution, attribution_patching, circuits, edits, effects, metrics, patching
from interp.backends.watching import Seen
from interp.locks import lock_of
from interp.padding import _BELIEVED, believed, check_padding

METRIC = metrics.logit_diff(3, 6)
CLEAN = torch.randint(2, 30, (3, 6), generator=torch.Generator().manual_seed(0))
CORRUPT = CLEAN.roll(1, 0)
EMBED = Site("embed")


@pytest.mark.parametrize("backend", ["huggingface", "transformer_lens", "nnsight"])
def test_threads_do_not_see_each_others_edits(backend):
    model = load("gpt2", backend)
    edit = edits.zero(Site("z", 1), head=1)

    def sweep(kind: str) -> torch.Tensor:
        return torch.tensor(patching.patch(model, CLEAN, CORRUPT, model.sites(kind), METRIC, normalize=False).values)

    calls = [
        lambda: model.run(CLEAN).logits,
        lambda: model.run(CLEAN, edits=edit).logits,
        lambda: sweep("z"),
        *([] if backend == "nnsight" else [lambda: sweep("pattern")]),
    ]
    alone = [call() for call in calls]
    with ThreadPoolExecutor(len(calls)) as pool:
        found = list(pool.map(lambda i: calls[i % len(calls)](), range(6 * len(calls))))
    for i, value in enumerate(found):
        assert_close(value, alone[i % len(calls)])


GRADIENTS = {
    "eap": lambda m: circuits.eap(m, CLEAN, CORRUPT, METRIC),
    "eap_ig, inputs": lambda m: circuits.eap_ig(m, CLEAN, CORRUPT, METRIC, 2),
    "eap_ig, activations": lambda m: circuits.eap_ig(m, CLEAN, CORRUPT, METRIC, 2, along="activations"),
    "eap_ig, mask": lambda m: circuits.eap_ig(m, CLEAN, CORRUPT, METRIC, 2, along="mask"),
    **{
        name: lambda m, by=by: attribution_patching.estimate(
            m, CLEAN, CORRUPT, m.sites("q"), METRIC, by=by, normalize=False
        )
        for name, by in {
            "AtP": attribution_patching.ATP,
            "AtP*": attribution_patching.ATP_STAR,
            "inputs": attribution_patching.INPUTS,
        }.items()
    },
    "direct effects": lambda m: effects.logit_attribution(m, CLEAN, METRIC),
    "integrated gradients": lambda m: attribution.integrated_gradients(m, CLEAN, CORRUPT, EMBED, METRIC),
    "saliency": lambda m: attribution.saliency(m, CLEAN, EMBED, METRIC),
    "linearised": lambda m: attribution.linearised(m, CLEAN, METRIC),
}


@pytest.mark.parametrize("method", GRADIENTS)
def test_gradients_in_every_mode(method):
    model = load("llama")
    wanted = GRADIENTS[method](model)
    with torch.no_grad():
        assert_close(torch.tensor(GRADIENTS[method](model).values), torch.tensor(wanted.values), equal_nan=True)
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"no gradients under torch.inference_mode\(\)"):
        GRADIENTS[method](model)


def test_a_model_that_is_loaded_waits_for_a_run():
    """A family without a row is found by running it, with hooks that must not see another thread's run."""
    module = tiny.build("gpt_neo")
    interp.load(module)
    with ThreadPoolExecutor(1) as pool:
        with lock_of(module):
            loading = pool.submit(Seen.of, module)
            with pytest.raises(TimeoutError):
                loading.result(timeout=0.3)
        assert loading.result().calls[module] == 1


def test_models_of_one_configuration_take_turns():
    """A run says in the configuration which attention it takes."""
    one = tiny.build("gpt2")
    other = type(one)(one.config).eval()
    assert lock_of(one) is lock_of(other) is not lock_of(tiny.build("gpt2"))


def test_what_one_thread_tries_is_not_let_through_in_another():
    model = load("gpt2")
    padded = model.tokens([[3], [3, 4, 5]])
    with believed(model), ThreadPoolExecutor(1) as pool:
        check_padding(model, padded)
        assert _BELIEVED.get() == (model,)
        assert pool.submit(_BELIEVED.get).result() == ()
