"""The main job: five methods on the embedded model, stored, plotted and reported: `python -m experiments.main_job`."""

import argparse
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import xarray as xr

import interp
from experiments import report, store
from experiments.report import Section
from interp import Model, Site, attribution, lens, metrics, patching, plots, probing, stats, steering, tasks
from interp.arrays import checks_of

Arrays = dict[str, xr.DataArray | xr.Dataset]


@dataclass(frozen=True)
class Config:
    n: int = 48  # prompt pairs a task
    seed: int = 0
    out: str = "runs/main_job"


def patch(model: Model, cfg: Config) -> tuple[Section, Arrays]:
    task = tasks.ioi(model, cfg.n, cfg.seed)
    by_pos = patching.patch(model, task.clean, task.corrupt, model.sites("resid_pre"), task.logit_diff, over=["pos"])
    by_head = patching.patch(model, task.clean, task.corrupt, model.sites("z"), task.logit_diff, over=["head"])
    table = stats.summary(by_head, seed=cfg.seed)
    mean = table["mean"]
    best = mean.where(mean == mean.max(), drop=True)
    layer, head = int(best["layer"][0]), int(best["head"][0])
    low, high = (float(table[name].sel(layer=layer, head=head)) for name in ("low", "high"))
    figures = {
        "patch_pos": plots.heatmap(by_pos.mean("prompt"), "Residual stream restored, layer by position"),
        "patch_head": plots.heatmap(mean.rename(by_head.name), "Heads restored", significant=table["significant"]),
    }
    answer = (
        f"Head {layer}.{head} restores most: {float(mean.max()):.0%} of the logit difference (95 % interval {low:.0%} to "
        f"{high:.0%} over {cfg.n} prompts). Stars mark heads whose corrected sign-flip p-value is at most 0.05."
    )
    return Section("Where is the indirect object decided?", answer, figures, checks_of(by_head)), {
        "patch_pos": by_pos,
        "patch_head": by_head,
        "patch_head_table": table,
    }


def read(model: Model, cfg: Config) -> tuple[Section, Arrays]:
    task = tasks.ioi(model, cfg.n, cfg.seed)
    values = lens.logit_lens(model, task.clean, task.logit_diff)
    top = lens.decode(model, task.clean.rows([0])).isel(top=0, prompt=0)
    shown = dict(labels=top.input, grey=top.skill <= 0)
    figures = {
        "lens": plots.lines(
            {"logit lens": stats.interval(values, seed=cfg.seed)}, "layer", "Logit difference by layer", "logits"
        ),
        "lens_tokens": plots.words(top.probability, top.token, "Likeliest next word by layer and position", **shown),
    }
    mean = values.mean("prompt").values
    answer = (
        f"Decoded after each layer, the logit difference of the right name is {', '.join(f'{v:.1f}' for v in mean)}."
    )
    return Section("When does the model know the answer?", answer, figures, checks_of(values)), {
        "lens": values,
        "lens_top": top,
    }


def attribute(model: Model, cfg: Config) -> tuple[Section, Arrays]:
    task = tasks.facts(model, cfg.n, cfg.seed)
    scores = attribution.integrated_gradients(model, task.clean, task.corrupt, Site("resid_pre", 0), task.logit_diff)
    band = stats.interval(scores, seed=cfg.seed)
    subject = int(task.clean.roles["subject"][0])
    first, second = (float(band["mean"][i] / band["mean"].sum()) for i in (subject - 1, subject))
    figures = {"attribution": plots.bars(band, "pos", "Integrated gradients at the first block's input", "logits")}
    answer = (
        f"A country's name is two words: the second has {second:.0%} of the attribution, the first {first:.0%}. The baseline "
        f"is another country, so that no other word can have any; the sum is the change in the logit difference."
    )
    return Section("Which words recall the capital?", answer, figures, checks_of(scores)), {"attribution": scores}


def probe(model: Model, cfg: Config) -> tuple[Section, Arrays]:
    task = tasks.sentiment(model, 4 * cfg.n, cfg.seed, split="train")  # more adjectives; those of the test are held out
    words = task.clean.ids[torch.arange(len(task)), task.clean.roles["adjective"]]
    groups = model.words(words.tolist())
    data = tasks.from_labels(model, task.clean, task.labels["positive"], groups, name="sentiment")
    result = probing.probe(model, data, model.sites("resid_post"), seed=cfg.seed)
    figures = {"probe": plots.probes(result, "accuracy", "Probe of sentiment at the last position")}
    best, null = float(result.accuracy.max()), result.attrs["null_of_the_best"]
    answer = (
        f"A probe of the writer's feeling reaches {best:.0%} on adjectives that it never saw; of shuffled labels, the best "
        f"layer reaches {null:.0%} in one case of twenty. What can be read off need not be used: see the next question."
    )
    return Section("Can sentiment be read off?", answer, figures, checks_of(result)), {"probe": result}


def steer(model: Model, cfg: Config) -> tuple[Section, Arrays]:
    learn, test = (tasks.sentiment(model, 4 * cfg.n, cfg.seed + 1, split) for split in ("train", "test"))
    words = model.words(learn.clean.ids[torch.arange(len(learn)), learn.clean.roles["adjective"]].tolist())
    concept = steering.labelled_set(model, "sentiment", learn.clean, learn.labels["positive"], words)
    vector = steering.extract(model, concept, Site("resid_post", 2), seed=cfg.seed)
    sad = [text for text, positive in zip(test.texts[0], test.labels["positive"]) if not positive]
    metric = metrics.logit_diff(model.token_id("happy"), model.token_id("sad"))
    random_ones = {"random": steering.random_like(vector, seed=cfg.seed)}
    values = steering.dose_response(model, sad, vector, metric, nulls=random_ones)
    steered, random = values.sel(vector="steered", drop=True), values.isel(vector=slice(1, None)).mean("vector")
    bands = {name: stats.interval(array, seed=cfg.seed) for name, array in (("steered", steered), ("random", random))}
    figures = {"steering": plots.lines(bands, "dose", "Dose and response on negative prompts", "logit of happy - sad")}
    flipped = float((steered.sel(dose=1.0) > 0).mean())
    nulls = float((values.isel(vector=slice(1, None)).sel(dose=1.0) > 0).mean())
    answer = f"At dose 1 the vector makes {flipped:.0%} of {len(sad)} negative prompts happy; random vectors of its norm {nulls:.0%}."
    return Section("Does pushing along it change the mood?", answer, figures, checks_of(values)), {"steering": values}


def run(cfg: Config) -> Path:
    """Run the five parts, store arrays and figures, write the report; return its path."""
    model = interp.load()
    sections: list[Section] = []
    arrays: Arrays = {}
    for part in (patch, read, attribute, probe, steer):
        section, made = part(model, cfg)
        sections.append(section)
        arrays |= made
    figures = {name: figure for section in sections for name, figure in section.figures.items()}
    how = store.provenance(model, asdict(cfg))
    folder = store.publish(Path(cfg.out), arrays, figures, how)
    lead = f"Patching, logit lens, integrated gradients, probe and steering on the embedded model, {cfg.n} held-out prompt pairs a task."
    report.write(folder / "report.html", "What does a small model know, and where?", lead, sections, how)
    print(store.pictures(folder, figures))
    return folder / "report.html"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=Config.n, help="prompt pairs a task")
    parser.add_argument("--seed", type=int, default=Config.seed)
    parser.add_argument("--out", default=Config.out, help="folder of runs")
    args = parser.parse_args()
    start = time.perf_counter()
    page = run(Config(args.n, args.seed, args.out))
    print(f"report: {page} ({time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
