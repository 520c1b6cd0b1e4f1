"""Sets of prompts: what is chosen of them, how labels are read, and rows from files."""

import json

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


ROW = dict(clean="the dog", corrupt="the dogs", right="runs", wrong="run")


def test_rows_may_have_labels_and_roles(embedded):
    rows = [
        ROW | {"number": 1, "noun": "dog"},
        ROW | {"clean": "the cat of John", "corrupt": "the dog of John", "noun": "2"},
    ]
    task = tasks.from_rows(embedded, rows, roles=["noun"])
    assert task.labels == {"number": [1, None]}
    for side in (task.clean, task.corrupt):
        words = embedded.words(side.ids[torch.arange(2), side.role("noun")].tolist())
        assert words == (["dog", "cat"] if side is task.clean else ["dogs", "dog"])
    with pytest.raises(ValueError, match=r"role 'noun' is 'John', which prompt 0 has not at all"):
        tasks.from_rows(embedded, [ROW | {"noun": "John"}], roles=["noun"])
    with pytest.raises(ValueError, match="row 1: each row needs clean, corrupt, right, wrong and noun; missing: noun"):
        tasks.from_rows(embedded, [ROW | {"noun": "dog"}, ROW], roles=["noun"])


def test_a_row_may_have_several_answers(embedded):
    rows = [ROW | {"right": ["runs", "sleeps"]}, ROW | {"wrong": ("run", "sleep")}]
    task = tasks.from_rows(embedded, rows)
    own = [[embedded.token_id(word) for word in words] for words in (("runs", "sleeps"), ("run", "sleep"))]
    assert task.right.tolist() == [own[0], [own[0][0], -1]] and task.wrong.tolist() == [[own[1][0], -1], own[1]]
    for side, said in (
        ([], "missing: right"),
        (["runs", "zyzx"], "row 0, right: .*zyzx"),
    ):
        with pytest.raises(ValueError, match=said):
            tasks.from_rows(embedded, [ROW | {"right": side}])
    with pytest.raises(ValueError, match="row 0: 'run' is a right and a wrong answer"):
        tasks.from_rows(embedded, [ROW | {"right": ["runs", "run"]}])


def test_rows_that_ask_nothing_are_refused(embedded):
    with pytest.raises(ValueError, match="mine has no rows; each pair takes one"):
        tasks.from_rows(embedded, [], "mine")
    with pytest.raises(ValueError, match="mine, row 1: 'runs' is a right and a wrong answer"):
        tasks.from_rows(embedded, [ROW, ROW | {"wrong": "runs"}], "mine")


def test_files_of_rows(embedded, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("clean,corrupt,right,wrong\nthe dog,the dogs,runs,run\n", encoding="utf-8-sig")
    assert tasks.from_file(embedded, path).texts == (["the dog"], ["the dogs"])
    for line, error in (
        ("the dog,the dogs,runs", "row 1: .* missing: wrong"),
        ("a,b,c,d,e,f", "row 1: it has more fields"),
    ):
        path.write_text(f"clean,corrupt,right,wrong\nthe dog,the dogs,runs,run\n{line}\n")
        with pytest.raises(ValueError, match=f"mine, {error}"):
            tasks.from_file(embedded, path)
    path = tmp_path / "mine.jsonl"
    for line, error in (("{oops", "is no JSON"), ("[1, 2]", "is a JSON list; each line is an object")):
        path.write_text(f"{json.dumps(ROW)}\n\n{line}\n")
        with pytest.raises(ValueError, match=f"mine.jsonl, line 3 {error}"):
            tasks.from_file(embedded, path)


def test_what_a_tokenizer_gives_without_padding_is_padded_and_bytes_are_no_ids(embedded):
    bare = embedded.tokens({"input_ids": [[1, 2], [3, 4, 5]], "attention_mask": [[1, 1], [1, 1, 1]]})
    assert bare.ids.tolist() == embedded.tokens([[1, 2], [3, 4, 5]]).ids.tolist() and bare.mask[0].tolist() == [0, 1, 1]
    with pytest.raises(TypeError, match="not bytes"):
        embedded.run(b"the dog")
