# %% [markdown]
# # Probes
#
# A probe is a small classifier that is trained on a model's activations. If it can tell singular from plural there,
# then the activations *hold* the number. Whether the model *uses* what they hold is another question, and a probe
# alone cannot answer it.
#
# The question here: *where does the model keep the number of a subject, and does it use what we read there?* You will
# train probes, watch one cheat, put nulls beside every number, and end with a map on which reading and using differ.

# %%
import textwrap

import numpy as np
import torch
import xarray as xr

import interp
from interp import Site, arrays, edits, metrics, plots, probing, tasks

model = interp.load()
print(model)

# %% [markdown]
# ## The prompts
#
# In `the dogs near the cat` the verb must agree with `dogs`, although `cat` stands nearer. The label is the number of
# the subject; the second noun is singular or plural by the toss of a coin, so that it says nothing about the label.
# The *group* of a prompt is its noun: whether a probe has understood number is seen on nouns that it was not trained
# on.

# %%
data = tasks.concepts.number(model, n=480, seed=0).family("attractor")
for ids, plural, noun in zip(data.prompts.ids[:4], data.labels, data.groups):
    print(f"{' '.join(model.words(ids)):32} plural: {plural!s:5}  group: {noun}")
print(len(data), "prompts,", len(set(data.groups)), "nouns,", f"{np.mean(data.labels):.0%} plural")

# %% [markdown]
# Does the model do it? Its margin is the logit of the verbs of the right number minus that of the others.

# %%
rows = torch.arange(len(data))
margin = metrics.logit_diff(data.answers[rows, data.y], data.answers[rows, 1 - data.y])
scores = margin(model.run(data.prompts))
print(f"margin {scores.mean():+.1f}, right for {(scores > 0).float().mean():.1%} of the prompts")

# %% [markdown]
# ## A probe that cheats
#
# First by hand. Read the stream at the subject after block 0, train a probe on three quarters of the prompts, and test
# it on the rest. Beside it a control: labels that mean nothing. A coin is tossed for each word (`dog` heads, `dogs`
# tails, and so on), twenty times anew. Prediction: what means nothing cannot be read, so the control comes out at a
# half.

# %%
place = Site("resid_post", 0)
kept = probing.collect(model, data.prompts, [place], at=["subject"])
x = kept.at_place(kept.places[0])  # (prompt, feature)
words = model.words(data.prompts.ids[rows, data.prompts.role("subject")])
coin = torch.Generator().manual_seed(0)


def tossed() -> torch.Tensor:
    """A class for each prompt that depends on its subject and means nothing."""
    sides = {word: int(torch.rand(1, generator=coin) < 0.5) for word in sorted(set(words))}
    return torch.tensor([sides[word] for word in words])


def held_out(y: torch.Tensor, test: torch.Tensor) -> float:
    """Accuracy on prompts that a probe was not trained on."""
    return probing.accuracy(probing.fit(x[~test], y[~test]), x[test], y[test])


unseen = torch.tensor([noun in sorted(set(data.groups))[::4] for noun in data.groups])  # every fourth noun
for name, test in {"random prompts": rows % 4 == 0, "unseen nouns": unseen}.items():
    control = np.mean([held_out(tossed(), test) for _ in range(20)])
    print(f"tested on {name:14}  number {held_out(data.y, test):.2f}   coins {control:.2f}")

# %% [markdown]
# The prediction fails, and that is the lesson. Tested on random prompts, the coins are read nearly without error: the
# probe has learned by heart which words are heads. Tested on nouns that it has not seen, it is at chance, as it should
# be, and number is read as before. So hold out groups, and ask of every accuracy what a label without meaning would
# have reached. `probing.probe` does both from here on.
#
# ## Every layer, with its nulls
#
# Now after every block, at the subject and at the last word (END), where the verb is predicted. Predictions:
#
# 1. At the subject, number can be read everywhere. The word itself tells.
# 2. At the last word it cannot be read at first, for the word there is the other noun. Some block must bring it.
# 3. In a copy of the model that was never trained, nothing can be read of nouns that the probe has not seen.
#
# The grey band is a null: labels are shuffled 99 times, probes are fitted to them, and the best and the worst place
# kept.

# %%
report = probing.probe(model, data, model.sites("resid_post"), at=["subject", "END"], shuffles=99)
plots.probes(report, "accuracy", "Is the subject's number readable after each block?")

# %% [markdown]
# Prediction 1 holds. Prediction 2 seems to hold after block 0 and fails from block 1 on: there a probe is right in more
# than nine of ten prompts, although two blocks are still to come. Keep that in mind. Now the controls, in words:
#
# * **p** compares with shuffled labels, and with the best of *all* places: whoever looks at eight places finds more. It
#   is that of a least-squares probe, which can be fitted to all shuffles at once, under the best of four penalties.
# * **skill** is 1 for a probe that is sure and right, 0 for one that knows no more than how common the classes are.
# * **untrained** is the skill in a copy with random weights; **token** that of the word at the place, **bag** that of
#   all words without their order. What these can do, the model need not have computed.
# * **control** is the accuracy on labels without meaning; the **selectivity** is by how much number beats it, or the
#   majority if that is more.

# %%
names = ["accuracy", "control_accuracy", "selectivity", "skill", "untrained_skill", "token_skill", "bag_skill", "p"]
majority, best = report.attrs["majority"], report.attrs["null_of_the_best"]
print(f"majority {majority:.2f}, best of eight places under shuffled labels {best:.2f}")
report[names].to_dataframe().round(2)

# %% [markdown]
# Prediction 3 holds: the untrained copy and the words alone know nothing. But look at the control at the last word.
# Why can labels without meaning be read there, at first without error? They are tossed for the word *at the place*,
# which is the other noun, seen in training or not. So at the last word the selectivity is negative at first, and never
# near that of the subject, and the check warns. It says: much more than number can be read at this place.
#
# And look at p there after block 0. The probe has hardly any skill, yet shuffled labels are never read as well: least
# squares see something that this probe, which pays for being sure and wrong, has not learned from 252 prompts. So ask
# once more, with six times as many.

# %%
many = tasks.concepts.number(model, n=3000, seed=0).family("attractor")
again = probing.probe(model, many, model.sites("resid_post", layers=[0]), at=["END"], shuffles=19, controls=False)
print(f"{len(many)} prompts: accuracy {again.accuracy.item():.2f}, skill {again.skill.item():.2f}")
moved = probing.use(model, many, model.sites("resid_post", layers=[0]), at=["END"]).mean("prompt").squeeze()
print("set to the other number, the answers follow by", f"{moved.sel(way='interchange', direction='probe').item():.3f}")

# %% [markdown]
# So prediction 2 fails everywhere: the first block already brings number to the last word. A probe that does not find
# something says little, and of few prompts less. The second line is for the next section, which asks whether what is
# read is used: number there is not.
#
# ## Read is not used
#
# Does the model use what the probe reads? `probe` has tried it already, in two ways:
#
# * **interchange**: move the activations, as little as possible, until the probe reads what it reads in a prompt of
#   the other class. 1 means that the model's preference is turned round completely.
# * **erasure** (LEACE): take away the least that leaves nothing for any linear probe. 1 means that the preference is
#   gone.
#
# The null of both are placebos: moves of the same size in other directions. Prediction: wherever number can be read,
# it is used.

# %%
effects = ["accuracy", "interchange", "interchange_placebo", "erasure", "erasure_placebo", "verdict"]
report[effects].to_dataframe().round(2).sort_index(level="pos")

# %% [markdown]
# This prediction fails as well, in two ways.
#
# * At the **subject** number is used after blocks 0, 1 and 2, and not after block 3. There the probe is as good as
#   before, but no attention is left that could carry it to the last word.
# * At the **last word** it is readable after every block. After blocks 0 and 1, changing it does no more than a placebo
#   does. After block 2 it beats the placebo beside it, but less than a tenth of the preference moves, and a placebo
#   elsewhere moves more: the verdict stays "decodable". It is used after block 3 alone.
#
# So it is the last block that carries number from the subject to the last word; what could be read there before is a
# trace that hardly anything looks at. A probe alone would have told another story: "number has arrived after block 0".
#
# One warning: after block 3 the best placebo of the interchange has about half of the probe's effect. So near to the
# output, many directions change the verb. Here it is the comparison that counts, not the number.
#
# ## The same by hand
#
# Everything above can be done in a few lines. LEACE finds, in the activations of one place, the direction that has to
# go so that no linear probe can tell the classes apart. Take it away while the model runs; the null takes away a
# random direction.

# %%
noise = torch.randn(model.shape.d_model, generator=torch.Generator().manual_seed(0))
erasers = {}
for at, layer in (("subject", 1), ("END", 1), ("END", 3)):
    site = Site("resid_post", layer)
    kept = probing.collect(model, data.prompts, [site], at=[at])
    eraser = erasers[at, layer] = probing.leace(kept.at_place(kept.places[0]), data.y)
    changes = {"LEACE": eraser.edit(site, pos=at), "random": edits.remove(site, noise, pos=at)}
    left = {name: margin(model.run(data.prompts, edits=[change])).mean() for name, change in changes.items()}
    print(
        f"{at:7} after block {layer}: margin {scores.mean():.1f}",
        *(f"{name} {m:.1f}" for name, m in left.items()),
        sep="   ",
    )

# %% [markdown]
# Is it really gone? An eraser is fitted on some nouns and tried on others, with a fresh probe.

# %%
site = Site("resid_post", 1)
kept = probing.collect(model, data.prompts, [site], at=["subject"])
for check in probing.verify(kept.at_place(kept.places[0]), data.y, data.groups):
    print(f"{check.status}  {check.name}: {check.value:.2g}, at most {check.threshold:.2g}")

# %% [markdown]
# And one sentence. Put along the same direction what lies there in a sentence of the other number, and see what the
# model says next.

# %%
dogs, dog = (model.tokens(f"<bos> the {noun} near the cat") for noun in ("dogs", "dog"))


def says(change: list[interp.Edit]) -> str:
    """The three likeliest next words."""
    best = model.run(dogs, edits=change).logits[0, -1].softmax(-1).topk(3)
    return "   ".join(f"{word} {p:.2f}" for word, p in zip(model.words(best.indices), best.values))


print(f"{'the dogs near the cat …':34}", says([]))
for (at, layer), eraser in erasers.items():
    site, pos = Site("resid_post", layer), {"subject": 2, "END": -1}[at]
    source = model.run(dog, read=[site])
    for name, direction in (("number", eraser.basis), ("random", noise)):
        print(
            f"{name} at {at}, after block {layer}".ljust(34), says([edits.exchange(source, site, direction, pos=pos)])
        )

# %% [markdown]
# ## What is not there
#
# A last control for the whole procedure: a concept that the model *cannot* have. `John says : people in park speak
# Velic` is true or false by a table that we drew ourselves; no text that the model was trained on says anything of it.
# What will a probe find?

# %%
untaught = tasks.concepts.untaught(model, n=960, seed=0)
absent = probing.probe(model, untaught, model.sites("resid_post", layers=[1]), at=["END"], shuffles=99)
print("".join(f"{name} {float(absent[name].squeeze()):.2f}   " for name in ("accuracy", "control_accuracy", "p")))
absent["transfer"].squeeze(drop=True).to_pandas().round(2)

# %% [markdown]
# The probe is right in more than four of five prompts, and no shuffle of the labels does as well (p 0.01): a small
# p-value does not make a concept. What gives it away is the *transfer*, the table above. The places come in two halves;
# a probe that was trained on one half is hardly better than a coin on the other. It has learned which pairs of place
# and language go together, not what is true. So the verdict says "in distribution only".

# %%
for result in (absent, report):
    print(textwrap.fill(result.attrs["verdict"], 100), "\n")

# %% [markdown]
# ## What the checks say
#
# Each report carries its checks. Look at them before you look at a figure.

# %%
for check in arrays.checks_of(report):
    print(f"{check.status}  {check.name} {check.value:.2g}, threshold {check.threshold:.2g}")

# %% [markdown]
# ## The result: two maps that differ
#
# Back to the question. Left, what can be read (skill; its null is the untrained copy). Right, what is used
# (interchange; its null is the best placebo). Layers go upwards.

# %%
shown = {
    "read at subject": ("skill", "untrained_skill", "subject"),
    "read at END": ("skill", "untrained_skill", "END"),
    "used at subject": ("interchange", "interchange_placebo", "subject"),
    "used at END": ("interchange", "interchange_placebo", "END"),
}
values, nulls = (
    xr.concat([report[row[i]].sel(pos=row[2], drop=True) for row in shown.values()], "place").T.clip(min=0).drop_attrs()
    for i in (0, 1)
)
written = zip(values.values, nulls.values)
text = values.copy(data=[[f"{value:.2f}\nnull {null:.2f}" for value, null in zip(*row)] for row in written])
values = values.assign_coords(place=list(shown)).rename("share", layer="after block", place="")
result = plots.heatmap(values, "The subject's number: where it can be read, where it is used", text=text)
result.show()

# %% [markdown]
# Number stays at the subject for three blocks, and the last block fetches it. What can be read at the last word before
# that (after block 0 only with more prompts than the picture's) is real, and all but idle: erased or exchanged, it
# changes less than a tenth of what it could. And after the last block the subject still holds what nobody will ask for
# again. *Readable* and *used* are two maps.
#
# What would change our mind? "All but idle" is a claim about these prompts and about this direction: verbs after a
# relative clause may use what these do not, and something that is not linear would be missed by both tests. That number
# moves in block 3 is what patching must confirm: does one of its heads carry it? (Head 3.3 does: see the edges of
# agreement in [the model's card](../docs/model_card.md).)
#
# ## Where to go next
#
# * `tasks.CONCEPTS` lists the other concepts. When does the pronoun's gender leave the name?
# * `heads=True` with `model.sites("z")` probes every head by itself.
# * Your own labels: `tasks.from_labels(model, texts, labels, groups)`; see [docs/probing.md](../docs/probing.md).
# * `probing.das` learns the direction instead, and `probing.ccs` finds one without labels: look at their nulls first.
