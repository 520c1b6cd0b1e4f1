# %% [markdown]
# # Attribution
#
# *The movie was not great. I felt …* A model reads this and says `sad`. The question: **which words made it say
# so?** Many methods give each word a number. They disagree, and all of them look convincing in colour. So this
# notebook asks each of them for proof: do its numbers add up, do they depend on a choice that you did not think
# about, and does the answer change when the words it names are taken away?

# %%
import xarray as xr

import interp
from interp import Site, attribution, metrics, plots, stats, tasks
from interp.arrays import checks_of, prompt_words

model = interp.load()
embed = Site("embed")

# %% [markdown]
# ## The prompts
#
# We take judgements with a `not` in them. The word that decides is then not the word that sounds happy or sad: it is
# the pair. The score is the logit of the right feeling minus that of the other.

# %%
every = tasks.sentiment(model, n=200, seed=0, split="train")
rows = [i for i, negated in enumerate(every.labels["negated"]) if negated][:32]
clean, corrupt = every.clean.rows(rows), every.corrupt.rows(rows)
mood = metrics.logit_diff(every.right[rows], every.wrong[rows])
for i in rows[:3]:
    print(f"{every.texts[0][i]} … {model.words(every.right[i].tolist())[0]}")
print(f"score {mood(model.run(clean)).mean():+.1f}, of the corrupt prompts {mood(model.run(corrupt)).mean():+.1f}")

# %% [markdown]
# The adjective means the opposite without the `not`, and the model knows it:

# %%
happy = metrics.logit_diff(model.token_id("happy"), model.token_id("sad"))
for words in ("great", "not great", "dull", "not dull"):
    score = happy(model.run(f"the movie was {words} . i felt")).item()
    print(f"the movie was {words:9} . i felt …  happy over sad by {score:+.1f}")

# %% [markdown]
# **Predict**: which word will get the larger share, `not` or the adjective? Both decide, and neither decides alone.
#
# ## Integrated gradients
#
# Walk in a straight line from a *baseline* to the prompt, and add up the gradient of the score on the way. Each word
# gets a share, and the shares add up to the change in the score. What should the baseline be? Two choices: the corrupt
# prompt, whose adjective is of the other kind, and the mean embedding of all words in the task, which says nothing.

# %%
baselines = {"corrupt": corrupt, "mean": attribution.mean_baseline(model, every.clean)}
shares = attribution.integrated_gradients(model, clean, baselines, embed, mood)
shares.mean("prompt").to_pandas().T.round(1)

# %% [markdown]
# Look at `not` and at the adjective. One baseline gives everything to the adjective, the other more than twice as much
# to `not`. So either prediction holds for one of them. Neither is wrong. They answer two questions:
#
# * *Why this mood and not the other, given that there is a `not`?* The two prompts share the `not`, so that it gets
#   zero by construction.
# * *Why this mood, if there were no words at all?* On that way `not` does most, and the adjective some. Words without
#   a mood get a share too: `<bos>` speaks against.
#
# An attribution without its baseline says nothing. The array carries checks, and the last one says so:

# %%
for check in checks_of(shares):
    print(f"{check.status}  {check.name} {check.value:.2g}, threshold {check.threshold:g}")

# %% [markdown]
# ## Do the numbers add up?
#
# The sum along the line is an integral, taken at some number of points. With too few, the shares do not add up to the
# change in the score. Many tools take a fixed number. How many are enough?

# %%
counts = [2, 4, 8, 16, 32]
errors = []
for steps in counts:
    fixed = attribution.integrated_gradients(model, clean, baselines["mean"], embed, mood, steps=steps, refuse=False)
    errors.append(fixed.error.reset_coords(drop=True))
missing = xr.concat(errors, xr.IndexVariable("points", counts))
curves = {"mean over prompts": missing.mean("prompt"), "worst prompt": missing.max("prompt")}
figure = plots.lines(curves, "points", "What is missing from the sum", "share of the change")
figure.update_yaxes(type="log", exponentformat="power").update_xaxes(type="log", tickvals=counts)

# %% [markdown]
# Here 32 are enough, and 8 are not. By default the points are doubled, prompt by prompt, until the sum holds and the
# shares hardly move any more:

# %%
for name in baselines:
    one = shares.sel(baseline=name)
    print(
        f"{name:8} {int(one.steps.min())} to {int(one.steps.max())} points, error at most {float(one.error.max()):.4f}"
    )

# %% [markdown]
# Still, that an attribution adds up does not make it true. It makes it finished.
#
# ## What attention says, and what it says of nothing
#
# Attention is there to be looked at, so people look at it. *Rollout* multiplies it through the layers: how much of
# what is at the last word can have come from each word? Beside it stands the same for a model whose attention looks
# at everything alike.

# %%
flow = attribution.rollout(model, clean)
last = flow.isel(query=-1, drop=True).rename(key="pos")
last.mean("prompt").to_dataframe().round(2)

# %%
for check in checks_of(flow):
    print(f"{check.status}  {check.name} {check.value:.2f}, threshold {check.threshold:.2f}")

# %% [markdown]
# Rollout says that the mood comes from `<bos>`, then from `the` and the full stop. The null has the first two as well:
# in a model that reads from left to right, every path leads to the first words. `excess`, the difference, is what is
# about *this* model. It is largest at the full stop, and has next to nothing for `not` and the adjective.
#
# ## Proof: take the words away
#
# Replace the word that a method puts first by the baseline, then the first two, then three. A method that knows what
# matters makes the score fall fast. Beside the methods stand random orders, uniform attention, and *leave one out*,
# in which the model itself is asked what it costs to lose each word alone.

# %%
orders = {
    "integrated gradients": shares.sel(baseline="mean", drop=True),
    "gradient x input": attribution.gradient_x_input(model, clean, embed, mood),
    "rollout": last["rollout"],
    "uniform attention": last["uniform"],
}
proof = attribution.curves(model, clean, baselines["mean"], orders, mood, shares=[1 / 9, 2 / 9, 3 / 9])
lost = proof.comprehensiveness.assign_coords(share=[1, 2, 3]).rename(share="words")
lost.mean("prompt").to_pandas().round(1)

# %%
for check in checks_of(proof):
    if "random" in check.name:
        print(f"{check.status}  {check.name}: {check.value:+.1f} logits at the lower end of the 95 % interval")

# %% [markdown]
# Two methods find the word: without `not`, nearly twice the score is lost, so that the model says the opposite. Their
# second word is the adjective, and then the loss falls back to about the score: with neither, no mood is left. Rollout
# begins with a word that costs next to nothing, as uniform attention does, and is *worse than random*. Seeing the
# numbers in colour would not have told you.
#
# **What would change our mind** about the gradients: a random order whose first word costs as much as theirs. About
# rollout: words that it puts first and uniform attention does not, and that cost something.
#
# And the adjective and the full stop, which integrated gradients put far behind `not`? Ask the model:

# %%
proof.alone.mean("prompt").to_series().round(1)

# %% [markdown]
# Without the adjective nearly the whole preference is gone, and without the full stop most of it, though its share was
# not even positive. So a small share is not "hardly matters" either. It is the balance of a straight line on which
# words that need each other share what they do together. For pairs, take pairs away.
#
# The full stop is among the first three words of rollout, uniform attention gives it little, and it costs a lot. By our
# own rule this changes our mind, a little: what rollout has beyond its null is not empty. A full stop has no mood, so
# we guess that the model gathers the mood there. Attention then shows where the words meet, and not which words decide.
#
# ## A whole answer, word by word
#
# So far we asked about one word. Texts go on. Here each word of a continuation is attributed to the words before it,
# its own earlier words too, along one path.

# %%
prompt = "when Mary and John went to the store , John"
follows = attribution.of_continuation(model, prompt, baselines["mean"], "gave a drink to Mary", own=True)
words = prompt_words(model, model.tokens(f"{prompt} gave a drink to"))[0]
plots.token_map(follows.isel(prompt=0), "Log probability of each next word, by source", words)

# %% [markdown]
# Grammar dominates: `gave` comes from the comma and the `John` after it, `a` from `gave`, `drink` from `a`. The last
# row is the one with a choice in it. It points at `Mary`, and hardly at `John`: a log probability compares `Mary`
# with all words, and most of them are no names. Take a contrast: `Mary` rather than `John`.

# %%
rather = attribution.of_continuation(
    model, prompt, baselines["mean"], "gave a drink to Mary", instead="gave a drink to John", own=True
)
name = rather.isel(prompt=0, target=-1, drop=True)
plots.token_text(name, words, "Mary rather than John")

# %% [markdown]
# Now the two names pull apart: `Mary` speaks for the contrast, the first `John` against it. The second `John` speaks
# for it, about as softly as `gave` or `a`. Yet with the other name in its place the answer turns around: it is S2 in
# [the card](../docs/model_card.md), which exchanges it, where this line starts at the mean. Two baselines again. All
# other rows of this attribution are zero, since the words are the same.
#
# ## The result
#
# Four prompts as two methods see them. Blue speaks for the mood that the model names, orange against it.

# %%
some = [0, 1, 2, 3]
texts = [prompt_words(model, clean)[i] for i in some]
plots.token_text(orders["integrated gradients"].isel(prompt=some), texts, "Integrated gradients, from the mean")

# %%
plots.token_text(orders["rollout"].isel(prompt=some), texts, "Rollout")

# %%
bands = {str(name): stats.interval(lost.sel(order=name)) for name in [*orders, "random"]}
figure = plots.lines(bands, "words", "", "logits lost")
figure.update_xaxes(dtick=1, title="words taken away, in the order of each method")
figure.show()

# %% [markdown]
# Both pictures look like an explanation. The curves say which one is about the model: the gradients (their two curves
# lie on each other) turn the answer around with a single word. Rollout does not quite take it away with three, and
# stays below what random orders reach. The first word tells most: by the third, random orders have caught up.
#
# ## Where to go next
#
# * **Your turn**: `last["excess"]`, `attribution.linearised` (its term `token`) and `attribution.relevance` give orders
#   too. Add them to `orders`: do they beat random ones, with one word and with three?
# * Does the model gather the mood at the full stop? The [patching notebook](patching.ipynb) shows how to test it.
# * `attribution.sufficient_subsets` finds the fewest words that keep the answer; `attribution.randomisation` asks
#   whether an attribution would look the same for a model that has learned nothing.
# * The pages on [attribution](../docs/attribution.md) and on [attention and relevance](../docs/attention_relevance.md)
#   have all methods, heads and neurons too.
