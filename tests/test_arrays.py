"""Labels of positions say what holds of every prompt."""

import torch

from interp import Tokens, patching, tasks
from interp.arrays import position_labels


def test_one_prompt_shows_its_words(embedded):
    assert position_labels(embedded, embedded.tokens("the dog runs")) == ["0 <bos>", "1 the", "2 dog", "3 runs"]


def test_many_prompts_show_what_they_share_and_the_roles_that_stay_in_place(embedded):
    tokens = embedded.tokens(["the dog runs", "the cat walks", "the fox sings"])
    roles = {"subject": torch.tensor([2, 2, 2]), "moving": torch.tensor([3, 3, 2])}
    labels = position_labels(embedded, Tokens(tokens.ids, tokens.mask, roles))
    assert labels == ["0 <bos>", "1 the", "2 subject", "3 …"]


def test_padding_is_not_a_word_that_prompts_share(embedded):
    labels = position_labels(embedded, embedded.tokens(["the dog runs", "dog runs"]))
    assert labels == ["0 …", "1 …", "2 dog", "3 runs"]


def test_no_label_of_an_averaged_sweep_names_a_word_that_one_prompt_lacks(embedded):
    task = tasks.ioi(embedded, n=8)
    sites = embedded.sites("resid_pre", layers=[0])
    array = patching.patch(embedded, task.clean, task.corrupt, sites, task.logit_diff, over=["pos"])
    labels = [str(label) for label in array.pos.values]
    assert len(set(labels)) == len(labels) == task.clean.ids.shape[1]
    for label in labels:
        number, _, word = label.partition(" ")
        present = {embedded.words([i])[0] for i in task.clean.ids[:, int(number)].tolist()}
        assert present == {word} or (len(present) > 1 and word in {*task.clean.roles, "…"})
    assert f"{int(task.clean.roles['S2'][0])} S2" in labels


def test_a_token_and_padding_of_the_same_id_are_not_shared(embedded):
    tokens = Tokens(torch.tensor([[0, 5], [0, 5]]), torch.tensor([[1, 1], [0, 1]]))
    assert position_labels(embedded, tokens)[0] == "0 …"
