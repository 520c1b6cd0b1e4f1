# %% [markdown]
# # Getting started
#
# A small language model, one question, and the five methods that answer it. It takes ten minutes to read and well
# under a minute to run, without a GPU and without a download.
#
# The question: *how does a model find the person who is given something?* You will read its activations, change
# them, and end with one attention head that writes what another one reads.

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

sites = [Site(kind, 1) for kind in ("resid_pre", "pattern", "z", "attn_out", "resid_mid", "mlp_post")]
trace = model.run(prompt, read=sites)
for site in sites:
    print(f"{site!s:12} {dict(zip(site.axes, trace[site].shape))}")

# %% [markdown]
# Sites are defined by identities. Attention adds `attn_out` to the residual stream, so `resid_pre + attn_out` must
# be `resid_mid`. `interp.check` tries all identities on the model at hand. Run it first on any model of your own.

# %%
before, added, after = (trace[Site(kind, 1)] for kind in ("resid_pre", "attn_out", "resid_mid"))
print(torch.equal(before + added, after))
report = interp.check(model)
print(f"{sum(row.holds for row in report.rows)} of {len(report.rows)} identities hold")

# %% [markdown]
# Now look at one head. Head 1 of block 1, in short 1.1, attends from each word (a row) to the words before it. Look
# at the row of `map`, the thing given, in short the *object*: it looks at the giver, named for the second time. The
# last row looks at a name as well. Which of the two matters?

# %%
words = arrays.position_labels(model, prompt)
attention = arrays.labelled(trace[Site("pattern", 1)][0, 1], "attention", {"query": words, "key": words}, model)
plots.heatmap(attention.isel(query=slice(None, None, -1)), "Where head 1.1 looks")

# %% [markdown]
# ## An edit
#
# Looking is not proof. An *edit* changes the tensor at a site while the model runs. Position, head and neuron are
# indices, given by the name of the axis. Here each head of block 1 is set to zero, one at a time.

# %%
for head in range(model.shape.n_heads):
    scores = task.logit_diff(model.run(task.clean, edits=[edits.zero(Site("z", 1), head=head)]))
    print(f"without head 1.{head}: {scores.mean():+.1f}")

# %% [markdown]
# Without head 1.1 most of the preference is gone. But zero is not a value that this head ever takes, so part of the
# damage may come from that. The next method replaces activations by real ones.
#
# ## Activation patching: where is the answer carried?
#
# Take the corrupt run. Put the clean activation in at one place. How much of the logit difference comes back? 0 is
# nothing, 1 is all of it. First the residual stream, by layer and position. (A label is the word that all
# prompts have there, or a role, or "…"; the values are means over all pairs.)

# %%
by_position = patching.patch(model, task.clean, task.corrupt, model.sites("resid_pre"), task.logit_diff, over=["pos"])
plots.heatmap(by_position.mean("prompt"), "Entering each block, where is the answer?")

# %% [markdown]
# Entering blocks 0 and 1, it sits at S2, the only word that differs. Entering block 2, most of it is at the
# object and next to nothing at the last word: of the two rows above, that of `map` matters. Entering block 3, most is
# at the last word. So it moves twice, and only attention moves things between positions. Which heads?

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
# that is surely not zero and surely small. Two stand out: 1.1 and 2.2, one for each move. The two shares add up to
# more than one: a hint that one of the heads acts through the other.
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
# At the last word the two methods agree: patching finds most of the answer there after block 2, and the lens can
# decode it from then on. At `map` they differ: patching finds a part of the answer there too, but the likeliest word
# is `to`. Both are true: the lens shows what a position is about to say, not what later heads fetch from it.
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
# is how the two share the effect: both count, and with these prompts neither clearly more than the other.
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
# block 1 it is mostly right, and entering block 2 it makes no error: attention has brought the adjective, and the
# `not`, to the last word.
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
# ## The result: one head writes what another one reads
#
# Back to the question. Head 1.1 looks from the object at the giver, and head 2.2, one block later, restores more than
# half of the answer. How does the one act on the other? In GPT-2 small, heads that find the giver decide *where* later
# heads look (Wang et al. 2022, arXiv:2211.00593). If that is so here, then a false message from 1.1 must turn the
# attention of 2.2. If 1.1 writes *what* 2.2 reads, then 2.2 must look where it looked, and the answer change anyway.
#
# So run the clean prompts. At the object, replace the output of one head of block 1 by what it was in the corrupt
# run. Each row below is one such edit, with the logit difference that results.

# %%
roles = ["IO", "S1", "S2", "object"]
pattern, z = Site("pattern", 2), Site("z", 1)
other = model.run(task.corrupt, read=[z])
cases = {"none": []} | {f"1.{head}": [edits.copy(other, z, head=head, pos="object")] for head in range(4)}
looks, rows = [], []
for name, case in cases.items():
    trace = model.run(task.clean, read=[pattern], edits=case)
    attention = trace[pattern][:, 2, -1]  # of head 2.2 from the last word: (batch, key)
    looks.append([attention[torch.arange(len(task)), task.clean.role(role)].mean() for role in roles])
    rows.append(f"{name} ({task.logit_diff(trace).mean():+.1f})")

looks = arrays.labelled(torch.tensor(looks), "attention", {"head replaced": rows, "looks at": roles}, model)
result = plots.heatmap(looks, "Where head 2.2 looks from the last word", text=looks.round(2).astype(str))
result.show()

# %% [markdown]
# Whatever is replaced, head 2.2 looks at the object. Replace 1.0, 1.2 or 1.3, and the answer stays too. Replace 1.1,
# one head at one position, and the logit difference changes its sign: the model prefers the wrong person. Does 2.2
# pass the message on? Leave 1.1 false, and give a head of block 2 what it wrote at the last word in the clean run.

# %%
clean_run = model.run(task.clean, read=[Site("z", 2)])
for head in range(4):
    back = edits.copy(clean_run, Site("z", 2), head=head, pos="END")
    scores = task.logit_diff(model.run(task.clean, edits=[*cases["1.1"], back]))
    print(f"1.1 false, 2.{head} as in the clean run: {scores.mean():+.1f}")

# %% [markdown]
# Only 2.2 helps, and it brings back most of the preference. Head 1.1 writes at the object who gives; head 2.2 looks
# there in any case, and takes what it finds to the last word.
#
# What is not shown: how *who gives* becomes *who receives* (the MLP of the last block is a candidate: see the edges in
# the [model card](../docs/model_card.md)), and whether other models do the same. The circuit of GPT-2 small, which
# turns attention, has more kinds of heads.
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
# * Replace 2.2 itself, at the last word, in the last experiment. How far does the answer turn? Which heads do the rest?
# * Bring your own model: `interp.load("folder")`, then `print(interp.check(model))`, then `tasks.from_file`.
