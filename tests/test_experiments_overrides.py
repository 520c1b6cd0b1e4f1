"""Options as words: what is kept as the command of a run is read back as the same run."""

import random
import shlex
import warnings
from dataclasses import field, make_dataclass

from experiments.lab.overrides import command, override

AWKWARD = r"""
null NULL true False None nan inf -inf on 1 -1 +1 .5 1. 1e3 0x1 1_000 1-2 tö 日本 ' " '' "" \ \\ \\\ \" \\" \' \\' ${x}
\${x} \\${x} \${ ${ a${ $ $x $${x} $} } { {a:1} [a] [] a,b a:b a=b = #x a#b ~x ~/x ~ ? ?? ?a @ % ! * & | ; (1) s(1)
glob(*) range(1,3) choice(1,2) interval(0,1) sort(b,a) + - -- --x .. ./x /a/b C:\x C:\ \n \, \= é'\"\ 'a' "a"
embedded@01000 me/gpt2-x a.b ${oc.env:HOME}
"""


def read(words, fields):
    """A config as the command line makes it of these words."""
    from hydra import compose, initialize
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    ConfigStore.instance().store(name="awkward", node=OmegaConf.structured(make_dataclass("Awkward", fields)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with initialize(version_base=None, config_path=None):
            return OmegaConf.to_object(compose("awkward", overrides=words))


def test_a_word_is_read_back_as_the_value_that_it_was_made_of():
    draw, signs = random.Random(0), "a1 \\\"'${}[],:=#~()ü.\n\t+-%@?!*"
    texts = [*AWKWARD.split(), "", " ", " x", "x ", "a b", "\t", "\n", "a\nb", "'a b'"]
    texts += ["".join(draw.choices(signs, k=draw.randint(1, 9))) for _ in range(300)]
    texts = [text for text in texts if text != "???"]  # which means "missing" wherever it stands
    given = {f"text{i}": text for i, text in enumerate(texts)} | {"many": tuple(texts), "none": None, "flag": True}
    given |= {"small": 1e-05, "least": float("-inf"), "numbers": (0.5, float("inf"))}
    kinds = {"many": tuple[str, ...], "none": str | None, "numbers": tuple[float, ...]}
    fields = [
        (name, kinds.get(name, type(value)), field(default="x" if value is None else type(value)()))
        for name, value in given.items()
    ]
    found = read(shlex.split(command(*(override(name, value) for name, value in given.items())))[3:], fields)
    for name, value in given.items():
        back = getattr(found, name)
        assert (tuple(back) if isinstance(value, tuple) else back) == value, (value, override(name, value))
