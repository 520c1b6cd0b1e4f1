# %% [markdown]
# # Activation patching
#
# *The dogs near the cat … run.* A verb agrees with its subject, even if another noun stands between the two. The
# question: **how does the number of the subject reach the verb?** You will make a map of where the number is, ask
# how much of such a map is chance, and meet a head that every single patch overlooks.
#
# Read [getting started](getting_started.ipynb) first if sites, edits and tasks are new to you.

# %%
from functools import partial
from itertools import islice

import numpy as np
import torch

import interp
from interp import Tokens, components, edits, effects, interactions, metrics, patching, plots, stats, tasks
from interp import attribution_patching as atp
from interp.arrays import checks_of
from interp.zoo import handset

model = interp.load()

# %% [markdown]
# ## The pairs
#
# The two prompts of a pair differ in the number of the subject and in nothing else. The noun before the verb, the
# *attractor*, always has the other number than the subject of the clean prompt: there, a model that simply agrees with
# the nearest noun is always wrong.

# %%
task = tasks.agreement(model, n=64, seed=0)
pair = model, task.clean, task.corrupt
for clean, corrupt, right, wrong in islice(zip(*task.texts, task.right, task.wrong), 3):
    print(f"clean    {clean} … {' '.join(model.words(right[:3].tolist()))}")
    print(f"corrupt  {corrupt} … {' '.join(model.words(wrong[:3].tolist()))}\n")

# %% [markdown]
# The score is the mean logit of the ten verbs in the right form minus that of the ten in the wrong form. Patching
# explains a difference, so look first whether there is one, in every pair.

# %%
scores = {name: task.logit_diff(model.run(side)) for name, side in (("clean", task.clean), ("corrupt", task.corrupt))}
for name, score in scores.items():
    print(f"{name:8} mean {score.mean():+.1f}, from {score.min():+.1f} to {score.max():+.1f}, {len(task)} prompts")

# %% [markdown]
# ## Predict
#
# The number has to travel from the subject (position 2) to the last word (position 5, the attractor), where the verb
# is predicted. There are four blocks. Before you run the next cell, write down: **entering which block has the number
# left the subject?** And does it rest at the preposition or at `the` on its way?
#
# ## The map
#
# Take the corrupt run, put the clean residual stream in at one layer and one position, and see how much of the
# difference comes back: 0 is nothing, 1 is all of it. A star says that the effect is not zero; the p-values are
# corrected for all cells of the map.

# %%
by_position = patching.patch(*pair, model.sites("resid_pre"), task.logit_diff, over=["pos"])
table = stats.summary(by_position)
shares = table["mean"].rename("share restored")
plots.heatmap(shares, "Entering each block, where is the number? (★ p ≤ 0.05)", significant=table.significant)

# %% [markdown]
# None: before every block, nearly all of it is at the subject, and nothing rests on the way, neither at the preposition
# nor at `the`. The number waits where it is, and the last block moves it. Almost: entering that block, less than
# a tenth is at the last word already. Most of the other stars are of effects below 0.01: not zero, and not worth a
# word. What does each block do meanwhile? Patch what its attention and its MLP add.

# %%
parts = patching.patch(*pair, model.sites("attn_out", "mlp_out"), task.logit_diff, over=["pos"])
parts.mean("prompt").to_series().loc[lambda share: abs(share) > 0.1].round(2)

# %% [markdown]
# The MLPs of blocks 0 to 2 work on the number at the subject. The attention of block 3 moves it to the last word,
# nearly all of it, and the last MLP makes a verb of it.
#
# ## What would chance look like?
#
# A map always has a largest cell, and some stars. Two nulls say what they are worth.
#
# First, **the sides shuffled**: a coin decides which prompt of a pair is called clean. No place can then push in one
# direction on average. At a level of 0.05, one map in twenty may have a star. Here are twenty maps of positions,
# and twenty of heads.


# %%
def shuffled(seed: int) -> tuple[Tokens, Tokens]:
    """The pairs, each turned round or not by a coin."""
    turn = torch.tensor(np.random.default_rng(seed).random((len(task), 1)) < 0.5)
    one, other = torch.where(turn, corrupt_ids, clean_ids), torch.where(turn, clean_ids, corrupt_ids)
    return Tokens(one, task.clean.mask), Tokens(other, task.clean.mask)


clean_ids, corrupt_ids = task.clean.ids, task.corrupt.ids
sweep = partial(patching.patch, model, metric=task.logit_diff, normalize=False)  # changes in logits, not shares
for kind, axis in (("resid_pre", "pos"), ("z", "head")):
    maps = [sweep(*shuffled(seed), sites=model.sites(kind), over=[axis]) for seed in range(20)]
    starred = [one.mean("prompt").where(stats.sign_flip(one, draws=1999) <= 0.05) for one in maps]
    sizes = [float(abs(one).max()) for one in starred if one.notnull().any()]
    print(f"by {axis:4} {len(sizes)} of 20 maps have a star; its effect is at most {max(sizes, default=0):.2f} logits")

# %% [markdown]
# One star is expected in twenty maps, and one or two are found: both kinds keep to the rule. What chance stars is below
# 0.1 logits, where the gap is 18. The real map has stars on effects no larger, at `the` for one. **A star says whether
# an effect is zero, never how large it is, nor that it matters.**

# %% [markdown]
# Second, **another noun of the same number**. All that a noun carries changes, but not what the question is about.

# %%
plural, at = torch.tensor(task.labels["plural"]), task.clean.role("subject")
ids = clean_ids.clone()
for rows in (plural.nonzero()[:, 0], (~plural).nonzero()[:, 0]):
    ids[rows, at[rows]] = ids[rows, at[rows]].roll(1)  # the subject of the next prompt that has the same number
for name, other in (("another number", task.corrupt), ("another noun", Tokens(ids, task.clean.mask))):
    found = stats.summary(sweep(task.clean, other, sites=model.sites("resid_pre"), over=["pos"]))
    print(f"{name:15} largest mean effect {float(abs(found['mean']).max()):5.2f} logits")

# %% [markdown]
# **What would change our mind?** An effect of the other noun that comes near that of the other number. The map would
# then show where the *subject* is, and not where its *number* is.
#
# ## Which heads?
#
# Only attention moves anything from one position to another. So patch the output of every head, alone. A mean can
# hide two kinds of prompts; the dots are all the prompts.

# %%
by_head = patching.patch(*pair, model.sites("z"), task.logit_diff, over=["head"])
plots.distributions(by_head, "Share restored by each head, every prompt", most=5)

# %%
heads = stats.summary(by_head)
print(f"p <= 0.05, corrected for sixteen heads: {int(heads.significant.sum())}")
print(f"of these, with an effect above 0.01:    {int((heads.significant & (abs(heads['mean']) > 0.01)).sum())}")
for number, chosen in (("plural", plural), ("singular", ~plural)):
    share = by_head.sel(layer=2, head=0)[chosen.numpy()].mean()
    print(f"head 2.0, clean subject {number:8}  {float(share):.2f}")
heads.to_dataframe().nlargest(5, "mean").round(3)

# %% [markdown]
# Most heads have a star, also after the correction. Two matter: read the interval, not the star. Head 3.3 moves the
# number, and 2.0, one block earlier, helps. The mean of 2.0 did hide two kinds of prompts: where the clean subject is
# plural, it does more than twice as much. *How* does it help? Patch queries, keys and values apart:

# %%
kinds = patching.patch(*pair, model.sites("q", "k", "v", layers=[2, 3]), task.logit_diff, over=["head"])
kinds.mean("prompt").stack(place=["layer", "head"]).to_pandas()[[(2, 0), (3, 3)]].round(2)

# %% [markdown]
# The number is in the *values* of 3.3: that head always looks at the subject and reports what is there. In 2.0 it is
# in the *keys* as well: that head looks elsewhere when the number is another. Keys and values together come to
# less than the whole head, for a report counts only where the head looks.
#
# ## Noising and denoising
#
# Denoising puts something clean into the corrupt run: what is *enough*? Noising puts something corrupt into the
# clean run: what is *needed*? In a chain of single steps the two agree. Look at two behaviours. The first is this
# one. In the second, *honesty*, the model says what somebody claims of a country, and the name of a country has two
# words, each of which four countries share.
#
# **Predict**: if an answer needs *both* words, which heads will denoising underrate?

# %%
honesty = tasks.honesty(model, n=64, seed=0)
for subject in (task, honesty):
    sides = model, subject.clean, subject.corrupt, model.sites("z"), subject.logit_diff
    both = patching.both_directions(*sides, over=["head"], normalize=False)
    gap = subject.logit_diff(model.run(subject.clean)) - subject.logit_diff(model.run(subject.corrupt))
    check = checks_of(both)[0]
    print(f"{subject.name}, gap {gap.mean():.1f}: {check.name} {check.value:.2f}, {check.status}")
    places = both.mean("prompt").astype(float).stack(place=["layer", "head"]).to_pandas().T
    print(places.nsmallest(2, "noising").round(1), "\n")

# %% [markdown]
# These are changes in logits. In the first, either direction would do. In the second, heads 0.1 and 0.2 each bring
# one word of the name. Take one away, and about two thirds of the gap or more are lost; put one back, and less than
# a third returns, because the other word is still wrong. A study that only denoised would have taken both of them
# for small helpers. (Shares, prompt by prompt, would mislead here: in some pairs the gap is near zero, and a share
# divides by it.)
#
# ## A cheap estimate, and its check
#
# Sixteen heads are few. A model of usual size has a hundred thousand places, and patching each takes long.
# *Attribution patching* takes one backward pass: the gradient, times the change of each activation. That assumes that
# the model is straight between the two runs, and it is not. So `verify` patches the places that came first, and a
# random sample of those that did not. Here for keys, which act through a softmax: plain, and with the softmax taken
# exactly (`qk_fix`).

# %%
for name, by in (("plain", atp.ATP), ("softmax exact", atp.Estimator(qk_fix=True))):
    keys = atp.verify(*pair, model.sites("k"), task.logit_diff, over=["head", "pos"], by=by)
    print(name)
    for check in checks_of(keys.estimate):
        print(f"    {check.status}  {check.name} {check.value:.2f}, threshold {check.threshold:g}")

# %% [markdown]
# Both put the right places first, and nothing was overlooked in the sample. But the plain one misses the size of an
# effect by more than half of the largest: believe its order, not its numbers. **What would change our mind** about
# the order: an *overlooked effect* near 1.
#
# ## The head that every single patch overlooks
#
# One more thing can go wrong, and no statistics will show it: a *backup*, which does nothing as long as another head
# works. Here is a model that has one, because its weights were set by hand. After `Anna and :` it says `Anna`. Head
# L0H0, the mover, writes the name. L1H0, the backup, writes it at 0.8 of that strength if, and only if, L0H0 has not.
#
# Set each head to zero, alone. *Total* is what the logit of the name loses; *direct* is what it would lose if no
# later part could react.

# %%
toy = handset.backup(repair=0.8)
prompts = ["<bos> Anna and :", "<bos> Tom and :"]
name = metrics.logit(toy.tokens(prompts).ids[:, 1])
off = components.each(toy, edits.zero)
lost = effects.decompose(toy, prompts, off, name)
lost[["direct", "total"]].mean("prompt").sel(norm="frozen", drop=True).to_dataframe().round(2)

# %% [markdown]
# By its total effect the mover is a minor head, and the backup is no head at all. *Self-repair* is the part of the
# direct effect that later parts make good. In the toy it should be what was built in. And in the trained model?

# %%
reference = model.run(task.corrupt, read=model.sites("z"))
means = components.each(model, partial(edits.mean, reference))  # each head is set to its mean over the corrupt prompts
lost_here = effects.decompose(model, task.clean, means, task.logit_diff)
for where, found, head in (("toy", lost, "L0H0"), ("trained", lost_here, "L3H3"), ("trained", lost_here, "L2H0")):
    repair = effects.self_repair(found).sel(norm="frozen", component=head)
    bounds = " to ".join(f"{float(repair[bound]):.1f}" for bound in ("low", "high"))
    print(f"{where:8} {head}  self-repair {float(repair['mean']):+.1f} ({bounds})")

# %% [markdown]
# No repair in the trained model: far below 0, later parts carry the loss *further* (the last MLP, as you saw, turns
# the number into a verb). But self-repair looks at later parts only. Two heads of one block can stand in for each
# other too.
#
# ## The result: two at once
#
# The cure for what single patches overlook is to take two heads away at once. An *interaction* is the effect of both
# less the sum of each alone. It is zero where heads work apart, below zero where one makes up for the other, and above
# zero where both are steps of one path: once the first is gone, the second has nothing to lose.
#
# **Predict**: heads 2.0 and 3.3 both bring the number to the last word. Does either make up for the other? To compare,
# *induction*: random words come twice, and the model goes on as the first time. Two heads of block 2 fetch the word
# ([model card](../docs/model_card.md)).

# %%
together = interactions.pairs(toy, prompts, off, name).mean("prompt").rename("logit")
plots.heatmap(together, "The toy: lost together, beyond the sum of each alone")

# %%
induction = tasks.induction(model, n=64, seed=0)
reference = model.run(induction.corrupt, read=model.sites("z"))
induction_means = components.each(model, partial(edits.mean, reference))
behaviours = {"The verb": (task, means), "Induction": (induction, induction_means)}
for title, (subject, ablations) in behaviours.items():
    together = interactions.pairs(model, subject.clean, ablations, subject.logit_diff).mean("prompt")
    result = plots.heatmap(together.rename("logit difference"), f"{title}: lost together, beyond the sum of each alone")
    result.show()

# %% [markdown]
# The toy's backup is found at once. Of all 120 pairs, 2.0 and 3.3 are furthest below zero for the verb, but read the
# scale: 0.2 logits, of a preference of 9. That is no backup. In induction the scale goes past 15, and below zero one
# pair stands out: 2.1 and 2.3. (Far above zero: 0.0, 1.0 and 2.3, like steps of one path.) What is left without both?

# %%
for title, one, other in (("The verb", "L2H0", "L3H3"), ("Induction", "L2H1", "L2H3")):
    subject, ablations = behaviours[title]
    for heads in ([], [one], [other], [one, other]):
        score = subject.logit_diff(model.run(subject.clean, edits=[ablations[head] for head in heads]))
        share = (score > 0).float().mean()
        print(f"{title:9}, without {' and '.join(heads) or 'any edit':13} {score.mean():+5.1f}, right in {share:.0%}")

# %% [markdown]
# Look at the verb. By right answers, 2.0 and 3.3 seem to be each other's backup: without either, every verb is right,
# and without both, hardly more than by a coin. In logits the two losses nearly add up. An answer turns at zero, and
# without 3.3 it still was a little above. **Count logits, not answers, to tell a backup from a sum.** In induction the
# logits say it: 2.1 alone costs about one, but several once 2.3 is gone. (Why, they do not say: later parts and the
# final norm may flatten what is large.)
#
# So: one head of the last block carries nearly all of the number of the subject to the verb, by what it reports. One
# head of the block before brings a little more, and no head makes up for either. **What would change our mind?** A
# pair that costs more than its sum by as much as 2.0 costs alone.
#
# ## Where to go next
#
# * **Your turn**: read `Site("pattern", 2)` in the clean and in the corrupt run. Where does head 2.0 look if the
#   subject is plural, and where if it is singular?
# * In another behaviour (`tasks.EMBEDDED` lists nine), which of the two directions finds more?
# * [Circuits](circuits.ipynb) go from places to the connections between them; [the page on
#   patching](../docs/patching.md) has subspaces, roles and prompts of different lengths.
