"""Tasks of the embedded model: their split is the one that its training kept."""

import inspect

import pytest

from interp import tasks
from interp.zoo import corpus

# What of a clean sentence is held out together, by its place among the words of the prompt.
CHOICES = {"ioi": ("IO", "S1"), "refusal": ("verb", "object")}


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", CHOICES)
def test_clean_prompts_are_of_the_split(embedded, name, split):
    task = tasks.EMBEDDED[name](embedded, 60, 0, split)
    words = [text.split() for text in task.texts[0]]
    width = task.clean.ids.shape[1]
    at = [[int(place) - width for place in task.clean.roles[role]] for role in CHOICES[name]]
    chosen = [tuple(text[place] for place in places) for text, places in zip(words, zip(*at))]
    order = sorted if name == "ioi" else tuple
    assert all(corpus.in_split(split, *order(words)) for words in chosen) and len(set(chosen)) > 3


@pytest.mark.parametrize("name", tasks.EMBEDDED)
def test_a_split_is_checked_or_not_taken(embedded, name):
    if "split" in inspect.signature(tasks.EMBEDDED[name]).parameters:
        with pytest.raises(ValueError, match="unknown split 'tset'"):
            tasks.EMBEDDED[name](embedded, 2, split="tset")
    else:
        with pytest.raises(TypeError, match="split"):
            tasks.EMBEDDED[name](embedded, 2, split="test")
