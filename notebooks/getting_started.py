# %% [markdown]
# # Getting started
#
# A small language model, one question, and the five methods that answer it. It takes ten minutes to read and well
# under a minute to run, without a GPU and without a download.
#
# The question: *how does a model find the person who is given something?* You will read its activations, change
# them, and end with one attention head that decides where another one looks.

# %%
import tempfile
from itertools import islice

import torch
import xarray as xr

import interp
from experiments import indirect_object
from experiments.lab import keep
from experiments.store import Store
from interp import Site, arrays, attribution, edits, lens, metrics, patching, plots, probing, stats, steering, tasks

model = interp.load()  # the embedded model; interp.load("gpt2") works as well, where the hub can be reached
print(model)

# %% [markdown]
# ## The prompts
#
# The embedded model was trained on a generated language with a few hundred words. One kind of sentence in it tells
# who gives something to whom. Two people go somewhere. One of them gives; the other one receives, and is the
# *indirect object* (IO). The giver is the *subject*, named twice: S1 and S2.
#
# Each prompt comes in a pair. The *corrupt* prompt differs from the *clean* one in a single word: the other person
# gives. So the right answer is the other name, and all else is equal.

# %%
task = tasks.ioi(model, n=48, seed=0)
pairs = zip(*task.texts, model.words(task.right[:, 0]), model.words(task.wrong[:, 0]))
for clean, corrupt, right, wrong in islice(pairs, 3):
    print(f"clean    {clean} … {right}\ncorrupt  {corrupt} … {wrong}\n")

# %% [markdown]
# The score of a run is the *logit difference*: the logit of the clean answer minus that of the corrupt one. It is
# positive where the model prefers the clean answer. A metric gives one number for each prompt and never averages,
# so that error bars stay possible.

# %%
for name, prompts in (("clean", task.clean), ("corrupt", task.corrupt)):
    scores = task.logit_diff(model.run(prompts))
    print(f"{name:8} {scores.mean():+.1f} ± {scores.std():.1f} over {len(scores)} prompts")

# %% [markdown]
# ## Tokens, sites and traces
#
# Prompts become tokens; here one word is one token. A *site* is a named place in the model: a kind and a layer. A
# *trace* is what one run left at the sites that you asked for.

# %%
prompt = task.clean.rows([0])
print(model.words(prompt.ids[0]))
print({role: int(position) for role, position in prompt.roles.items()})

sites = [Site(kind, 0) for kind in ("resid_pre", "pattern", "z", "attn_out", "resid_mid", "mlp_post")]
trace = model.run(prompt, read=sites)
for site in sites:
    print(f"{site!s:12} {dict(zip(site.axes, trace[site].shape))}")

# %% [markdown]
# Sites are defined by identities. Attention adds `attn_out` to the residual stream, so `resid_pre + attn_out` must
# be `resid_mid`. `interp.check` tries all identities on the model at hand. Run it first on any model of your own.

# %%
before, added, after = (trace[Site(kind, 0)] for kind in ("resid_pre", "attn_out", "resid_mid"))
print(torch.equal(before + added, after))
report = interp.check(model)
print(f"{sum(row.holds for row in report.rows)} of {len(report.rows)} identities hold")

# %% [markdown]
# Now look at one head. Head 3 of block 0, in short 0.3, attends from each word (a row) to the words before it. Look
# at the last row: from the last word, `to`, it looks at the giver, named for the second time.

# %%
words = arrays.position_labels(model, prompt)
attention = arrays.labelled(trace[Site("pattern", 0)][0, 3], "attention", {"query": words, "key": words}, model)
plots.heatmap(attention.isel(query=slice(None, None, -1)), "Where head 0.3 looks")

# %% [markdown]
# ## An edit
#
# Looking is not proof. An *edit* changes the tensor at a site while the model runs. Position, head and neuron are
# indices, given by the name of the axis. Here each head of block 0 is set to zero, one at a time.

# %%
for head in range(model.shape.n_heads):
    scores = task.logit_diff(model.run(task.clean, edits=[edits.zero(Site("z", 0), head=head)]))
    print(f"without head 0.{head}: {scores.mean():+.1f}")

# %% [markdown]
# Without head 0.3 most of the preference is gone. But zero is not a value that this head ever takes, so part of the
# damage may come from that. The next method replaces activations by real ones.
#
# ## Activation patching: where is the answer carried?
#
# Take the corrupt run. Put the clean activation in at one place. How much of the logit difference comes back? 0 is
# nothing, 1 is all of it. First the residual stream, by layer and position. (The labels are the words of the first
# pair; the values are means over all of them.)

# %%
by_position = patching.patch(model, task.clean, task.corrupt, model.sites("resid_pre"), task.logit_diff, over=["pos"])
plots.heatmap(by_position.mean("prompt"), "Entering each block, where is the answer?")

# %% [markdown]
# Entering block 0, all of it sits at S2, the only word that differs. Entering block 1, nearly all of it is already
# at the last word. Block 0 moved it, and only attention moves things between positions. Which head?

# %%
by_head = patching.patch(model, task.clean, task.corrupt, model.sites("z"), task.logit_diff, over=["head"])
p = stats.sign_flip(by_head)
stars = xr.where(p <= 0.05, "*", "")
plots.heatmap(by_head.mean("prompt"), "Share restored by each head (* p ≤ 0.05)", text=stars)

# %%
table = stats.interval(by_head).assign(p=p).to_dataframe()
table.nlargest(6, "mean").round(3)

# %% [markdown]
# Read the two numbers together. The p-value says whether an effect is zero (signs flipped at random, corrected for
# all sixteen heads); the interval, a bootstrap over prompts, says how large it is. Several heads have an effect
# that is surely not zero and surely small. Three matter: 0.3, 1.1 and 3.2.
#
# ## Logit lens: when does the model know?
#
# The logit lens stops the model after each block and decodes what is there with the final norm and the unembedding.
# A layer whose words are no nearer to the final ones than mere word frequency would be has no skill, and is grey.

# %%
by_layer = lens.logit_lens(model, task.clean, task.logit_diff)
plots.lines({"clean prompts": stats.interval(by_layer)}, "layer", "Decoded after each block", "logit difference")

# %%
decoded = lens.decode(model, prompt, top=3).isel(prompt=0)
grey = decoded.skill <= 0
plots.words(decoded.probability.isel(top=0), decoded.token, "Likeliest next word", labels=decoded.input, grey=grey)

# %% [markdown]
# Patching says that the decision is at the last position from block 1 on. The lens says that the answer can be
# decoded there from block 2 on. Both are true: what block 0 writes is *who gives*, and the later blocks turn it
# into *who receives*.
#
# ## Integrated gradients: which words recall a fact?
#
# Another behaviour of the same model: it knows capitals. Countries have names of two words, and each word occurs in
# several names. The corrupt prompt asks for another country. Integrated gradients share out the change in the logit
# difference among the positions, along the straight path from the corrupt input to the clean one.

# %%
facts = tasks.facts(model, n=24)
print(f"{facts.texts[0][0]} … {model.words(facts.right[0])[0]}")
attributions = attribution.integrated_gradients(
    model, facts.clean, facts.corrupt, Site("resid_pre", 0), facts.logit_diff
)
plots.bars(stats.interval(attributions), "pos", "What each word adds", "logit difference")

# %% [markdown]
# Only the two words of the name can differ within a pair, so that all others get zero by construction. What is found
# is how the two share the effect: both count, and with these prompts neither more than the other.
#
# ## A probe: can the mood be read off?
#
# A third behaviour: after `the movie was not great . i felt`, the model says how the writer felt. A linear probe reads
# the mood from the residual stream at the last word. Adjectives are split: it is tested on some that it never saw.
# The grey band is what the best layer reaches when labels are shuffled: nineteen times in twenty, no more.

# %%
mood = tasks.sentiment(model, n=192, split="train")  # more adjectives to split than in "test"
adjectives = model.words(mood.clean.ids[torch.arange(len(mood)), mood.clean.role("adjective")])
moods = tasks.from_labels(model, mood.clean, mood.labels["positive"], adjectives, name="mood")
probes = probing.probe(model, moods, model.sites("resid_pre"))
print(probes.attrs["verdict"])
plots.probes(probes, "accuracy", "Is the mood readable entering each block?")

# %% [markdown]
# Entering block 0, the stream at the last word holds `felt` and its position, and the probe is at chance. Entering
# block 1 it makes no error: attention has brought the adjective, and the `not`, to the last word.
#
# ## Steering: does the model use it?
#
# What can be read off need not be used. So take the difference of means between happy and sad prompts, add it to
# the stream of other, sad prompts, and see what the model says. Random vectors of the same length are the
# yardstick.

# %%
learn, test = tasks.sentiment(model, n=192, split="train"), tasks.sentiment(model, n=192, split="test")
words = model.words(learn.clean.ids[torch.arange(192), learn.clean.roles["adjective"]].tolist())
mood = steering.labelled_set(model, "mood", learn.clean, learn.labels["positive"], groups=words)
vector = steering.extract(model, mood, Site("resid_post", 2))

prompts = [text for text, positive in zip(test.texts[0], test.labels["positive"]) if not positive]
metric = metrics.logit_diff(model.token_id("happy"), model.token_id("sad"))
doses = steering.dose_response(model, prompts, vector, metric)
plots.doses(doses, title="Steering sad prompts")

# %%
with steering.applied(model, vector) as steered:
    for name, some in (("as it is", model), ("steered", steered)):
        print(f"{name:9} {prompts[0]} … {interp.generate(some, prompts[0], 1)[0]}")

# %% [markdown]
# ## What the checks say
#
# Results carry the checks that say whether to believe them. Look at them before you look at a figure. A `warn` or a
# `fail` is no exception, but a reason.

# %%
results = {"lens": by_layer, "attribution": attributions, "probe": probes["accuracy"], "steering": doses}
for name, result in results.items():
    for check in arrays.checks_of(result):
        print(f"{check.status}  {name}: {check.name} {check.value:.2g}, threshold {check.threshold:.2g}")
        print(f"      {check.why}")

# %% [markdown]
# ## The result: one head turns another
#
# Back to the question. Head 3.2 sits in the last block and restores a third of the answer. Does it look at the person
# who receives because head 0.3 says who gives? Then a false message from head 0.3 must change where head 3.2 looks.
#
# So run the clean prompts. At the last position, replace the output of one head of block 0 by what it was in the
# corrupt run. Each row below is one such edit, with the logit difference that results.

# %%
roles = ["IO", "S1", "S2"]
pattern, z = Site("pattern", 3), Site("z", 0)
other = model.run(task.corrupt, read=[z])
cases = {"none": []} | {f"0.{head}": [edits.copy(other, z, head=head, pos="END")] for head in range(4)}
looks, rows = [], []
for name, case in cases.items():
    trace = model.run(task.clean, read=[pattern], edits=case)
    attention = trace[pattern][:, 2, -1]  # of head 3.2 from the last word: (batch, key)
    looks.append([attention[torch.arange(len(task)), task.clean.role(role)].mean() for role in roles])
    rows.append(f"{name} ({task.logit_diff(trace).mean():+.1f})")

looks = arrays.labelled(torch.tensor(looks), "attention", {"head replaced": rows, "looks at": roles}, model)
result = plots.heatmap(looks, "Where head 3.2 looks from the last word", text=looks.round(2).astype(str))
result.show()

# %% [markdown]
# Replace 0.0, 0.1 or 0.2, and head 3.2 looks at the receiver as before. Replace 0.3, one head at one position, and it
# looks at the giver: the logit difference changes its sign, and the model names the wrong person. Head 0.3 says who
# gives; head 3.2 looks at the other one.
#
# What is not shown: by which path 0.3 reaches 3.2 (head 1.1 is a candidate), and whether other models do the same. In
# GPT-2 small the published circuit has more kinds of heads (Wang et al. 2022, arXiv:2211.00593).
#
# ## Keep a result
#
# Arrays are xarray: `to_netcdf` writes one. A file in `experiments/` asks one question, and `keep` runs it and keeps
# what it finds: arrays, figures, checks, hashes of weights and prompts, versions and the commit. The same call again
# computes nothing. Here the store is a temporary folder; leave it out for `runs`.

# %%
store = Store(tempfile.mkdtemp())
run = keep(indirect_object.Config(n=16), store)
print(run.question, run.answer)
print(keep(indirect_object.Config(n=16), store).key == run.key, list(run.arrays))
store.frame()[["key", "n", "restored", "lost", "checks"]]

# %% [markdown]
# ## Where to go next
#
# * `python -m experiments.main_job` runs all five methods and writes a page; `python -m experiments --help` lists more.
# * Try another behaviour: `tasks.EMBEDDED` lists nine. Which head carries `tasks.greater_than`?
# * Swap clean and corrupt in `patching.patch`: what breaks when a place is *damaged*, not restored?
# * Replace 1.1 in the last experiment. How far does the attention of head 3.2 move?
# * Bring your own model: `interp.load("folder")`, then `print(interp.check(model))`, then `tasks.from_file`.
