"""`interp.load`: from a folder, from a hub cache, from a model object; what was given stays as it was."""

import copy
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import torch
from conftest import load
from torch.testing import assert_close

import interp
from interp import Site, metrics, patching, steering

IDS = torch.tensor([[3, 4, 5, 6]])
TEXT = "when Mary and John"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.save("gpt2", tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.parametrize("bos, first", [(True, 1), (False, tiny.WORDS.index("when")), (None, tiny.WORDS.index("when"))])
def test_bos_is_added_once_and_only_if_asked_for(folder, bos, first):
    ids = interp.load(folder, bos=bos).tokens(TEXT).ids
    assert ids[0, 0] == first
    assert ids.shape[1] == 4 + bool(bos)
    if bos:
        assert torch.equal(interp.load(folder, bos=bos).tokens(f"<eos> {TEXT}").ids, ids)


def test_bos_none_follows_the_tokenizer(embedded):
    assert embedded.bos and embedded.tokens("the dog").ids.tolist() == embedded.tokenizer(["the dog"]).input_ids


def test_bos_needs_a_token():
    with pytest.raises(ValueError, match="has no beginning-of-sequence token; pass bos=False"):
        interp.load(tiny.build("gpt2"), bos=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, None])
def test_dtype_changes_the_copy_and_not_the_given_model(folder, dtype):
    module = tiny.build("gpt2")
    of_object, of_folder = interp.load(module, dtype=dtype), interp.load(folder, dtype=dtype)
    assert of_object.dtype == of_folder.dtype == (dtype or torch.float32)
    assert next(module.parameters()).dtype == torch.float32
    assert (of_object.module is module) == (dtype is None)
    logits = of_object.run(IDS).logits
    assert_close(logits, of_folder.run(IDS).logits)
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-5
    assert_close(logits.float(), interp.load(module).run(IDS).logits, atol=tolerance, rtol=tolerance)


def test_device_is_where_it_runs(folder):
    model = interp.load(folder, device="cpu")
    assert model.device == model.run(IDS).logits.device == torch.device("cpu")


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "opt"])
def test_a_model_goes_to_another_process(family):
    model = interp.load(tiny.build(family), tokenizer=tiny.tokenizer())
    model.run(TEXT, read=model.sites("pattern"))
    again = pickle.loads(pickle.dumps(model))
    assert again.module is not model.module
    assert torch.equal(again.run(TEXT).logits, model.run(TEXT).logits)
    assert torch.equal(copy.deepcopy(model).run(TEXT).logits, model.run(TEXT).logits)


def test_a_model_object_is_not_changed():
    module = tiny.build("llama")
    state, config = copy.deepcopy(module.state_dict()), module.config.to_dict()
    model = interp.load(module, tokenizer=tiny.tokenizer(), dtype=torch.float64, device="cpu")
    model.run(TEXT, read=model.sites("pattern"), edits=[interp.edits.zero(Site("z", 0))])
    plain = interp.load(module, tokenizer=tiny.tokenizer())
    plain.run(TEXT, read=plain.sites("pattern"), edits=[interp.edits.zero(Site("z", 0))])
    assert module.config.to_dict() == config
    assert module.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def test_a_tokenizer_that_is_given_replaces_the_one_that_is_found(folder):
    other = tiny.tokenizer()
    assert interp.load(folder, tokenizer=other).tokenizer is other
    assert (
        interp.load(folder).tokens(TEXT).ids.tolist() == interp.load(folder, tokenizer=other).tokens(TEXT).ids.tolist()
    )


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "qwen2", "gemma2"])
def test_a_folder_without_a_tokenizer_works_on_ids(tmp_path, family):
    tiny.build(family).save_pretrained(tmp_path)
    model = interp.load(tmp_path)
    assert model.tokenizer is None
    assert_close(model.run(IDS).logits, interp.load(tiny.build(family)).run(IDS).logits)


def _refused(source: object, error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        interp.load(source)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_folder_without_weights(tmp_path):
    tiny.build("gpt2").config.save_pretrained(tmp_path)
    assert "no file named model.safetensors" in _refused(tmp_path, FileNotFoundError)


def test_a_folder_that_lacks_some_weights_is_not_filled_with_random_ones(tmp_path, folder):
    tiny.build("gpt2", n_layer=4).config.save_pretrained(tmp_path)
    shutil.copy(Path(folder) / "model.safetensors", tmp_path)
    message = _refused(tmp_path, ValueError)
    assert message.startswith(f"'{tmp_path}' lacks 12 weights of its model, such as transformer.h.3.")


def test_a_broken_file(tmp_path, folder):
    tiny.build("gpt2").config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((Path(folder) / "model.safetensors").read_bytes()[:5000])
    assert "cannot be loaded as a causal language model" in _refused(tmp_path, ValueError)


def test_an_empty_folder(tmp_path):
    assert "cannot be loaded as a causal language model" in _refused(tmp_path, ValueError)


def test_a_model_on_the_meta_device_has_no_weights():
    message = _refused(tiny.build("gpt2").to("meta"), ValueError)
    assert message == "GPT2LMHeadModel is on the meta device, so it has no weights; load them first"


def test_a_hub_name_is_read_from_the_cache(tmp_path, folder):
    repository, commit = tmp_path / "models--someone--tiny", "0" * 40
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    code = "import interp; m = interp.load('someone/tiny'); print(m.name, m.fingerprint(), m.tokenizer is None)"
    run = [sys.executable, "-c", code]
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    out = subprocess.run(run, capture_output=True, text=True, env=environment, check=True).stdout
    assert out.split() == ["someone/tiny", interp.load(folder).fingerprint(), "False"]


def test_a_hub_name_that_is_not_cached_fails_at_once_while_offline():
    start = time.monotonic()
    message = _refused("someone/who-is-not-cached", FileNotFoundError)
    assert time.monotonic() - start < 5
    assert message.startswith(
        "'someone/who-is-not-cached' is neither a local folder with a model nor a model that the hub"
    )


def test_methods_follow_the_dtype_of_the_model():
    model = interp.load(tiny.build("gpt2"), dtype=torch.bfloat16, tokenizer=tiny.tokenizer())
    exact = interp.load(tiny.build("gpt2"), tokenizer=tiny.tokenizer())
    clean, corrupt, site, metric = f"{TEXT} went", f"{TEXT} gave", Site("resid_pre", 1), metrics.logit_diff(4, 5)
    vectors = [steering.mean_difference(m, clean, corrupt, site) for m in (model, exact)]
    assert vectors[0].dtype == torch.float32  # a difference of rounded means would lose what is left of it
    assert_close(vectors[0], vectors[1], atol=0.05, rtol=0.05)
    vector = steering.Vector.of(site, vectors[0])
    steered = steering.dose_response(model, clean, vector, metric, nulls={"random": steering.random_like(vector, 2)})
    assert steered.attrs["precision"] == "torch.bfloat16"
    # The whole stream restored is the clean run, in any dtype.
    whole = patching.patch(model, clean, corrupt, [site], metric)
    assert_close(torch.tensor(whole.values), torch.ones(1, 1), atol=0.02, rtol=0)


def test_a_fingerprint_is_that_of_the_weights_on_every_backend(family):
    models = [load(family, backend) for backend in interp.BACKENDS]
    (one,) = {model.fingerprint() for model in models}
    for model in models:
        module = model.module
        with torch.no_grad():
            parameter = next(p for name, p in module.named_parameters() if "mlp" in name or "fc" in name)
            parameter[0] += 1e-3
        assert model.fingerprint() != one


def test_a_bridge_that_rewrote_its_weights_is_another_model(capsys):
    model = load("gpt2", "transformer_lens")
    before = model.fingerprint()
    model.module.enable_compatibility_mode()
    assert model.fingerprint() != before
