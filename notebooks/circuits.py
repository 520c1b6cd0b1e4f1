# %% [markdown]
# # Circuits
#
# Heads are not enough. [Getting started](getting_started.ipynb) found that head 1.1 writes what head 2.2 reads.
# Does the one speak to the other directly, or does something stand between them? And who else speaks? The question
# here: **which connections carry the answer, and is that all of it?**
#
# You will first try the methods on a model whose connections are known, because its weights were set by hand. Then
# you will find the circuit of a trained one, and try to prove it wrong.

# %%
from functools import partial

import pandas as pd
import xarray as xr

import interp
from interp import circuits, plots, tasks
from interp.arrays import checks_of
from interp.zoo import handset, truth

# %% [markdown]
# ## Writers, readers, edges
#
# Everything that a transformer computes goes through the residual stream. *Writers* add to it: `embed`, each head
# (`L0H1`), each MLP (`mlp0`). *Readers* take from it: the queries, keys and values of each head (`L1H0.q`), each
# MLP, the `logits`. An *edge* is a writer and a later reader. A *circuit* is a set of edges.
#
# Here is a model of two layers with two heads each and no MLP. It does induction: after `a b c d a` it says `b`.
# Whoever set its weights knows which edges do it:
#
# * L0H0 looks at the previous word and writes down which one that was;
# * L1H0 looks for a place where that is the current word, and writes the word that stands there;
# * L0H1 and L1H1 look at everything, and write where nothing reads.

# %%
made = handset.induction()
graph = circuits.graph(made.model)
print(graph)
print(made.task.texts[0][0], "…", made.model.words(made.task.right[0].tolist())[0])
print(made.task.texts[1][0], "…", made.model.words(made.task.wrong[0].tolist())[0])

# %% [markdown]
# **Predict**: of the 46 edges, some carry what differs between the two prompts. List them before you go on. (There are
# five. One leads to the logits, one to the previous-token head, three to the induction head.)
#
# ## Exact: one edge at a time
#
# Run the clean prompts. Let one edge carry what it carries in the corrupt run, and leave all others as they are. The
# change in the logit difference is the effect of that edge, with nothing estimated.

# %%
given = made.model, made.task.clean, made.task.corrupt, made.metric
exact = circuits.patch_each_edge(*given, direction="noising")
effect = exact.mean("prompt").to_series().dropna()
found = effect[abs(effect) > 1e-4]
print(found.round(1).to_string(), "\n")
print(f"largest of the other {len(effect) - len(found)}: {abs(effect.drop(found.index)).max():.0e}")
print("exactly those that were set:", set(found.index) == made.edges["corrupt"])

# %% [markdown]
# Five edges, and the others change nothing. L0H1 and L1H1 attend to every word, and would stand out in a picture of
# attention. They are not among the five.
#
# ## Estimates, and where they fail
#
# A model of usual size has a million edges. *Edge attribution patching* (EAP) estimates them all from one backward
# pass: the gradient in one run, times what would change. *EAP-IG* averages the gradient on the way between the runs.

# %%
guess = circuits.eap(*given, direction="noising")
better = circuits.eap_ig(*given, direction="noising")
ways = {"exact": exact, "EAP": guess, "EAP-IG": better}
table = pd.DataFrame({name: way.mean("prompt").to_series() for name, way in ways.items()}).loc[found.index]
table.round(1)

# %% [markdown]
# EAP misses three of five, and says 0.0 of them. These go through the softmax of a head that is entirely sure where to
# look: there, a small push changes nothing, and a gradient asks for small pushes. EAP-IG sees all five. Its numbers
# are off, but its order would do. How would you know, if nobody had told you the truth? `verify` patches the best
# edges, a random sample of the others, and every node, and names the nodes that an estimate has missed.

# %%
for name, way in (("EAP", guess), ("EAP-IG", better)):
    checked = circuits.verify(*given[:3], way, made.metric, top=5, others=20)
    print(name)
    for check in checks_of(checked["estimate"]):
        named = check.why.partition("nodes: ")[2]
        print(f"    {check.status}  {check.name} {check.value:.2f}, threshold {check.threshold:g}  {named}")

# %% [markdown]
# ## A trained model
#
# Now the embedded model, and the indirect object: *when Mark and Jack went to the garden, Mark gave a map to …* The
# corrupt prompts differ in who gives. The circuit is looked for on training prompts and judged on others.

# %%
model = interp.load()
graph = circuits.graph(model)
train, test = tasks.ioi(model, n=16, seed=0, split="train"), tasks.ioi(model, n=32, seed=1, split="test")
learn, held_out = (model, train.clean, train.corrupt, train.logit_diff), (model, test.clean, test.corrupt)
print(graph)
scores = circuits.eap_ig(*learn, along="activations")
for check in checks_of(circuits.verify(*learn[:3], scores, train.logit_diff, top=15, others=15)["estimate"]):
    print(f"{check.status}  {check.name} {check.value:.2f}, threshold {check.threshold:g}")

# %% [markdown]
# Here the order can be trusted, and the numbers nearly so: no edge that was tried is far off, and no node. For this
# model there is an even better judge: every edge has been patched alone, on other prompts, and the result is stored.

# %%
known = truth.stored()["edge"].sel(task="ioi", intervention="denoising").to_series()
for name, way in (("EAP", circuits.eap(*learn)), ("EAP-IG", scores)):
    both = pd.DataFrame({"estimate": way.mean("prompt").to_series(), "exact": known}).dropna()
    print(f"{name:7} correlation with the exact effects of all {len(both)} edges: {both.corr().iloc[0, 1]:.2f}")

# %% [markdown]
# Even plain EAP is not blind this time. (A correlation says nothing of scale: its numbers may still all be too small.)
# What made it blind before, and why not here? You will see the reason at the end.
#
# ## How many edges are enough?
#
# Take the best edges. All others are ablated: they carry what they carry in the corrupt run. How much of the
# behaviour is kept? 0 is as with no edge at all, 1 is the whole model. The null: random circuits of the same size.
# We make it a hard one, of whole paths from the words to the logits, so that every edge could matter.
#
# **Predict**: how many of the 479 edges keep nine tenths?

# %%
sizes, ours, chance = [4, 8, 12, 16, 24, 48], [], []
for size in sizes:
    best = {"best": circuits.select(graph, scores, size, rank="signed")}
    rivals = circuits.random_circuits(graph, size, draws=10, connected=True)
    kept = circuits.faithfulness(circuits.evaluate(*held_out, best | rivals, test.logit_diff))
    ours.append(kept.isel(circuit=0, drop=True))
    means = kept["mean"].isel(circuit=slice(1, None))
    chance.append(xr.Dataset({"mean": means.mean(), "low": means.min(), "high": means.max()}))

edges = xr.IndexVariable("edges", sizes)
curves = {"best edges": xr.concat(ours, edges), "random, least to most": xr.concat(chance, edges)}
plots.lines(curves, "edges", "Faithfulness on held-out prompts", "share of the behaviour kept")

# %%
pd.DataFrame({name: curve["mean"].to_series() for name, curve in curves.items()}).T.round(2)

# %% [markdown]
# One edge in thirty keeps almost nine tenths, and one in twenty keeps all. Ten random circuits of that size keep almost
# nothing. (A little above 1 is no mistake: the circuit lacks some edges that hurt.) The four best edges keep nothing
# either: each matters much, but together they make no path from the words to the logits.
#
# **Do you believe it?** Here is what should make you careful. The circuit of 24 edges, with the other edges ablated in
# other ways: by what they carry in another pair's corrupt prompt, by their mean, by nothing at all.

# %%
circuit = circuits.prune(graph, circuits.select(graph, scores, 24, rank="signed"))
claim = {"the circuit": circuit, "all but the circuit": graph.mask() - circuit}
rows = {}
for ablation in ("corrupt", "resample", "mean", "zero"):
    kept = circuits.faithfulness(circuits.evaluate(*held_out, claim, test.logit_diff, ablation))
    rows[ablation] = kept["mean"].to_series()
pd.DataFrame(rows).round(2)

# %% [markdown]
# All of it, about two thirds, nearly all, or almost nothing. The first column leaves alone what is the same in both
# prompts of a pair, and the third keeps what all prompts share. In the second, other people's names come in, and that
# costs about a third. The last cuts everything, and much of it the model needs whatever is asked. So a circuit is a
# claim about *what distinguishes these prompts*, under the ablation that it was found with, and not about what the
# model needs to run. What stays the same in all four columns: without the circuit, nothing is left.
#
# Two more ways to be wrong. Is every edge needed, or were some taken along? And would other prompts give another
# circuit?

# %%
needed = circuits.minimality(*held_out, circuit, test.logit_diff)
stable = circuits.stability(graph, scores, 24, rank="signed")
for check in (*checks_of(needed), *checks_of(stable)):
    print(f"{check.status}  {check.name} {check.value:.2f}, threshold {check.threshold:g}")

# %% [markdown]
# The edges hardly depend on the prompts. But of every ten, two can go alone and almost nothing is lost: even a list of
# 24 is generous. Say "enough", and do not say "needed".
#
# ## Who speaks to head 2.2?
#
# Back to the first question. *Path patching* exchanges what a sender says to one receiver, and nothing else. Head 2.2
# receives in three ways: its queries and keys decide where it looks, its values what it passes on. In the first three
# columns the MLPs between may pass on what they hear. In the last everything between is frozen: who speaks *directly*?
#
# **Predict**: in Getting started, 2.2 looked at the same word whatever 1.1 wrote. What should the first two columns
# then show for 1.1, and need it be so for the others? And how much does 1.1 say directly?

# %%
ask = partial(circuits.path_patch, *learn[:3], metric=train.logit_diff)
heard = {name: ask([f"L2H2.{name[0]}"], free=["mlp*"]) for name in ("queries", "keys", "values")}
heard["values, directly"] = ask(["L2H2.v"])
table = pd.DataFrame({name: one.mean("prompt").to_series() for name, one in heard.items()})
table.nsmallest(5, "values").round(2)

# %%
for name, sizes in table.abs().items():
    print(f"{name:17} median size over all senders {sizes.median():.2f}, largest {sizes.max():.2f}")

# %% [markdown]
# The prediction holds, and for all senders: next to nothing is said to the queries and the keys. Nobody tells 2.2 where
# to look; 1.1 tells it what to pass on. Most of that it says directly, and the rest through MLP 1, the only MLP between
# them. Most senders say nothing: they are the null of this table.
#
# **What would change our mind?** If the queries heard 1.1 as loudly as the values do: then it would say where to look.
# Or if little were heard with everything frozen: then something would stand between the two.
#
# ## The result: the wiring diagram
#
# Writers below, readers above; blue edges help, as wide as their score. Hover over an edge or a node in a live
# notebook to see its numbers. Follow the widest line from the bottom: the name that is repeated, worked on by MLP 0,
# moved by 1.1, fetched by 2.2, and by the last MLP to the logits. A thinner line goes through 2.3 and 3.0.

# %%
small = circuits.select(graph, scores, 24, rank="signed")
figure = plots.circuit_graph(scores.mean("prompt") * small.numpy(), "24 edges that keep the behaviour")
figure.show()

# %% [markdown]
# Every line that enters a head enters at its `v`: no softmax lies on the way. That fits with EAP not being blind here.
# (Or is the better estimate blind too? `verify` patched all queries and keys exactly, and no node was far off.)
#
# In one sentence: *who gives* is carried by values, from head to head, along a route that does not depend on who gives.
# Where the other name comes from, the circuit does not say: both prompts of a pair hold the same two names, and a
# circuit shows only what differs. It is a claim about 24 of 479 edges, and about pairs of prompts that differ in who
# gives. It was tested on pairs of names that were not used to find it, against random circuits, and it fails under
# zero ablation.
#
# ## Where to go next
#
# * **Your turn**: `circuits.acdc(*learn[:3], threshold=0.01)` searches greedily. Does it find the same edges?
# * `circuits.hypothesis_tests` puts the claim to five statistical tests. One of the two that fail says that what is
#   left without the circuit is *not* independent of the model's answer. Does that matter to you, if so little is left?
# * [The page on circuits](../docs/circuits.md) has scrubbing, learned masks, completeness and exports.
