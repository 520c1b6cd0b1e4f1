"""Vectors as files, and what vectors are made of."""

import json
import subprocess
import sys

import pytest
import tiny
import torch
from conftest import load
from test_steering import PROMPTS, SITE, WITH, WITHOUT, linear_model, vector_of
from torch.testing import assert_close

import interp
from interp import Site, steering
from interp.arrays import checks_of


def test_what_is_saved_is_loaded(tmp_path):
    model = load("qwen2")
    vectors = [vector_of(model), vector_of(model, Site("z", 2), head=1)]
    receipts = {"verdict": "steers", "kl": 0.03}
    code = steering.save(vectors, tmp_path / "love", receipts)
    again, found = steering.load(tmp_path / "love")
    assert found == receipts
    assert steering.content_hash(again, found) == code == json.loads((tmp_path / "love.json").read_text())["hash"]
    for one, other in zip(vectors, again):
        assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("writer", "reader", "mean"))
        plain = ("site", "head", "at", "sigma", "norm", "threshold")
        assert [getattr(one, name) for name in plain] == [getattr(other, name) for name in plain]
        assert dict(one.how) == dict(other.how) and [c.name for c in one.checks] == [c.name for c in other.checks]
    logits = [model.run(PROMPTS, edits=steering.steer(v, 2.0, unit="sigma")).logits for v in (vectors, again)]
    assert torch.equal(*logits)


def test_a_hash_is_of_the_content_and_the_same_in_every_process(tmp_path):
    vector = vector_of(load("gpt2"))
    code = steering.save(vector, tmp_path / "v.1")
    script = f"from interp import steering; print(steering.content_hash(*steering.load({str(tmp_path / 'v.1')!r})))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.strip() == code
    assert steering.content_hash(vector.reversed()) != code != steering.content_hash(vector, {"kl": 1})


def test_changed_files_are_refused(tmp_path):
    steering.save(vector_of(load("gpt2")), tmp_path / "v")
    words = json.loads((tmp_path / "v.json").read_text())
    words["vectors"][0]["sigma"] *= 2
    (tmp_path / "v.json").write_text(json.dumps(words))
    with pytest.raises(ValueError, match="v is not what was saved: its hash is not"):
        steering.load(tmp_path / "v")
    (tmp_path / "v.json").write_text(json.dumps(words | {"format": "other"}))
    with pytest.raises(ValueError, match="of the format 'other'; 'interp steering vector 1' can be read"):
        steering.load(tmp_path / "v")
    (tmp_path / "v.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no file 'v\.safetensors'"):
        steering.load(tmp_path / "v")
    with pytest.raises(ValueError, match="give 'v', without the suffix"):
        steering.load(tmp_path / "v.json")
    with pytest.raises(ValueError, match="receipts are plain values"):
        steering.save(vector_of(load("gpt2")), tmp_path / "v", {"tensor": torch.ones(1)})


def test_a_control_vector_is_read_as_repeng_reads_it_and_comes_back(tmp_path):
    gguf = pytest.importorskip("gguf")
    model = load("llama")
    vectors = [vector_of(model, Site("resid_post", layer)) for layer in (2, 1)]
    steering.export_gguf(vectors, tmp_path / "v.gguf", "llama", dose=2.0)
    reader = gguf.GGUFReader(str(tmp_path / "v.gguf"))
    field = lambda name: reader.get_field(name).parts[-1]
    assert bytes(field("general.architecture")) == b"controlvector"
    assert bytes(field("controlvector.model_hint")) == b"llama" and int(field("controlvector.layer_count")[0]) == 2
    held = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
    assert set(held) == {"direction.1", "direction.2"} and held["direction.1"].dtype == torch.float32
    assert_close(held["direction.2"], 2 * vectors[0].writer)
    again = steering.import_gguf(tmp_path / "v.gguf")
    assert [v.site.layer for v in again] == [1, 2]
    runs = [model.run(PROMPTS, edits=steering.steer(v, dose)).logits for v, dose in ((vectors, 2.0), (again, 1.0))]
    assert_close(*runs)
    words = torch.arange(4, 16)[:, None]
    concept = steering.contrast_pairs(model, "some", words[:6], words[6:])
    with pytest.raises(ValueError, match=r"is not known .*'imported from GGUF'.*; give one of steering.extract"):
        steering.permuted_like(model, concept, again, 2)


def test_a_vector_whose_method_is_not_known_has_no_permuted_null():
    model, words = load("gpt2"), torch.arange(4, 16)[:, None]
    concept = steering.contrast_pairs(model, "some", words[:6], words[6:])
    with pytest.raises(
        ValueError, match=r"the vector of resid_post.1 was found is not known \(how\['writer'\] is None"
    ):
        steering.permuted_like(model, concept, steering.Vector.of(Site("resid_post", 1), torch.ones(32)), 2)
    assert len(steering.permuted_like(model, concept, steering.extract(model, concept, Site("resid_post", 1)), 2)) == 2


def test_control_vectors_that_cannot_be(tmp_path):
    pytest.importorskip("gguf")
    model = load("gpt2")
    with pytest.raises(ValueError, match=r"at resid_post, not at attn_out\.1; extract it there"):
        steering.export_gguf(vector_of(model, Site("attn_out", 1)), tmp_path / "v.gguf", "gpt2")
    with pytest.raises(ValueError, match=r"the layers given are \[1, 1\]"):
        steering.export_gguf([vector_of(model), vector_of(model)], tmp_path / "v.gguf", "gpt2")
    with pytest.raises(FileNotFoundError, match="give a control vector in GGUF"):
        steering.import_gguf(tmp_path / "none.gguf")
    (tmp_path / "x.gguf").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"x\.gguf is no GGUF file"):
        steering.import_gguf(tmp_path / "x.gguf")


def test_on_a_linear_model_the_top_tokens_are_the_unembedded_vector():
    model = linear_model()
    vector = steering.Vector.of(SITE, torch.randn(32, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    change = model.module.lm_head.weight @ vector.writer
    wanted = (change - change.mean()) / change.std()
    found = steering.top_tokens(model, vector, 5)
    ends = wanted.topk(5), (-wanted).topk(5)
    assert_close(
        torch.tensor(found.values).double(), torch.stack([ends[0].values, -ends[1].values]), atol=1e-4, rtol=1e-4
    )
    assert found.token.values.tolist() == [model.words(end.indices.tolist()) for end in ends]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_top_tokens_do_not_drown_in_the_biases_of_half_precision(dtype):
    """A bias of the final norm and of the unembedding, beside which a small step rounds away."""
    modules = [tiny.build("phi", kind) for kind in (torch.float32, dtype)]
    for module in modules:
        draw = torch.Generator().manual_seed(0)
        for bias in (module.model.final_layernorm.bias, module.lm_head.bias):
            bias.data = 3 * torch.randn(bias.shape, generator=draw).to(bias)
    whole, half = (interp.load(module, tokenizer=tiny.tokenizer()) for module in modules)
    vector = vector_of(whole)
    n = whole.shape.d_vocab
    wanted, found = (steering.top_tokens(model, vector, n).sel(direction="up") for model in (whole, half))
    by_word = [dict(zip(array.token.values.tolist(), array.values.tolist())) for array in (wanted, found)]
    assert len(by_word[0]) > 10
    assert max(abs(by_word[0][word] - by_word[1][word]) for word in by_word[0]) < 0.1


def test_top_tokens_are_those_that_steering_the_last_stream_raises(family):
    model = load(family)
    vector = steering.Vector.of(Site("resid_post", 2), torch.randn(32, generator=torch.Generator().manual_seed(0)))
    found = steering.top_tokens(model, vector, len(model.tokenizer) // 2)
    moved = model.run(PROMPTS, edits=steering.steer(vector, 1e4)).logits[:, -1].mean(0)  # nothing else is left
    moved = moved - model.run(PROMPTS, edits=steering.steer(vector, -1e4)).logits[:, -1].mean(0)
    ids = [model.token_id(word) for word in found.sel(direction="up").token.values[:3]]
    assert set(ids) <= set(moved.topk(8).indices.tolist())


def test_what_parts_write_adds_up_to_the_gap(family, backend):
    model = load(family, backend)
    concept = steering.contrast_pairs(model, "love", WITH, WITHOUT)
    reference = load(family)
    vector = vector_of(reference)
    found = steering.writers(model, concept, vector)
    assert checks_of(found)[0].status == "pass"
    names = set(found.component.values)
    assert {"embed", "mlp0", "mlp1"} <= names and "mlp2" not in names


def test_a_head_that_cannot_see_a_vector_does_not_read_it():
    """The query matrix of one head is made blind to the writer, and that of another sees little else."""
    model = load("llama")
    vector = steering.Vector.of(SITE, torch.randn(32, generator=torch.Generator().manual_seed(0)))
    block = model.module.model.layers[2]
    seen = torch.nn.functional.normalize(vector.unit * block.input_layernorm.weight, dim=0)
    with torch.no_grad():
        weight = block.self_attn.q_proj.weight.view(4, 8, 32)
        weight[1] -= (weight[1] @ seen)[:, None] * seen
        weight[2] += 5 * seen
    small = steering.Vector.of(SITE, 1e-3 * vector.writer)  # so that the norm's scale stays
    ratio = steering.readers(model, PROMPTS, small).mean("prompt").to_series()
    assert ratio["L2H1.q"] < 0.3 and ratio["L2H2.q"] > 2
    assert ratio["L2H2.q"] == max(ratio)
    assert set(ratio.index) == {
        *(f"L2H{h}.q" for h in range(4)),
        *(f"L2KV{h}.{k}" for h in range(2) for k in "kv"),
        "mlp2",
    }


def test_a_vector_off_the_stream_is_not_explained():
    model = load("gpt2")
    with pytest.raises(ValueError, match=r"z\.1 is not in the units of the stream"):
        steering.top_tokens(model, vector_of(model, Site("z", 1), head=0))
    with pytest.raises(ValueError, match=r"attn_out\.1 is not the sum of what parts below it write"):
        concept = steering.contrast_pairs(model, "love", WITH, WITHOUT)
        steering.writers(model, concept, vector_of(model, Site("attn_out", 1)))
    with pytest.raises(ValueError, match=r"nothing is above resid_post\.2 that could read it"):
        steering.readers(model, PROMPTS, vector_of(model, Site("resid_post", 2)))
