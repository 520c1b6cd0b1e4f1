"""Sets of prompts: what is chosen of them, how labels are read, and rows from files."""

import numpy as np
import pytest
import torch

from interp import Site, probing, tasks

TEXTS = ["the dog", "the cat", "the bird", "the horse"]


def _labelled(model, labels=(True, False, True, False), texts=TEXTS, **more):
    return tasks.from_labels(model, texts, labels, **more)


@pytest.mark.parametrize(
    "given",
    [[True, False, False, True], torch.tensor([True, False, False, True]), np.array([1, 0, 0, 1], bool), [0, -1],
     torch.tensor([0, 3]), np.array([0, 3]), slice(0, 4, 3)],
)  # fmt: skip
def test_a_mask_chooses_what_its_numbers_choose(embedded, given):
    mine = _labelled(embedded, ["a", "b", "c", "d"], groups=list("wxyz"), families=list("ppqq")).rows(given)
    assert (mine.labels, mine.groups, mine.families) == (["a", "d"], ["w", "z"], ["p", "q"]) and len(mine) == 2
    assert torch.equal(mine.prompts.ids, embedded.tokens(["the dog", "the horse"]).ids)
    whole = tasks.ioi(embedded, 4)
    some = whole.rows(given)
    assert len(some) == len(some.texts[0]) == len(some.right) == 2 and some.texts[0][1] == whole.texts[0][3]


def test_what_chooses_no_prompts_is_refused(embedded):
    for data in (_labelled(embedded), tasks.ioi(embedded, 4)):
        with pytest.raises(ValueError, match="a mask of 3 was given for 4 prompts; one value each is needed"):
            data.rows([True, False, True])
        with pytest.raises(ValueError, match="there is no prompt 4: there are 4, numbered from 0 on"):
            data.rows([0, 4])
        with pytest.raises(ValueError, match="prompts are chosen by whole numbers or by a mask"):
            data.rows(torch.tensor([0.5]))


@pytest.mark.parametrize(
    "kind", [np.array, torch.tensor, list, lambda x: list(torch.tensor(x)), lambda x: list(np.array(x))]
)
def test_labels_are_what_they_are_in_whatever_they_come(embedded, kind):
    assert _labelled(embedded, kind([True, False, True, False])).labels == [True, False, True, False]
    assert _labelled(embedded, kind([3, 1, 3, 2])).classes == [1, 2, 3]
    numbers = _labelled(embedded, kind([0.5, 1.5, 2.5, 3.5]))
    assert numbers.classes == [] and numbers.y.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert _labelled(embedded, groups=kind([1, 1, 2, 2]), families=kind([7, 8, 7, 8])).groups == ["1", "1", "2", "2"]
    assert _labelled(embedded, np.array([0.5, 1, 2, 3], np.float32)).classes == []


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan")])
def test_a_missing_label_is_named(embedded, missing):
    with pytest.raises(ValueError, match=r"prompt 2 has no label: it is (nan|None); leave such prompts out"):
        _labelled(embedded, [1.0, 2.0, missing, 3.0])
    with pytest.raises(ValueError, match=r"prompt 0 has no group: it is (nan|None)"):
        _labelled(embedded, groups=[missing, "a", "b", "b"])


def test_identical_prompts_are_a_group(embedded):
    texts = ["the dog", "the cat", "the dog", "the dog runs"]
    groups = _labelled(embedded, texts=texts).groups
    assert groups is not None and groups[0] == groups[2] and len(set(groups)) == 3
    assert _labelled(embedded).groups is None and _labelled(embedded, texts=texts, groups=list("abcd")).groups == list(
        "abcd"
    )
    both = tasks.joined(embedded, {"a": _labelled(embedded), "b": _labelled(embedded, texts=texts)})
    assert both.groups[0] == both.groups[4] == both.groups[6] and len(set(both.groups)) == 5
    some = tasks.joined(embedded, {"a": _labelled(embedded), "b": _labelled(embedded, groups=list("wwzz"))})
    assert some.groups[4:] == list("wwzz") and len(set(some.groups)) == 6


def test_prompts_that_were_copied_are_not_read_by_their_copies(embedded):
    """Of 20 nulls at 2.5 % none is expected to be found; without groups all of them were."""
    texts = [f"{word} {other}" for word in ("the", "a", "of", "is") for other in ("dog", "cat", "boy", "girl", "king")]
    sites = [Site("resid_post", 0)]
    found = []
    for seed in range(10):
        labels = torch.rand(20, generator=torch.Generator().manual_seed(seed)).argsort() < 10
        data = _labelled(embedded, labels.repeat(4), texts * 4)
        report = probing.probe(embedded, data, sites, by="lda", shuffles=39, controls=False)
        found.append(report.verdict.item() == "decodable")
    assert sum(found) <= 1
