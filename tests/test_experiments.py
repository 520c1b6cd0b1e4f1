"""Each shipped experiment on a small form: its numbers against an independent computation, and what it states."""

import numpy as np
import pytest
import tiny
import torch

from experiments import (
    agreement,
    fact_attribution,
    facts,
    greater_than,
    indirect_object,
    induction_heads,
    logit_lens,
    self_repair,
    sentiment_probe,
    sentiment_steering,
)
from experiments.lab import experiment, keep, subjects
from experiments.lab.experiment import experiment_of
from experiments.store import Store
from interp import Site, edits, stats, tasks


def asked(module, **options):
    """Arrays, numbers, answer and figures of a small run."""
    arrays = module.run(module.Config(n=12, **options))
    return arrays, module.numbers(arrays), module.answer(arrays), module.draw(arrays)


def test_every_experiment_has_all_parts_and_a_question_of_its_own():
    questions = experiment.shipped()
    assert len(set(questions.values())) == len(questions) >= 10
    for name, question in questions.items():
        found = experiment.find(name)
        assert found.question == question and question.endswith("?")
        assert found.config().__hash__ is not None, "configs are frozen"
        assert all(f.metadata.get("meaning") for f in found.config.__dataclass_fields__.values())


def test_indirect_object(embedded):
    arrays, numbers, answer, figures = asked(indirect_object)
    task = tasks.ioi(embedded, 12, 0)
    at = {"layer": numbers["best_layer"], "head": numbers["best_head"]}
    site = Site("z", at["layer"])
    clean = embedded.run(task.clean, read=[site])
    low, high = (task.logit_diff(embedded.run(tokens)) for tokens in (task.corrupt, task.clean))
    patched = task.logit_diff(embedded.run(task.corrupt, edits=[edits.copy(clean, site, head=at["head"])]))
    assert numbers["restored"] == pytest.approx(float(((patched - low) / (high - low)).mean()), abs=1e-4)
    np.testing.assert_allclose(arrays["positions"].isel(layer=[0, 1]).sum("pos"), 1, atol=0.05)
    assert f"Head L{at['layer']}H{at['head']} restores most" in answer and set(figures) == {
        "stream",
        "denoising",
        "noising",
    }


def test_induction_heads(embedded):
    arrays, numbers, answer, figures = asked(induction_heads, period=10)
    task = tasks.induction(embedded, 12, 0, period=10)
    pattern = embedded.run(task.clean, read=[Site("pattern", 2)])[Site("pattern", 2)]
    before = [ids[:-1].index(ids[-1]) for ids in task.clean.ids.tolist()]
    by_hand = [pattern[i, 3, -1, place + 1] for i, place in enumerate(before)]
    np.testing.assert_allclose(arrays["attention"].sel(layer=2, head=3), by_hand, atol=1e-6)
    assert numbers["attention"] == pytest.approx(float(arrays["attention"].mean("prompt").max()))
    assert "puts" in answer and len(figures) == 3
    points = figures["both"].data[0]
    assert points.hovertext[11] == "L2H3" and points.x[11] == pytest.approx(float(np.mean(by_hand)), abs=1e-5)
    shown = {name for name in points.text if name}
    assert "L2H3" in shown and len(shown) < len(points.hovertext) == 16, (
        "names of heads at the origin lie on each other"
    )


def test_induction_on_another_family_draws_random_tokens(tmp_path):
    arrays, numbers, _, _ = asked(induction_heads, period=8, model=tiny.save("llama", tmp_path))
    assert arrays["heads"].sizes == {"layer": 3, "head": 4, "prompt": 12}
    assert 0 < numbers["attention"] < 1, "an untrained model attends everywhere"


def test_greater_than(embedded):
    arrays, numbers, answer, _ = asked(greater_than)
    task = tasks.greater_than(embedded, 12, 0)
    probability = embedded.run(task.clean).logits[:, -1].softmax(-1)
    later = [embedded.token_id(f"{year:02d}") for year in range(100)]
    begun = arrays["margin"]["year"].values
    by_hand = [probability[i, later[y + 1 :]].sum() - probability[i, later[: y + 1]].sum() for i, y in enumerate(begun)]
    np.testing.assert_allclose(arrays["margin"], torch.stack(by_hand), atol=1e-5)
    assert numbers["gap"] > numbers["head"] > 0 and f"{numbers['gap']:.2f} less" in answer


def test_self_repair(embedded):
    arrays, numbers, answer, figures = asked(self_repair, ablation="zero")
    name = figures["heads"].loc[figures["heads"]["repaired"].notna(), "component"]
    effects = arrays["effects"].sel(norm="frozen").mean("prompt")
    largest = abs(effects["direct"].sel(component=list(name))).idxmax("component").item()
    direct, total = (float(effects[kind].sel(component=largest)) for kind in ("direct", "total"))
    assert numbers == pytest.approx({"repair": 1 - total / direct, "direct": direct}, rel=1e-4)
    assert largest in answer
    task = tasks.ioi(embedded, 12, 0)
    layer, head = int(largest[1]), int(largest[3])
    off = task.logit_diff(embedded.run(task.clean, edits=[edits.zero(Site("z", layer), head=head)]))
    free = arrays["effects"]["total"].sel(norm="free", component=largest)
    np.testing.assert_allclose(free, off - task.logit_diff(embedded.run(task.clean)), atol=1e-3)


def test_facts():
    arrays, numbers, answer, figures = asked(facts)
    whole = arrays["stream"].sum("pos").isel(layer=0)
    assert numbers["at_end"] == pytest.approx(1, abs=0.02), "after the last move all of it is at the end"
    assert float(abs(arrays["stream"].isel(layer=0, pos=-1)).max()) < 1e-5, "before block 0 the last word knows nothing"
    assert float(whole.mean()) > 0.5 and f"From block {numbers['moved']} on" in answer and len(figures) == 3


def test_agreement(embedded):
    arrays, numbers, answer, figures = asked(agreement)
    task = tasks.agreement(embedded, 12, 0)
    margin = task.logit_diff(embedded.run(task.clean))
    np.testing.assert_allclose(arrays["margin"].sel(attractor="other number"), margin, atol=1e-4)
    assert numbers["right"] == float((margin > 0).float().mean())
    swapped = agreement._other_number(embedded, task.clean)
    changed = swapped.ids != task.clean.ids
    assert (changed.sum(-1) == 1).all() and torch.equal(changed.float().argmax(-1), task.clean.role("attractor"))
    back = agreement._other_number(embedded, swapped)
    assert torch.equal(back.ids, task.clean.ids), "the other number's other number is the first"
    assert answer.startswith("Hardly" if numbers["right"] > 0.9 else "Often") and len(figures) == 3


def test_logit_lens_and_attribution_and_probe_and_steering(embedded):
    arrays, numbers, answer, _ = asked(logit_lens)
    task = tasks.ioi(embedded, 12, 0)
    assert numbers["last"] == pytest.approx(float(task.logit_diff(embedded.run(task.clean)).mean()), abs=1e-3)
    assert f"{numbers['last']:.1f}" in answer
    arrays, numbers, _, _ = asked(fact_attribution)
    gap = [float(tasks.facts(embedded, 12, 0).logit_diff(embedded.run(side)).mean()) for side in _sides(embedded)]
    assert numbers["total"] == pytest.approx(gap[0] - gap[1], rel=5e-3)
    config = sentiment_probe.Config(n=96)
    numbers = sentiment_probe.numbers(sentiment_probe.run(config))
    assert numbers["accuracy"] > 0.9 > numbers["null"]
    arrays = sentiment_steering.run(sentiment_steering.Config(n=96, dose=1.5))
    numbers = sentiment_steering.numbers(arrays)
    assert numbers["flipped"] > 0.9 and numbers["flipped_random"] < 0.2
    assert "At dose 1.5" in sentiment_steering.answer(arrays)


def _sides(model):
    task = tasks.facts(model, 12, 0)
    return task.clean, task.corrupt


def test_a_stored_run_says_the_same_as_its_arrays(tmp_path):
    run = keep(facts.Config(n=4), Store(tmp_path))
    module = experiment_of(facts.Config())
    assert module.answer(run.arrays) == run.answer and module.numbers(run.arrays) == run.numbers
    assert all(figure == run.show(name) for name, figure in module.draw(run.arrays).items())


def test_a_model_that_is_named_is_the_one_that_is_run(tmp_path, embedded):
    cfg = facts.Config(model="embedded@00500")
    early = subjects.open_model(cfg)
    assert early.fingerprint() != embedded.fingerprint() and early.tokenizer is not None
    assert subjects.open_model(cfg) is early
    with pytest.raises(ValueError, match="there is no checkpoint '7' of the embedded model; there are 00250"):
        subjects.open_model(facts.Config(model="embedded@7"))
    rows = tmp_path / "pairs.csv"
    rows.write_text("clean,corrupt,right,wrong\nthe dog,the dogs,runs,run\nthe cat,the cats,runs,run\n")
    task = subjects.open_task(facts.Config(data=str(rows)), embedded, "facts")
    assert task.name == "pairs" and len(task) == 2
    spread = subjects.open_model(facts.Config(device="spread"))
    tokens = tasks.facts(embedded, 4).clean
    assert torch.equal(spread.run(tokens).logits, embedded.run(tokens).logits)
    with pytest.raises(ValueError, match="no prompts of 'sentiment' are shipped for"):
        subjects.open_task(
            facts.Config(), subjects.open_model(facts.Config(model=tiny.save("gpt2", tmp_path))), "sentiment"
        )


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_model_of_english_is_asked_by_one_override(tmp_path, family):
    model = tiny.save_english(family, tmp_path)
    for module, stream in ((indirect_object, "positions"), (facts, "stream")):
        arrays, _, answer, figures = asked(module, model=model)
        task = subjects.open_task(module.Config(n=12), subjects.open_model(module.Config(model=model)), _NAMES[module])
        same = (task.clean.ids == task.corrupt.ids).all(0).numpy()
        assert float(abs(arrays[stream].isel(layer=0)).values[same].max()) < 1e-3, "what is the same restores nothing"
        assert answer and figures
    for module in (logit_lens, self_repair, agreement, induction_heads, fact_attribution):
        arrays, numbers, answer, figures = asked(module, model=model)
        assert answer and figures and (all(np.isfinite(list(numbers.values()))) or answer.startswith("No head"))


_NAMES = {indirect_object: "ioi", facts: "facts"}


def test_a_remote_run_is_rehearsed_by_one_option():
    near, far = (facts.run(facts.Config(n=4, backend="nnsight", remote=remote)) for remote in ("", "local"))
    np.testing.assert_allclose(near["stream"], far["stream"], atol=1e-5)
    assert stats.interval(near["stream"])["mean"].shape == (4, near["stream"].sizes["pos"])
