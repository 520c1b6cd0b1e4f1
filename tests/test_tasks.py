"""Sets of prompts: what is chosen of them, how labels are read, and rows from files."""

import numpy as np
import pytest
import torch

from interp import tasks

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
