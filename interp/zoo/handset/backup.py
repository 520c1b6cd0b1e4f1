"""A head that steps in when its twin is ablated, and not when the twin's output is exchanged for another."""

from interp.model import Model
from interp.tasks import from_rows
from interp.zoo.handset.blank import BOS, Blank
from interp.zoo.known import Known

NAMES = ("Mary", "John", "Anna", "Tom")
_NAMES = [f"name {name}" for name in NAMES]
_ANSWERS = [f"answer {name}" for name in NAMES]
_SHARP = 40.0


def backup(repair: float = 0.8, strength: float = 4.0, backend: str | None = None) -> Model:
    """A model that names the name in its prompt, with a head that steps in when the head that does so is ablated.

    Prompts such as "<bos> John and :"; the next token is the name. Two layers of two heads, no MLP:

    * L0H0, the mover: ":" attends to the name and writes `strength` on its answer, and a flag, `done`.
    * L1H0, the backup: ":" attends to the name unless `done` is there, else to the start, and writes `repair` times
      `strength` on the answer: nothing, as long as the mover works.
    * L0H1 and L1H1 attend to the start and write 1 on the answers Mary and John, whatever the others do.

    So, for the logit of the name against one that is neither Mary nor John: ablating the mover by zero loses
    `strength` directly and `(1 - repair) * strength` in all (self-repair is `repair`); ablating the backup loses
    nothing; ablating both loses `strength`. Exchanging the mover's output for its output on another name leaves the
    flag where it is, and the backup out of it.
    """
    features = [*_NAMES, *_ANSWERS, "is name", "is start", "asks", "done"]
    blank = Blank.of(features, [*NAMES, "and", ":"], n_layers=2, n_heads=2, d_head=8)
    blank.embed(BOS, {"is start": 1.0})
    blank.embed(":", {"asks": 1.0})
    for word, feature, answer in zip(NAMES, _NAMES, _ANSWERS):
        blank.embed(word, {feature: 1.0, "is name": 1.0})
        blank.unembed(word, {answer: 1.0})
    name, start, asks = {"is name": 1.0}, {"is start": 1.0}, {"asks": 1.0}
    moved = [({a: 1.0}, {b: strength}) for a, b in zip(_NAMES, _ANSWERS)]
    blank.head(0, 0, [(asks, name, _SHARP)], [*moved, (name, {"done": 1.0})])
    blank.head(0, 1, [(asks, start, _SHARP)], [(start, {_ANSWERS[0]: 1.0})])
    choice = [(asks, name, _SHARP), ({"done": 1.0}, name, -_SHARP), (asks, start, _SHARP / 2)]
    blank.head(1, 0, choice, [({a: 1.0}, {b: repair * strength}) for a, b in zip(_NAMES, _ANSWERS)])
    blank.head(1, 1, [(asks, start, _SHARP)], [(start, {_ANSWERS[1]: 1.0})])
    return blank.model(backend)


def self_repair(repair: float = 0.8, strength: float = 4.0, backend: str | None = None) -> Known:
    """`backup` on Anna and Tom, with the edges that matter.

    The backup attends to the start in both runs, so that nothing but the mover's values matters between them. Under
    zero ablation, its queries, keys and flag matter too, and the backup's keys: without them it attends everywhere.
    The backup's queries do not, nor its values, nor what it writes: that is zero as long as the mover works. A backup
    that repairs nothing matters nowhere, and one that repairs all makes good what the mover's values bring.
    """
    model = backup(repair, strength, backend)
    prompts = [(f"{BOS} {{}} and :", "Anna", "Tom"), (f"{BOS} and {{}} :", "Tom", "Anna")]
    rows = [
        {"clean": text.format(one), "corrupt": text.format(other), "right": one, "wrong": other}
        for text, one, other in prompts
    ]
    moved = {("embed", "L0H0.v"), ("L0H0", "logits")}
    zero = moved | {("embed", "L0H0.q"), ("embed", "L0H0.k"), ("L0H0", "L1H0.q"), ("embed", "L1H0.k")}
    if repair == 0:
        zero -= {("L0H0", "L1H0.q"), ("embed", "L1H0.k")}
    if repair == 1:
        zero -= {("embed", "L0H0.v")}
    edges = {"corrupt": frozenset(moved), "zero": frozenset(zero)}
    return Known("backup", model, from_rows(model, rows, "backup"), edges)
