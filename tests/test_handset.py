"""The models set by hand have the circuits that their texts describe."""

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import interp
from interp import Site, circuits, edits
from interp.zoo import handset, known

PROMPTS = ["<bos> Anna and :", "<bos> and Tom :", "<bos> Tom and and :"]
ANSWERS = torch.tensor([3, 4, 4])


def answer(model, *off) -> torch.Tensor:
    made = [edits.zero(Site("z", layer), head=head) for layer, head in off]
    return model.run(PROMPTS, edits=made).logits[range(3), -1, ANSWERS]


@pytest.fixture(scope="module", params=handset.HANDSET)
def made(request) -> known.Known:
    return handset.HANDSET[request.param]()


@pytest.mark.parametrize("ablation", known.ABLATIONS)
def test_patching_every_edge_finds_those_that_are_documented_and_no_others(made, ablation):
    effects = known.effects(made, ablation)
    assert int(effects.notnull().sum()) == len(effects) * int(circuits.graph(made.model).precedes.sum())
    assert known.edges_that_matter(effects) == made.edges[ablation]
    elsewhere = effects.values[:, (circuits.graph(made.model).precedes > made.mask(ablation)).numpy()]
    assert np.abs(elsewhere).max() < 2e-5  # the rest is rounding: nothing leaks


def test_every_edge_alone_is_what_the_library_says_of_it(made):
    task = made.task
    library = circuits.patch_each_edge(made.model, task.clean, task.corrupt, made.metric, direction="noising")
    np.testing.assert_allclose(known.effects(made, "corrupt", budget=2**18).values, library.values, atol=1e-5)


def test_the_task_is_done_and_nothing_but_the_circuit_is_needed(made):
    task, graph = made.task, circuits.graph(made.model)
    assert made.model.run(task.clean).logits[:, -1].argmax(-1).tolist() == task.right[:, 0].tolist()
    rest = graph.mask() - made.mask("corrupt")
    found = circuits.patch_edges(made.model, task.clean, task.corrupt, {"rest": rest}, made.metric, "noising")
    assert float(abs(found).max()) < 2e-5


@pytest.mark.parametrize("name", handset.HANDSET)
def test_backends_agree_and_other_seeds_hold(name, backend):
    one, other = (handset.HANDSET[name](backend=b) for b in (backend, "huggingface"))
    task = other.task
    assert_close(one.model.run(task.clean).logits, other.model.run(task.clean).logits, atol=1e-4, rtol=0)
    if name != "backup" and backend == "huggingface":
        made = handset.HANDSET[name](seed=7)
        assert made.model.run(made.task.clean).logits[:, -1].argmax(-1).tolist() == made.task.right[:, 0].tolist()
        assert known.edges_that_matter(known.effects(made, "zero")) == made.edges["zero"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_norm_passes_on_exactly_what_it_is_given(dtype):
    module = handset.Blank.of(["a", "b"], ["x"], 1, 1, d_head=8).module.to(dtype)
    x = torch.randn(50, 8, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 100
    x[:, -1] = -x[:, :-1].sum(-1)
    assert_close(module.transformer.ln_f(x), x, atol=1e-4 if dtype == torch.float32 else 1e-12, rtol=0)
    assert torch.equal(module.transformer.ln_f(2 * x), 2 * module.transformer.ln_f(x))


def test_the_backup_steps_in_and_only_then():
    model = handset.backup(repair=0.7, strength=5.0)
    assert model.run(PROMPTS).logits[:, -1].argmax(-1).tolist() == ANSWERS.tolist()
    for off, left in (((), 5.0), (((0, 0),), 3.5), (((1, 0),), 5.0), (((0, 0), (1, 0)), 0.0), (((0, 1), (1, 1)), 5.0)):
        assert_close(answer(model, *off), torch.full((3,), left), atol=1e-5, rtol=0)


def test_each_head_attends_where_its_text_says():
    model = handset.backup()
    mover, backup = Site("pattern", 0), Site("pattern", 1)
    tokens = model.tokens("<bos> and Anna and :")
    plain = model.run(tokens, read=[mover, backup])
    ablated = model.run(tokens, read=[backup], edits=[edits.zero(Site("z", 0), head=0)])
    name, start = 2, 0
    for pattern, head, key in (
        (plain[mover], 0, name), (plain[mover], 1, start), (plain[backup], 0, start), (plain[backup], 1, start),
        (ablated[backup], 0, name),
    ):  # fmt: skip
        assert float(pattern[0, head, -1, key]) > 0.999


def test_the_adder_adds_all_pairs_by_its_frequencies_alone():
    p, frequencies = 31, (3, 7, 12)
    model = handset.adder(p, frequencies).model
    a, b = (torch.tensor(side) for side in zip(*product(range(p), repeat=2)))
    ids = torch.stack([torch.zeros_like(a), a + 1, b + 1, torch.full_like(a, p + 1)], dim=1)
    trace = model.run(ids, read=[Site("embed"), Site("mlp_pre", 0)])
    logits = trace.logits[:, -1, 1 : p + 1].double()
    assert torch.equal(logits.argmax(-1), (a + b) % p)
    angle = lambda n, k: 2 * torch.pi * k * n.double() / p
    total = (a + b)[:, None] - torch.arange(p)
    wanted = sum(10 * angle(a - b, k / 2).cos()[:, None] ** 2 * angle(total, k).cos() for k in frequencies)
    assert_close(logits, wanted, atol=1e-4, rtol=0)
    by_number = trace[Site("embed")][::p, 1].double()  # (number, d_model)
    neurons = trace[Site("mlp_pre", 0)][:, -1].double().unflatten(0, (p, p))[:, 5]
    for signal in (by_number, neurons - neurons.mean(0), logits.T):
        power = torch.fft.rfft(signal, dim=0).abs().square().sum(-1)
        assert (power > 1e-9 * power.sum()).nonzero().flatten().tolist() == list(frequencies)


def test_both_planted_directions_are_there_and_one_is_used():
    made = handset.planted(seed=3)
    task, final = made.task, Site("resid_post", 0)
    trace = made.model.run(task.clean, read=[final])
    for name, first, strength in (("used", "hot", 1.0), ("idle", "wet", 2.0)):
        site, direction = made.directions[name]
        said = torch.tensor([1.0 if word == first else -1.0 for word in task.labels[name]])
        assert site == final
        assert_close(trace[site][:, -1] @ direction.float(), strength * said, atol=1e-5, rtol=0)
        removed = made.model.run(task.clean, edits=[edits.remove(site, direction)]).logits
        change = (removed - trace.logits)[:, -1].abs().max(-1).values
        assert_close(change, torch.full_like(change, 5.0 if name == "used" else 0.0), atol=1e-5, rtol=0)


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="odd p and two or more different frequencies"):
        handset.adder(p=10)
    with pytest.raises(ValueError, match="unknown ablation 'mean'; choose from corrupt, zero"):
        known.effects(handset.copying(), "mean")
    blank = handset.Blank.of(["a"], ["x"], 1, 1)
    with pytest.raises(ValueError, match="a head of width 2 has no room for 0 scores and 3 writes"):
        blank.head(0, 0, [], [({"a": 1.0}, {"a": 1.0})] * 3)
    with pytest.raises(ValueError, match="no two prompts of toy were of one length"):
        known.pairs("toy", interp.load(), lambda rng: ("Mary", "John"), 1, 0)


@pytest.mark.parametrize(
    "make",
    [
        *(partial(handset.induction, length=length) for length in (2, 8)),
        *(partial(handset.self_repair, repair) for repair in (0.0, 1.0, 1.3)),
        *(partial(handset.adder, *given) for given in ((9, (1, 3)), (15, (3, 5)))),
    ],
    ids=lambda make: f"{make.func.__name__}{make.args or make.keywords}",
)
def test_other_sizes_and_strengths_do_what_is_said_of_them_too(make):
    made = make()
    assert bool((made.metric(made.model.run(made.task.clean)) > 0).all())
    for ablation, edges in made.edges.items():
        assert known.edges_that_matter(known.effects(made, ablation)) == edges


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: handset.induction(length=9), "induction is over 2 to 8 different words, not over 9"),
        (lambda: handset.adder(59, (4,)), "two or more different frequencies"),
        (lambda: handset.adder(59, (4.5, 7)), "two or more different frequencies"),
        (lambda: handset.adder(15, (3, 6)), "are all multiples of 3: sums would not be told apart"),
        (lambda: handset.planted(strength=0), "strength=0 leaves nothing that tells hot from cold"),
    ],
)
def test_sizes_with_which_they_would_not_do_it_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
