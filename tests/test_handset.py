"""The models set by hand have the circuits that their texts describe."""

import torch
from torch.testing import assert_close

from interp import Site, edits
from interp.zoo import handset

PROMPTS = ["<bos> Anna and :", "<bos> and Tom :", "<bos> Tom and and :"]
ANSWERS = torch.tensor([3, 4, 4])


def answer(model, *off) -> torch.Tensor:
    made = [edits.zero(Site("z", layer), head=head) for layer, head in off]
    return model.run(PROMPTS, edits=made).logits[range(3), -1, ANSWERS]


def test_the_backup_steps_in_and_only_then():
    model = handset.backup(repair=0.7, strength=5.0)
    assert model.run(PROMPTS).logits[:, -1].argmax(-1).tolist() == ANSWERS.tolist()
    for off, left in (((), 5.0), (((0, 0),), 3.5), (((1, 0),), 5.0), (((0, 0), (1, 0)), 0.0), (((0, 1), (1, 1)), 5.0)):
        assert_close(answer(model, *off), torch.full((3,), left), atol=0.01, rtol=0)


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
