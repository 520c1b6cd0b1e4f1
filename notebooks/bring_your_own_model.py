# %% [markdown]
# # Bring your own model
#
# The other notebooks look into the embedded model. Here you make a model, save it, and look into that one: with your
# own tokenizer, your own prompts, and the library that you like best.
#
# The question: *do the numbers depend on the library that runs the model?* You will also meet the mistakes that
# everybody makes with tokens, and read what is said about them. At the end a map shows where the model keeps a fact.
# All of it runs offline, in well under a minute.

# %%
import csv
import random
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import interp
from interp import Site, edits, lens, patching, plots, probing, stats, tasks

# %% [markdown]
# ## A model of your own
#
# Have you a model on the disk already, written by `save_pretrained`? Then put its folder into `interp.load` below and
# skip this part. We train a small one: Llama's architecture, three layers, on sentences about twelve people and twelve
# countries.

# %%
CAPITALS = dict(
    France="Paris", Italy="Rome", Spain="Madrid", Norway="Oslo", Japan="Tokyo", Kenya="Nairobi",
    Peru="Lima", Egypt="Cairo", Cuba="Havana", Iran="Tehran", Ghana="Accra", Greece="Athens",
)  # fmt: skip
NAMES = "Anna Mary Lucy Sara Emma Kate John Paul Mark Peter James David".split()
FORMS = (
    "{name} was born in {country}. The capital there is {capital}.",
    "{name} left {country}, the land of {capital}.",
)
text = [
    form.format(name=name, country=country, capital=capital)
    for form in FORMS
    for name in NAMES
    for country, capital in CAPITALS.items()
]
print(f"{len(text)} sentences, such as", text[0], text[-1], sep="\n  ")

# %% [markdown]
# The tokenizer is of the kind that GPT-2 and Llama 3 have: it joins bytes that often stand together, and a space
# belongs to the word that follows it.

# %%
bpe = Tokenizer(models.BPE())
bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
bpe.decoder = decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
special = ["<pad>", "<s>"]
bpe.train_from_iterator(
    text, trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>")
print(tokenizer.tokenize(text[0]))

# %%
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=1,
)  # fmt: skip
module = LlamaForCausalLM(config)
optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
shuffle = random.Random(0)
for step in range(121):
    batch = tokenizer(shuffle.sample(text, 32), padding=True, return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    loss = module(**batch, labels=labels).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 40 == 0:
        print(f"step {step:3}: loss {loss.item():.2f}")

folder = Path(tempfile.mkdtemp()) / "capitals"
module.eval().save_pretrained(folder)
tokenizer.save_pretrained(folder)
print(sorted(path.name for path in folder.iterdir()))

# %% [markdown]
# ## Load it, three times
#
# `interp.load` takes a folder, a name on the hub, or an object that you have: a Hugging Face model, a
# `TransformerBridge` of TransformerLens, a model of nnsight. `backend=` says which library is to run it. The weights
# are taken as they are: nothing is folded, centred or converted.

# %%
loaded = {backend: interp.load(folder, backend=backend) for backend in interp.BACKENDS}
for model in loaded.values():
    print(Path(model.name).name, "by", model.backend, model.shape)
model = loaded["huggingface"]

# %% [markdown]
# Before anything else: is this model *understood*? `interp.check` tries the identities that define the sites, on the
# model itself. Attention and MLP must add up to the residual stream, patterns times values must give what heads read
# out, padding must change nothing, and so on. A line that fails would say that a site is not what its name says.

# %%
lines = str(interp.check(model)).splitlines()
print(*lines[2:12], f"  … and {len(lines) - 12} more", sep="\n")
for backend, other in loaded.items():
    report = interp.check(other)
    missing = ", ".join(report.missing) or "nothing"
    print(f"{backend}: {sum(row.holds for row in report.rows)} of {len(report.rows)} hold, {missing} is missing")

# %% [markdown]
# ## Your own pairs
#
# A task is a list of pairs. The clean and the corrupt prompt differ in what you ask about and in nothing else; `right`
# is the clean prompt's answer, `wrong` the corrupt one's. Rows come from Python (`tasks.from_rows`) or from a file,
# CSV or JSONL. Mind the space in `" Paris"`: it is part of the token.

# %%
countries = list(CAPITALS)
rows = []
for name in NAMES[:4]:
    for country in countries:
        other = shuffle.choice([some for some in countries if some != country])
        prompts = [f"{name} was born in {place}. The capital there is" for place in (country, other)]
        rows.append(
            dict(clean=prompts[0], corrupt=prompts[1], right=f" {CAPITALS[country]}", wrong=f" {CAPITALS[other]}")
        )

path = folder.parent / "pairs.csv"
with path.open("w", newline="") as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
print(path.read_text()[:230], "…")
task = tasks.from_file(model, path)

# %% [markdown]
# Does the model do it at all? Nothing that follows means anything if it does not. Beside each number stands its null:
# the same architecture with random weights, which must be near zero and right half of the time.

# %%
for name, some in (("trained", model), ("untrained", probing.untrained(model))):
    scores = task.logit_diff(some.run(task.clean))
    print(f"{name:9}  logit difference {scores.mean():+5.2f}, right {(scores > 0).float().mean():.0%} of {len(scores)}")

# %% [markdown]
# ## The same numbers from each library
#
# Prediction: three libraries that run the same weights must agree up to rounding, about 1e-6 in single precision. Not
# only in their logits: an edit inside attention must have the same effect as well. Here all heads are patched, one
# after the other, by each library; then the largest difference from plain Hugging Face.

# %%
site, found = Site("resid_post", 1), {}
for backend, other in loaded.items():
    trace = other.run(task.clean, read=[site])
    heads = patching.patch(other, task.clean, task.corrupt, other.sites("z"), task.logit_diff, over=["head"])
    found[backend] = {"logits": trace.logits, "stream": trace[site], "patched heads": torch.tensor(heads.values)}
for backend, mine in found.items():
    apart = {what: float((mine[what] - wanted).abs().max()) for what, wanted in found["huggingface"].items()}
    print(f"{backend:17}", *(f"{what} {most:.0e}" for what, most in apart.items()), sep="   ")

# %% [markdown]
# The prediction holds. So choose the library by taste and by what else you want of it: all that follows, and all other
# notebooks, run on any of them. And the model that you brought is as it was: an object that is given to `load` is
# never changed.

# %%
before = {name: weight.clone() for name, weight in module.state_dict().items()}
given = interp.load(module, tokenizer=tokenizer)
given.run(task.clean, read=given.sites("pattern"), edits=[edits.zero(Site("z", 0), head=1)])
print("weights as before:", all(torch.equal(before[name], weight) for name, weight in module.state_dict().items()))
print("attention as before:", module.config._attn_implementation)

# %% [markdown]
# ## What goes wrong with tokens
#
# Most wrong results come from prompts that are not what they seem. What follows are mistakes; each is refused, and the
# message says what was given, what was expected, and what to try.


# %%
def refused(what: str, attempt: Callable[[], object]) -> None:
    """Print the error that an attempt ends in."""
    try:
        attempt()
    except (ValueError, TypeError, RuntimeError) as error:
        said = f"{type(error).__name__}: {error}".replace(str(folder), "capitals")
        print(textwrap.fill(f"{what} → {said}", 110, subsequent_indent="    "), "\n")


refused("an answer without its space", lambda: model.token_id("Paris"))
refused("a word that is several tokens", lambda: model.token_id(" Ouagadougou"))
print("the same with its space:", model.token_id(" Paris"), "| pieces:", tokenizer.tokenize(" Ouagadougou"))

# %% [markdown]
# The tokenizer knows ` Paris` as one token, but has never seen `Paris` at the beginning of a text, and has never seen
# Ouagadougou. A logit difference of first pieces would compare what nobody asked about.
#
# Pairs must be aligned token by token, so that position 5 is the same place in both prompts. `Burkina Faso` breaks
# that. So does a row that lacks a column, or a typo in an answer.

# %%
row = rows[0]
refused(
    "prompts that are not aligned",
    lambda: tasks.from_rows(model, [row | {"corrupt": "Anna was born in Burkina Faso. The capital there is"}]),
)
refused(
    "a row without an answer",
    lambda: tasks.from_rows(model, [{key: row[key] for key in ("clean", "corrupt", "right")}]),
)
refused("an answer of several tokens", lambda: tasks.from_rows(model, [row | {"wrong": " Ouagadougou"}]))

# %% [markdown]
# Prompts of different lengths are no mistake. They are padded on the left, with a mask and positions that count words,
# so that each gives the numbers that it gives alone. A batch that was padded on the right, as tokenizers do by
# default, is refused, because its last token is not its last word.

# %%
texts = ["Anna was born in Peru. The capital there is", "Peru. The capital there is"]
together = model.run(texts).logits[:, -1]
alone = torch.cat([model.run(text).logits[:, -1] for text in texts])
print(f"together and alone: {float((together - alone).abs().max()):.0e} apart")
batch = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
refused("padded on the right", lambda: model.run((batch["input_ids"], batch["attention_mask"])))

# %% [markdown]
# A beginning-of-sequence token is a choice as well, and a silent one in most libraries. Here it is added if the
# tokenizer adds it, or if you say so. This model has never seen one; it does its task all the same, but every number
# is another. A model that was trained with one may do much worse without it. So look at the tokens, once.

# %%
with_bos = interp.load(folder, bos=True)
scores = {}
for name, some in (("without", model), ("with", with_bos)):
    tokens = some.tokens(task.texts[0])
    scores[name] = task.logit_diff(some.run(tokens))
    print(f"{name:7} {some.words(tokens.ids[0])[:3]} …   logit difference {scores[name].mean():+.2f}")
print(f"one prompt changes by up to {float((scores['with'] - scores['without']).abs().max()):.1f} logits")

# %% [markdown]
# The last kind of mistake is made at the model, not at its prompts.

# %%
refused("a place that there is not", lambda: model.run(texts[0], read=[Site("z", 7)]))
refused("a name that there is not", lambda: Site("resid_pots", 1))
refused("dropout left on", lambda: interp.load(LlamaForCausalLM(config).train()).run(torch.tensor([[5, 6, 7]])))
refused("no tokenizer", lambda: interp.load(module).run("Anna was born"))
refused("an edit that hits padding only", lambda: model.run(texts, edits=[edits.zero(Site("z", 0), pos=0, batch=1)]))

# %% [markdown]
# ## The result: a fact on its way
#
# Now the questions that one has of such a model. Where in the prompt is it known which country is meant? And when does
# the country become a capital? First patching: copy the clean run's stream into the corrupt run, place by place.
# Prediction: it sits at the country below, and at the last word above.

# %%
by_place = patching.patch(model, task.clean, task.corrupt, model.sites("resid_pre"), task.logit_diff, over=["pos"])
table = stats.summary(by_place)
plots.heatmap(table["mean"], "Entering each block, where is the answer? (★ p ≤ 0.05)", significant=table.significant)

# %% [markdown]
# The prediction holds, and block 0 does it all: entering block 1, the answer is at the last word. (The stars elsewhere
# mark effects that are surely not zero and surely tiny.) Only attention moves things between words. Which of its
# heads?

# %%
by_head = patching.patch(model, task.clean, task.corrupt, model.sites("z"), task.logit_diff, over=["head"])
table = stats.summary(by_head)
plots.heatmap(table["mean"], "Share restored by each head (★ p ≤ 0.05)", significant=table.significant)

# %% [markdown]
# Those of block 0, and here head 0.3 above all. (Which one it is, chance decides: train with another seed, and look.)
# And when does the country become a capital? The logit lens decodes the stream at the last word after each block.
# Prediction: a country after block 0, the capital after block 2. The null is the same lens on a copy with random
# weights.

# %%
decoded = {
    "trained": lens.logit_lens(model, task.clean, task.logit_diff),
    "random weights": lens.logit_lens(probing.untrained(model), task.clean, task.logit_diff),
}
bands = {name: stats.interval(array) for name, array in decoded.items()}
result = plots.lines(bands, "layer", "Right capital over wrong one, decoded after each block", "logit difference")
result.show()

# %% [markdown]
# The prediction fails: the capital is there after block 0, and two more blocks add little. If that is true, the model
# does its task without them, and not without block 0. An edit says so:

# %%
for lost in ([], [0], [1, 2]):
    off = [edits.zero(Site(kind, layer)) for layer in lost for kind in ("attn_out", "mlp_out")]
    scores = task.logit_diff(model.run(task.clean, edits=off))
    print(f"without blocks {lost!s:7} {scores.mean():+.1f}, right {(scores > 0).float().mean():.0%}")

# %% [markdown]
# So the answer for this model: one block reads the country, brings it to the last word and turns it into a capital;
# the other two are spare. A task of twelve facts needs no more. All of it came from the same calls as in the other
# notebooks, on a model that this library had never seen, and the three libraries agree on every number.
#
# What would change our mind? Zero is no value that a block ever adds, so that removing one may do damage of its own;
# here it did none, for blocks 1 and 2. With more facts than one block can hold, the others would be needed: train it
# on more countries, and look again.
#
# ## Where to go next
#
# * `python -m interp check FOLDER` does the check from a shell; [docs/model_support.md](../docs/model_support.md)
#   lists families and what each backend lacks.
# * `data=pairs.csv model=FOLDER` gives your model and your pairs to any experiment: `python -m experiments
#   indirect_object --help`.
# * Labels instead of pairs: `tasks.from_labels`, and then the notebook on probes.
# * Code that you have: [coming from TransformerLens, nnsight or captum](../docs/coming_from.md). Other mistakes: [the
#   FAQ](../docs/faq.md).
