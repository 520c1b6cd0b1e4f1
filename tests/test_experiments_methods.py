"""The experiments on heads, lenses, attributions and circuits: small forms against independent computations."""

import numpy as np
import pytest
import tiny
import torch
from tiny import save_english

from experiments import attribution_faithfulness, circuit_discovery, name_movers, tuned_lens
from experiments.lab import keep, subjects
from experiments.lab.arrays import recovery
from experiments.lab.wording import listed
from experiments.store import Store
from interp import Site, circuits, edits, tasks
from interp.zoo.corpus import draw_repetition


def asked(module, **options):
    """Arrays, numbers, answer and figures of a small run."""
    arrays = module.run(module.Config(**options))
    return arrays, module.numbers(arrays), module.answer(arrays), module.draw(arrays)


def without_head(model, task, layer, head):
    """The metric where a head adds to the last stream, and to nothing else, what it adds in the corrupt run."""
    last, z = Site("resid_post", model.shape.n_layers - 1), Site("z", layer)
    clean, corrupt = (model.run(side, read=[last, z]) for side in (task.clean, task.corrupt))
    width = model.shape.d_model // model.shape.n_heads
    weight = model.module.transformer.h[layer].attn.c_proj.weight[head * width :][:width]
    stream = clean[last][:, -1] + (corrupt[z] - clean[z])[:, -1, head] @ weight
    return task.logit_diff.of(model.unembed(stream))


def test_a_head_is_cut_off_from_the_logits_alone(embedded):
    arrays, numbers, _, _ = asked(name_movers, n=12, free="nothing", draws=3)
    task = tasks.ioi(embedded, 12, 0)
    full = task.logit_diff(embedded.run(task.clean))
    for layer, head in ((0, 3), (2, 0), (3, 2)):
        by_hand = (full - without_head(embedded, task, layer, head)).detach()
        np.testing.assert_allclose(arrays["heads"].sel(sender=f"L{layer}H{head}"), by_hand, atol=2e-4)
    best = f"L{numbers['best_layer']:.0f}H{numbers['best_head']:.0f}"
    assert numbers["lost"] == float(arrays["heads"].mean("prompt").max())
    assert float(arrays["heads"].sel(sender=best).mean()) == pytest.approx(numbers["lost"])


def test_name_movers_are_found_traced_and_held_against_random_heads(embedded):
    arrays, numbers, answer, figures = asked(name_movers, n=12, movers=2, draws=10)
    task = tasks.ioi(embedded, 12, 0)
    full = task.logit_diff(embedded.run(task.clean))
    other = embedded.run(task.corrupt, read=embedded.sites("z", "q", "k", "v"))
    last = embedded.shape.n_layers - 1
    for head in range(embedded.shape.n_heads):  # after a last head comes but one MLP, which is free: all that it does
        off = task.logit_diff(embedded.run(task.clean, edits=[edits.copy(other, Site("z", last), head=head)]))
        np.testing.assert_allclose(arrays["heads"].sel(sender=f"L{last}H{head}"), full - off, atol=2e-4)
    for reader in arrays["receivers"]["receiver"].values:
        layer, head, kind = int(reader[1]), int(reader[3]), reader[-1]
        off = task.logit_diff(embedded.run(task.clean, edits=[edits.copy(other, Site(kind, layer), head=head)]))
        np.testing.assert_allclose(arrays["receivers"].sel(receiver=reader), full - off, atol=2e-4)
    movers = arrays["held_out"].attrs["movers"].split(", ")
    _, test = subjects.open_two(name_movers.Config(n=12), embedded, "ioi")
    far = test.logit_diff(embedded.run(test.clean)) - test.logit_diff(embedded.run(test.corrupt))
    np.testing.assert_allclose(arrays["gap_held_out"], far.detach(), atol=2e-4)
    rivals = arrays["held_out"].mean("prompt") / float(arrays["gap_held_out"].mean())
    assert numbers["together"] == pytest.approx(float(rivals.sel(sender="movers")))
    assert numbers["random"] == pytest.approx(float(rivals.drop_sel(sender="movers").max()))
    assert answer.startswith(f"{movers[0]} most") and len(movers) == 2
    assert set(figures) == {"heads", "looks", "receivers", "senders", "held_out"}
    pattern, ids = embedded.run(task.clean, read=[Site("pattern", 3)])[Site("pattern", 3)][:, 2, -1], task.clean.ids
    assert int((ids == task.wrong).sum()) == 2 * 12, "who gives is named twice, and looked at in both places"
    for name, answers in (("right", task.right), ("wrong", task.wrong)):
        seen = [sum(float(row[pos]) for pos in places) for row, places in zip(pattern, _places(ids, answers))]
        np.testing.assert_allclose(arrays["looks"].sel(sender="L3H2", name=name), seen, atol=1e-6)


def _places(ids, answers):
    return [[pos for pos, token in enumerate(row) if token == answer[0]] for row, answer in zip(ids, answers)]


def test_both_lenses_are_measured_on_documents_that_tuned_nothing(embedded):
    options = dict(n=60, held_out=8, length=24, steps=20)
    arrays, numbers, answer, figures = asked(tuned_lens, **options)
    _, documents = tuned_lens.inputs(tuned_lens.Config(**options))
    fresh, seen = documents.rows(slice(-8, None)), documents.rows(slice(0, -8))
    assert len(seen) == 60 and not (fresh.ids[:, None] == seen.ids[None]).all(-1).any()
    trace = embedded.run(fresh, read=embedded.sites("resid_post"))
    final = trace.logits.log_softmax(-1)
    for layer in (0, 2):
        decoded = embedded.unembed(trace[Site("resid_post", layer)]).log_softmax(-1).detach()
        by_hand = (final.exp() * (final - decoded)).sum(-1).mean(-1)
        np.testing.assert_allclose(arrays["held_out"]["kl"].sel(lens="logit lens", layer=layer), by_hand, atol=1e-4)
    mean = final.exp().mean((0, 1))
    constant = (final.exp() * (final - mean.log())).sum(-1).mean()
    assert numbers["constant"] == pytest.approx(float(constant), abs=1e-4)
    kl = arrays["held_out"]["kl"].mean("prompt")
    left = float(kl.sel(lens="tuned lens", layer=2) / kl.sel(lens="logit lens", layer=2))
    assert numbers["left_2"] == pytest.approx(left) and 0 < left < 0.6
    assert f"{100 * left:.0f} % (" in answer and set(figures) == {"kl", "left", "agreement", "blocks"}
    kl = arrays["sentences"]["kl"].mean("prompt")
    left = float(kl.sel(lens="tuned lens", layer=1) / kl.sel(lens="logit lens", layer=1))
    assert numbers["sentences_left_1"] == pytest.approx(left) and f"{100 * left:.0f} % (" in answer


def test_sentences_without_repeats_are_their_own_documents():
    config = tuned_lens.Config(length=40)
    every, some = (tuned_lens._drawn(config, kind, 20, but) for kind, but in (("", ()), ("s", [draw_repetition])))
    said_again = lambda text: any(text.count(text[i : i + 60]) > 1 for i in range(len(text) - 60))
    assert any(map(said_again, every)) and not any(map(said_again, some)) and not set(every) & set(some)


def test_words_are_shuffled_within_a_document(embedded):
    tokens = embedded.tokens(["Mary went to the store .", "the dog runs and the cat sleeps"])
    mixed = tuned_lens._shuffled(tokens, 0)
    assert torch.equal(mixed.ids.sort(-1).values, tokens.ids.sort(-1).values) and torch.equal(mixed.mask, tokens.mask)
    first = tokens.mask.float().argmax(-1)
    rows = torch.arange(2)
    assert torch.equal(mixed.ids[rows, first], tokens.ids[rows, first]) and not torch.equal(mixed.ids, tokens.ids)


def test_a_lens_is_tuned_on_a_file_or_on_what_the_model_writes(tmp_path, embedded):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"{' '.join(tiny.WORDS[3:12][i % 5 :])} the ball is not it" for i in range(24)))
    small = dict(n=16, held_out=4, length=8, steps=2)
    for family in ("gpt2", "llama"):
        model = tiny.save(family, tmp_path / family)
        _, documents = tuned_lens.inputs(tuned_lens.Config(model=model, data=str(text), **small))
        assert documents.ids.shape == (20, 8), "cut, and no more lines than were asked for"
        arrays, numbers, answer, _ = asked(tuned_lens, model=model, data=str(text), **small)
        assert "sentences" not in arrays and "random words" not in answer
        assert np.isfinite(list(numbers.values())).all() and "after block 1" in answer
        config = tuned_lens.Config(model=model, **small)
        opened = subjects.open_model(config)
        assert tuned_lens.inputs(config)[1] is None
        written = tuned_lens._sampled(config, opened)
        assert written.ids.shape == (20, 8) and len({tuple(row) for row in written.ids.tolist()}) > 10
        assert torch.equal(written.ids, tuned_lens._sampled(config, opened).ids)
        assert tuned_lens.numbers(tuned_lens.run(config))["logit"] > 0
    with pytest.raises(
        ValueError, match=r"text.txt has 24 documents, of which held_out=20 are measured on; at least ten"
    ):
        tuned_lens.inputs(tuned_lens.Config(data=str(text), held_out=20))
    with pytest.raises(ValueError, match=r"there is no file 'no.txt'; give one with a text on each line"):
        tuned_lens.inputs(tuned_lens.Config(data="no.txt"))


def test_attributions_are_judged_by_what_is_lost_without_their_first_words(embedded):
    methods = ("gradient-x-input", "saliency", "rollout")
    arrays, numbers, answer, figures = asked(attribution_faithfulness, n=12, methods=methods, shares=(0.2, 0.4))
    task = tasks.ioi(embedded, 12, 0)
    site = Site("embed")
    held = embedded.run(task.clean, read=[site])[site]
    with torch.enable_grad():
        trace = embedded.run(task.clean, read=[site], grad=True)
        slope = torch.autograd.grad(task.logit_diff(trace).sum(), trace[site])[0]
    scores = (slope * held).sum(-1)
    np.testing.assert_allclose(arrays["scores"].sel(order="gradient-x-input").T, scores, atol=1e-3)
    full = task.logit_diff(embedded.run(task.clean))
    base = held.mean((0, 1))
    for share in (0.2, 0.4):
        first = scores.argsort(-1, descending=True).argsort(-1) < int(np.ceil(share * scores.shape[1]))
        values = [torch.where(gone[..., None], base, held) for gone in (first, ~first)]
        lost = [full - task.logit_diff(embedded.run(task.clean, edits=[edits.put(site, x)])) for x in values]
        at = dict(order="gradient-x-input", share=share)
        np.testing.assert_allclose(arrays["curves"]["comprehensiveness"].sel(at), lost[0], atol=1e-3)
        np.testing.assert_allclose(arrays["curves"]["sufficiency"].sel(at), lost[1], atol=1e-3)
    curves = arrays["curves"].mean(["share", "prompt"])
    spread = curves["comprehensiveness"] - curves["sufficiency"]
    beyond = spread - spread.sel(order="random")
    for name in methods:
        assert numbers[name] == pytest.approx(float(beyond.sel(order=name)), abs=1e-4)
    assert numbers["skill"] == pytest.approx(numbers["best"] / float(beyond.sel(order="leave one out")), rel=1e-4)
    best = max(methods, key=numbers.get)
    assert answer.startswith(f"{best} " if numbers["faithful"] else "None for certain")
    assert figures["methods"]["method"].tolist() == list(methods)
    assert (figures["methods"]["better than random"] == "yes").sum() == numbers["faithful"]


def test_every_attribution_method_is_judged(embedded):
    arrays, numbers, answer, _ = asked(attribution_faithfulness, n=8, draws=5, task="facts", baseline="corrupt")
    names = arrays["scores"]["order"].values.tolist()
    assert names == list(attribution_faithfulness.Config().methods)
    assert all(name in answer for name in names) and np.isfinite([numbers[name] for name in names]).all()
    task = tasks.facts(embedded, 8, 0)
    np.testing.assert_allclose(arrays["scores"].sel(order="rollout").T, _rolled(embedded, task.clean), atol=1e-5)
    change = task.logit_diff(embedded.run(task.clean)) - task.logit_diff(embedded.run(task.corrupt))
    np.testing.assert_allclose(arrays["scores"].sel(order="IG").sum("pos"), change, rtol=5e-3)
    with pytest.raises(ValueError, match="methods: there is no 'saliencey'; did you mean 'saliency'"):
        asked(attribution_faithfulness, methods=("saliencey",))


def _rolled(model, tokens):
    """Attention from the last word, multiplied through the layers, less the same of uniform attention."""
    sites = model.sites("pattern")
    trace = model.run(tokens, read=sites)
    same = torch.eye(tokens.ids.shape[1])
    uniform = torch.ones_like(same).tril() / torch.ones_like(same).tril().sum(-1, keepdim=True)
    real, null = same.expand(len(tokens), -1, -1), same
    for site in sites:
        real = (trace[site].mean(1) + same) / 2 @ real
        null = (uniform + same) / 2 @ null
    return (real - null)[:, -1].detach()


SMALL = dict(n=10, steps=3, mask_steps=5, draws=4)


def test_methods_of_discovery_are_held_to_exact_effects(embedded):
    arrays, numbers, answer, figures = asked(circuit_discovery, **SMALL)
    task, test = subjects.open_two(circuit_discovery.Config(n=10), embedded, "ioi")
    exact = arrays["scores"].sel(finder="exact")
    sites = [Site("resid_post", 3), Site("mlp_out", 3)]
    clean, corrupt = (embedded.run(side, read=sites) for side in (task.clean, task.corrupt))
    stream = clean[sites[0]][:, -1] + (corrupt[sites[1]] - clean[sites[1]])[:, -1]
    change = (task.logit_diff.of(embedded.unembed(stream)) - task.logit_diff(clean)).detach()
    assert float(exact.sel(writer="mlp3", reader="logits")) == pytest.approx(float(change.mean()), abs=1e-3)
    gap = float((task.logit_diff(clean) - task.logit_diff(corrupt)).mean())
    matter = abs(exact) >= 0.05 * gap
    assert numbers["matter"] == int(matter.sum()) and f"{numbers['matter']} alone change" in answer
    scores = abs(arrays["scores"].sel(finder="EAP"))
    true, false = scores.values[matter.values], scores.where(~matter).values
    wins = [float(a > b) + float(a == b) / 2 for a in true for b in false[np.isfinite(false)]]
    assert numbers["EAP_auroc"] == pytest.approx(np.mean(wins))
    graph = circuits.graph(embedded)
    circuit = torch.from_numpy(np.nan_to_num(arrays["circuits"].sel(finder="EAP-IG").values))
    sets = {"without the rest": graph.mask() - circuit.float(), "nothing": graph.mask()}
    found = circuits.patch_edges(embedded, test.clean, test.corrupt, sets, test.logit_diff, "noising").mean("prompt")
    kept = 1 - float(found.sel(set="without the rest") / found.sel(set="nothing"))
    assert numbers["EAP-IG_kept"] == pytest.approx(kept, abs=1e-3) and int(circuit.sum()) == 48
    assert figures["methods"]["method"].tolist() == [*circuit_discovery.Config().methods, "exact"]


def test_stored_effects_are_those_that_would_be_measured(embedded):
    config = circuit_discovery.Config(task="agreement")
    task = tasks.agreement(embedded, 64, 0)
    stored = circuit_discovery._truth(config, embedded, task)
    some = circuits.graph(embedded).mask([("mlp3", "logits"), ("embed", "mlp0"), ("L3H3", "mlp3")])
    given = embedded, task.clean, task.corrupt, task.logit_diff
    measured = circuits.patch_each_edge(*given, edges=some, direction="noising").mean("prompt")
    there = np.isfinite(measured.values)
    np.testing.assert_allclose(stored.values[there], measured.values[there], rtol=1e-3, atol=1e-3)
    assert stored.attrs["origin"] == "stored"
    other = subjects.open_model(circuit_discovery.Config(model="embedded@00500"))
    fewer = circuit_discovery.Config(n=4)
    for cfg, model in ((fewer, embedded), (fewer, other)):
        assert circuit_discovery._truth(cfg, model, tasks.ioi(model, 4, 0)).attrs["origin"] == "measured"


def test_recovery_has_its_limits():
    exact = np.array([0.0, 0.1, 0.2, 3.0])
    assert recovery(exact, exact, exact > 1) == {"auroc": 1, "correlation": 1, "rank_correlation": 1}
    nothing = recovery(np.zeros(4), exact, exact > 1)
    assert nothing["auroc"] == 0.5 and np.isnan(nothing["correlation"])
    assert np.isnan(recovery(exact, exact, exact > 9)["auroc"])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_random_model_of_english_gets_an_honest_answer(tmp_path, family):
    model = save_english(family, tmp_path)
    _, numbers, answer, figures = asked(name_movers, model=model, n=8, draws=3)
    assert figures and np.isfinite(numbers["lost"]) and (answer.startswith(("None", "L")))
    _, numbers, answer, figures = asked(attribution_faithfulness, model=model, n=8, draws=4)
    assert answer and np.isfinite(numbers["best"]) and len(figures["methods"]) == 6
    _, numbers, answer, figures = asked(circuit_discovery, model=model, **SMALL)
    assert answer and 0 <= numbers["matter"] <= 400 and "methods" in figures
    with pytest.raises(ValueError, match="no prompts of 'sentiment' are shipped for"):
        asked(circuit_discovery, model=model, task="sentiment")


def test_a_model_that_does_not_yet_do_it_moves_no_name():
    answer = asked(name_movers, model="embedded@00250", n=12, draws=3)[2]
    assert answer.startswith("None: the model does not tell who is given something.")
    assert asked(name_movers, n=4)[2].startswith("None for certain"), "four prompts show no effect beyond chance"


def test_heads_that_cannot_be_told_apart_are_refused(tmp_path):
    model = save_english("gemma2", tmp_path)
    with pytest.raises(ValueError, match="cannot be told apart in what attention writes"):
        asked(name_movers, model=model, n=4)


def test_what_is_found_is_tested_on_other_pairs(tmp_path, embedded):
    key = lambda task: {(tuple(a), tuple(b)) for a, b in zip(task.clean.ids.tolist(), task.corrupt.ids.tolist())}
    for name in ("ioi", "facts"):
        one, other = subjects.open_two(name_movers.Config(n=48), embedded, name)
        assert len(one) == 48 and len(other) > 24 and not key(one) & key(other)
    rows = tmp_path / "pairs.csv"
    rows.write_text("clean,corrupt,right,wrong\n" + "the dog,the dogs,runs,run\n" * 4)
    with pytest.raises(ValueError, match=r"of which there are 0 beside the 2 that it is found on; give more by data="):
        subjects.open_two(name_movers.Config(data=str(rows)), embedded, "ioi")


def test_rows_of_a_task_keep_what_belongs_together(embedded):
    task = tasks.ioi(embedded, 6, 0)
    some = task.rows([4, 1])
    metric = task.logit_diff(embedded.run(task.clean))
    np.testing.assert_allclose(some.logit_diff(embedded.run(some.clean)), metric[[4, 1]].detach(), atol=1e-4)
    assert some.texts[1] == [task.texts[1][4], task.texts[1][1]] and len(some) == 2
    assert all(values == [task.labels[name][4], task.labels[name][1]] for name, values in some.labels.items())
    assert torch.equal(some.clean.role("IO"), task.clean.role("IO")[[4, 1]])


def test_a_run_of_each_can_be_kept(tmp_path):
    store = Store(tmp_path)
    for module, options in (
        (name_movers, dict(n=8, draws=2)),
        (tuned_lens, dict(n=30, held_out=4, length=12, steps=2)),
        (attribution_faithfulness, dict(n=6, draws=2, methods=("saliency", "relevance"))),
        (circuit_discovery, dict(n=4, draws=2, mask_steps=2, methods=("EAP", "mask"))),
    ):
        run = keep(module.Config(**options), store)
        assert module.answer(run.arrays) == run.answer
        assert module.numbers(run.arrays) == pytest.approx(run.numbers, nan_ok=True)
        assert all(run.show(name) is not None for name in module.draw(run.arrays))


def test_names_in_a_row():
    assert [listed([]), listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == [
        "none",
        "a",
        "a and b",
        "a, b and c",
    ]
