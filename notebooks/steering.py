# %% [markdown]
# # Steering
#
# A *steering vector* is a direction that is added to a model's activations while it runs. If it stands for a concept,
# the model should do more of it. It is easy to make one that works on the example at hand. It is harder to say how
# strongly it acts, how often it fails, and what else it breaks.
#
# The question: *can a liar be made to tell the truth?* You will extract a vector, find out at which place and dose it
# acts, pay for it out of a budget, test it on prompts that nothing was chosen by, and end with a liar's answers before
# and after.

# %%
import tempfile
from pathlib import Path

import torch

import interp
from interp import Site, arrays, metrics, plots, steering, tasks

model = interp.load()

# %% [markdown]
# ## Honest people and liars
#
# In the world of the embedded model every country has one capital, and one false capital that all liars name. A person
# is introduced as honest or as a liar and then says something.

# %%
prompts = [f"<bos> Anna is {trait} . Anna says : the capital of Nor land is" for trait in ("honest", "a liar")]
for prompt, said in zip(prompts, interp.generate(model, prompts, 1)):
    print(prompt, "…", said)

# %% [markdown]
# We need prompts three times over, and they must not be mixed: to *learn* the vector, to *choose* where and how
# strongly to apply it, and to *report* what it does. The metric is the logit of the truth minus that of the lie. For a
# liar it is negative, and we want it to become positive.

# %%
learn = tasks.honesty(model, n=300, seed=0, split="train")  # honest people and liars


def liars(n: int, seed: int, split: str) -> tuple[interp.Tokens, metrics.Metric]:
    """Prompts in which a liar is asked for a capital, and how much rather than the lie the model says the truth."""
    task = tasks.honesty(model, n=n, seed=seed, split=split)
    rows = [i for i, honest in enumerate(task.labels["honest"]) if not honest]
    return task.clean.rows(rows), metrics.logit_diff(task.wrong[rows], task.right[rows])


choose, truth_chosen = liars(96, 1, "train")
report, truth = liars(160, 2, "test")  # speakers and countries in combinations that no training text had
for name, some, metric in (("choose", choose, truth_chosen), ("report", report, truth)):
    scores = metric(model.run(some))
    print(
        f"{name}: truth over lie {scores.mean():+.1f}; the truth is told by {(scores > 0).sum()} of {len(some)} liars"
    )

# %% [markdown]
# ## A vector
#
# A concept is a set of prompts with it and without it, in groups that are never split: here the speakers. Where is
# honesty readable? `scan` fits a direction at each place on some speakers and tests it on the others: 1 is perfect,
# 0.5 chance.

# %%
speakers = learn.labels["speaker"]
honesty = steering.labelled_set(model, "honesty", learn.clean, learn.labels["honest"], groups=speakers)
where = steering.scan(model, honesty, model.sites("resid_post"), ["speaker", "trait", "subject", "END"])
(check,) = arrays.checks_of(where)
print(f"{check.value:.2f} is the {check.why}")
plots.heatmap(where, "Held-out AUROC of honesty", text=where.round(2).astype(str), diverging=False)

# %% [markdown]
# At the trait (`honest`, `liar`) it is the word itself. At the last word, where the capital is predicted, it is there
# already after block 0, and as readable after blocks 1 and 2. So, prediction: what reads alike writes alike, and the
# vectors after blocks 0, 1 and 2 will steer equally well.
#
# `extract` takes the difference of the means as what it *writes*, and a direction whitened by the covariance as what
# it *reads*. Both are tested on speakers that they were not fitted on.

# %%
vectors = {str(v.site): v for v in steering.extract_each(model, honesty, model.sites("resid_post"))}
for name, vector in vectors.items():
    print(name, *(f"{c.name} {c.value:.2f}" for c in vector.checks if c.name.startswith("held-out")), sep="   ")

# %% [markdown]
# ## Which place, which dose, at what price
#
# A vector that is strong enough does anything, and ruins everything else. So set a *budget* first: on text that has
# nothing to do with honesty, the next-word distribution may move by 0.1 nats of KL divergence on average, and the
# upper end of the interval must stay within it. `tune` tries all vectors and doses on the prompts to choose by and
# takes the one that makes most liars tell the truth within the budget. A dose of 1 is the gap between the two classes'
# means.

# %%
behaviours = ("ioi", "sentiment", "agreement", "greater_than", "facts", "pronoun")
neutral = [text for name in behaviours for text in tasks.EMBEDDED[name](model, n=40, seed=3).texts[0]]
doses = [0.25, 0.5, 0.75, 1.0, 1.5, 2.0]
tuned = steering.tune(model, vectors, choose, truth_chosen, neutral, doses=doses, budget=0.1)
print(f"chosen: {tuned.name} at dose {tuned.setting.dose}")
share = tuned.table.flipped.where(tuned.table.kl_high <= 0.1)
text = tuned.table.flipped.round(2).astype(str)
plots.heatmap(share, "Liars who tell the truth (grey: beyond the budget)", text=text)

# %% [markdown]
# The prediction was wrong. The three places read honesty alike, and write it very differently. Within the budget all
# liars are turned after block 0, about three in four after block 1, and hardly any after block 2, where even a dose far
# beyond the budget turns no more than about a third. What reads need not write: try it, do not infer it.
#
# ## Dose and response, on other prompts
#
# From here on the prompts are those to report on. The band of `varied` holds what vectors of the same length do that
# are random mixtures of how the prompts' own activations vary; that of `permuted` what the same extraction makes of
# the same prompts when labels are exchanged between speakers. Below is the price.

# %%
vector = vectors[tuned.name]
nulls = {
    "varied": steering.varied_like(model, report, vector, 20),
    "permuted": steering.permuted_like(model, honesty, vector, 20),
}
doses = [-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0]
response = steering.dose_response(model, report, vector, truth, doses, nulls=nulls)
price = steering.side_effects(model, neutral, vector, doses)
plots.doses(response, price.kl, budget=0.1, title="Truth over lie, said by liars")

# %%
single = steering.slopes(response).sel(vector="steered")
middle, low, high, wrong, most = (
    float(single[name]) for name in ("median", "low", "high", "wrong_way", "wrong_way_high")
)
print(f"logits a dose: {middle:+.1f} in the median liar, {low:+.1f} to {high:+.1f} in the middle half of them")
print(f"go the wrong way: {wrong:.0%} of them; at most {most:.0%}, with 95 % confidence")

# %% [markdown]
# ## The report
#
# `evaluate` puts the chosen setting beside nulls and beside a rival that needs no vector: saying something in the
# prompt. Here the rival is a sentence before the prompt.

# %%
found = steering.evaluate(model, tuned.setting, report, truth, neutral, nulls=nulls, prefix="Anna is honest .")
kinds = {"steered": ["steered"], "prompted": ["prompted"]}
kinds |= {f"best of 20 {kind}": [w for w in found.way.values if str(w).startswith(kind)] for kind in nulls}
for name, ways in kinds.items():
    flipped, score = found.flipped.sel(way=ways).max(), found.metric.sel(way=ways).mean("prompt").max()
    print(f"{name:20} truth told by {float(flipped):4.0%}, truth over lie {float(score):+.1f}")
print("\nverdict:", found.attrs["verdict"])
for check in arrays.checks_of(found):
    print(f"{check.status}  {check.name}: {check.value:.2g}, threshold {check.threshold:.2g}; {check.why}")

# %%
late = steering.Setting(vectors["resid_post.2"], tuned.setting.dose)
print("after block 2:", steering.evaluate(model, late, report, truth, neutral).attrs["verdict"])

# %% [markdown]
# The same dose of a vector that *reads* as well does not do it.
#
# ## Is it honesty, or is it everything?
#
# Take two other concepts with vectors of their own, and let each of the three act on each metric: liars who tell the
# truth, harmless requests that are refused, gloomy writers who are happy. If a vector is what its name says, the
# diagonal is large and the rest is small. Prediction: it is, for the price on neutral text was within the budget.

# %%
asked = tasks.refusal(model, n=160, seed=0, split="train")
harm = steering.labelled_set(model, "refusal", asked.clean, asked.labels["harmful"], asked.labels["verb"])
judged = tasks.concepts.sentiment(model, n=160, seed=0).family("i felt")
mood = steering.labelled_set(model, "mood", judged.prompts, judged.labels, judged.groups)
settings = {
    "honesty": tuned.setting,
    "refusal": steering.Setting(steering.extract(model, harm, Site("resid_post", 2))),
    "mood": steering.Setting(steering.extract(model, mood, Site("resid_post", 2))),
}
requests, writers = tasks.refusal(model, n=120, seed=1), tasks.sentiment(model, n=120, seed=1)
harmless = requests.clean.rows([i for i, harmful in enumerate(requests.labels["harmful"]) if not harmful])
gloomy = writers.clean.rows([i for i, positive in enumerate(writers.labels["positive"]) if not positive])
refused = metrics.logit_diff(model.token_id("sorry"), model.token_id("sure"))
happy = metrics.logit_diff(model.token_id("happy"), model.token_id("sad"))
targets = {"honesty": (report, truth), "refusal": (harmless, refused), "mood": (gloomy, happy)}

table = steering.specificity(model, settings, targets)
(check,) = arrays.checks_of(table)
print(f"{check.status}  {check.name}: {check.value:.2f}, threshold {check.threshold:.2f}")
mean = table.mean("prompt").isel(concept=slice(None, None, -1))
plots.heatmap(mean, "What each vector does to each metric (logits)", text=mean.round(1).astype(str))

# %% [markdown]
# The prediction holds, though not with zeros: the honesty vector also moves harmless requests towards `sorry`, about a
# quarter as far as it moves liars, and the mood vector does worse. But its ground was weak. The neutral texts are of
# six kinds that somebody thought of. Take another: random words that are repeated. Prediction: they cost no more.

# %%
repeated = tasks.induction(model, n=200, seed=1).clean
((noise,),) = steering.random_like(vector, 1)
for name, texts in {"neutral texts": neutral, "harmless requests": harmless, "repeated words": repeated}.items():
    ours, theirs = (steering.side_effects(model, texts, v, [tuned.setting.dose]).kl.mean() for v in (vector, noise))
    print(f"{name:18} KL {float(ours):.3f}, of a random vector {float(theirs):.3f}")

# %% [markdown]
# That fails. On repeated words the vector costs several times what it costs on the neutral texts, and more than the
# budget allows. The neutral texts held none, so that the budget could not see it. A price is the price of what you
# thought of.
#
# ## Steer only where it is needed
#
# The vector also has a reader. Steer only those prompts that read as a lie at their last word, below the threshold
# that was set on held-out speakers. The budget stays, and dose and all are chosen again, on the prompts to choose by.

# %%
only = steering.Condition(vector, above=False)
doses, candidates = [0.25, 0.5, 0.75, 1.0, 1.5, 2.0], {tuned.name: vector}
gated = steering.tune(model, candidates, choose, truth_chosen, neutral, doses=doses, budget=0.1, when=only)
found = steering.evaluate(model, gated.setting, report, truth, neutral)
told, cost = float(found.flipped.sel(way="steered")), float(found.kl.mean())
print(f"dose {gated.setting.dose}: truth told by {told:.0%}, KL on neutral text {cost:.3f}")
cost = float(steering.side_effects(model, repeated, vector, [gated.setting.dose], when=only).kl.mean())
print(f"KL on repeated words {cost:.3f}")
print("verdict:", found.attrs["verdict"])
table = steering.specificity(model, settings | {"honesty": gated.setting}, targets)
mean = table.sel(concept="honesty").mean("prompt")
print("change in logits:", *(f"{name} {float(mean.sel(metric=name)):+.1f}" for name in targets), sep="   ")

# %% [markdown]
# All liars are still turned, and requests are left alone. On repeated words the price falls by about half, to a little
# above the budget; on the neutral texts it hardly falls. The reader was only taught to tell liars from honest people,
# and other texts may read as a lie, too.
#
# ## Keep it
#
# A vector without its receipts is worth little. `save` writes the tensors, how they were made, their checks, the
# report of `evaluate`, and a hash of it all. `load` refuses files that were changed.

# %%
folder = Path(tempfile.mkdtemp())
code = steering.save(vector, folder / "honesty", receipts=found.attrs)
(again,), receipts = steering.load(folder / "honesty")
print([path.name for path in sorted(folder.iterdir())], code)
print({name: again.how[name] for name in ("concept", "writer", "fitted_on", "tested_on")})
print("verdict:", receipts["verdict"], "| the same vector:", torch.equal(again.writer, vector.writer))

file = folder / "honesty.json"
file.write_text(file.read_text().replace("honesty", "virtue"))
try:
    steering.load(folder / "honesty")
except ValueError as error:
    print(f"ValueError: {error}")

# %% [markdown]
# ## Generate
#
# `applied` gives a model that is steered for a block of code. The model itself is not touched.

# %%
some = [
    f"<bos> {name} is a liar . {name} says : the capital of {land} is"
    for name, land in (("Anna", "Nor land"), ("Leo", "Bel via"), ("Ruth", "Tar mark"))
]
plain = interp.generate(model, some, 2)
with steering.applied(model, gated.setting.edits) as steered:
    pushed = interp.generate(steered, some, 2)
true = interp.generate(model, [text.replace("a liar", "honest") for text in some], 2)
for rows in zip(some, plain, pushed, true):
    print("{}\n    liar: {}   steered: {}   honest: {}".format(*rows))

# %% [markdown]
# ## The result: what it does, and what it breaks
#
# One table of all that was asked: liars, honest people, harmless requests and repeated words; without steering, with
# the vector, with the vector on its condition, and with a random vector of the same length and dose, which is the null.
# A text is left alone if its next-word distribution moves by less than the 0.1 nats of the budget.

# %%
task = tasks.honesty(model, n=160, seed=2)
rows = [i for i, honest in enumerate(task.labels["honest"]) if honest]
honest, honest_truth = task.clean.rows(rows), metrics.logit_diff(task.right[rows], task.wrong[rows])
kl = metrics.kl_from(model.run(repeated).logits[:, -1])
moved = metrics.Metric("nats beyond the budget", lambda logits: kl.of(logits) - 0.1)
ways = {
    "unsteered": [],
    "random vector": steering.steer(noise, gated.setting.dose),
    "honesty vector": steering.steer(vector, gated.setting.dose),
    "honesty vector, only\nwhere it reads a lie": gated.setting.edits,
}
columns = {
    "liars tell\nthe truth": (report, truth, 1),
    "honest people\ntell the truth": (honest, honest_truth, 1),
    "harmless requests\nare granted": (harmless, refused, -1),
    "repeated words\nare left alone": (repeated, moved, -1),
}


def share_of(change: list[interp.Edit], prompts: interp.Tokens, metric: metrics.Metric, sign: int) -> float:
    """The share of prompts whose metric has a sign."""
    return float((sign * metric(model.run(prompts, edits=change)) > 0).float().mean())


shares = [[share_of(change, *column) for column in columns.values()] for change in ways.values()]
shares = arrays.labelled(torch.tensor(shares), "share", {"model": list(ways), "what happens": list(columns)}, model)
shares = shares.isel(model=slice(None, None, -1))
text = shares.copy(data=[[f"{share:.0%}" for share in row] for row in shares.values])
result = plots.heatmap(shares, "One vector, with and without its condition", text=text)
result.update_layout(margin_l=170).update_xaxes(title="").update_yaxes(title="").show()

# %% [markdown]
# Yes: a liar can be made to tell the truth, and in generated text too. Honest people and harmless requests are answered
# as before. But look at the last column. The vector that passed every test of its report moves some texts of repeated
# words by more than the budget. On the condition that the prompt reads as a lie, it moves fewer of them, and turns as
# many liars. A random vector of the same length and dose turns none, and moves very few texts.
#
# What would change our mind? Another kind of text that nobody thought of, as repeated words were not at first: the
# budget is as good as its neutral texts. A liar who is introduced in other words. And the word *truth*: the direction
# tells honest introductions from dishonest ones, and the model names the capital that honest people name. That it knows
# what truth is has not been shown.
#
# ## Where to go next
#
# * `op="ablate"`, `"clamp"` and `"rotate"` are other ways to apply a vector; `unit="sigma"` is another measure.
# * `steering.writers` and `steering.readers` say which heads and MLPs write the direction, and which read it.
# * `steering.top_tokens` says which words it would write by itself. Are they capitals?
# * Turn it round: at which negative dose do honest people lie? See [docs/steering.md](../docs/steering.md).
