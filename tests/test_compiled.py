"""Compiled models say what their programs say, cut or whole."""

import random
from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from interp import circuits
from interp.zoo import compiled
from interp.zoo import known as exact
from interp.zoo.compiled import PROGRAMS, Program, compile_program, interpret, language, place

SMALL = {"balance": 8, "share": 6, "reverse": 4, "sort": 4}


def every(program: Program) -> Iterator[list[str]]:
    """All prompts that a program takes: any words or, where something is said after a colon, what it says itself."""
    letters = [word for word in program.alphabet if word != ":"]
    most = program.length // 2 if ":" in program.alphabet else program.length
    for n in range(1, most + 1):
        for words in product(letters, repeat=n):
            prompt = [*words, *[":"] * (":" in program.alphabet)]
            yield list(prompt)
            while ":" in prompt and len(prompt) - n < n and (said := program.answer(prompt)) in letters:
                prompt.append(said)
                yield list(prompt)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_model_answers_every_prompt_as_plain_python_does(name):
    program = PROGRAMS[name](SMALL.get(name, 5))
    model = compiled.model_of(program)
    prompts = list(every(program))
    for length in range(1, program.length + 1):
        some = [words for words in prompts if len(words) == length]
        if some:
            logits = model.run([" ".join(["<bos>", *words]) for words in some], last_only=True).logits[:, -1]
            assert model.words(logits.argmax(-1).tolist()) == [program.answer(words) for words in some]
            assert_close(logits.amax(-1), torch.full((len(some),), 10.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_logit_is_what_the_interpreter_says(name):
    program, rng = PROGRAMS[name](), random.Random(3)
    model, placed = compiled.model_of(program), place(program.output)
    for words in (program.draw(rng) for _ in range(20)):
        held = interpret(placed, words)[placed.output]
        logits = model.run(" ".join(["<bos>", *words])).logits[0]
        for value in placed.output.values:
            wanted = torch.tensor([10 * one.get(value, 0.0) for one in held])
            assert_close(logits[:, model.token_id(str(value))], wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("ablation", exact.ABLATIONS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_patching_every_edge_finds_what_the_program_says_of_it(name, ablation):
    program = PROGRAMS[name]()
    made = compiled.known(program, n=12, seed=1)
    effects = exact.effects(made, ablation)
    assert exact.edges_that_matter(effects) == made.edges[ablation] <= place(program.output).edges
    graph = circuits.graph(made.model)
    wanted = np.where(graph.precedes, 0.0, np.nan) + np.zeros(effects.shape)
    for (writer, reader), values in compiled.changes(program, made.task, ablation).items():
        wanted[:, graph.writers.index(writer), graph.readers.index(reader)] = values
    np.testing.assert_allclose(effects.values, wanted, atol=1e-4)


def test_every_step_is_taken_as_early_as_its_inputs_allow():
    layers = {name: place(make().output).n_layers for name, make in PROGRAMS.items()}
    deep = {"reverse": 2, "balance": 2, "first": 2, "sort": 4}
    assert layers == {name: deep.get(name, 1) for name in PROGRAMS}


def test_backends_agree(backend):
    program = PROGRAMS["balance"]()
    one, other = compiled.model_of(program, backend), compiled.model_of(program)
    prompts = ["<bos> ( ( ) )", "<bos> ) ("]
    assert_close(one.run(prompts).logits[:, -1], other.run(prompts).logits[:, -1], atol=1e-4, rtol=0)


def test_what_a_prompt_lacks_is_not_held():
    letters, place_ = language.tokens("ab"), language.indices(4)
    twice = language.select(letters, letters, lambda key, query: key == query)
    earlier = language.select(place_, place_, lambda key, query: key < query)
    last = language.aggregate("last", (twice & earlier).preferring(place_, range(4)), place_, default="none")
    held = interpret(place(last), list("abba"))[last][1:]
    assert [max(one, key=one.get) for one in held] == ["none", "none", 1, 0]
    everything = interpret(place(last), list("abba"))
    assert everything[letters][0] == {} and everything[language.START][0] == {True: 1.0}


def test_what_cannot_be_compiled_is_said():
    letters = language.tokens("ab")
    same = language.select(letters, letters, lambda key, query: key == query)
    first = language.aggregate("one", same, letters)
    with pytest.raises(ValueError, match="two variables are called 'one'"):
        place(language.apply("one", lambda word: word, first))
    with pytest.raises(ValueError, match="a preference would leave all but one out"):
        language.count("n", same.preferring(letters, "ab"), 3)
    with pytest.raises(ValueError, match="both selectors have preferences"):
        same.preferring(letters, "ab") & same.preferring(letters, "ba")


WORDS, PLACES = language.tokens("abc"), language.indices(5)
BEFORE = language.aggregate("before", language.select(PLACES, PLACES, lambda k, q: k == q - 1), WORDS, default="^")
EVERY = language.where(WORDS, lambda word: True)
SHARE = language.mean("share", EVERY, WORDS, {"a": 1.0})
MADE = {  # programs of which the start of the prompt holds some variable too, and others that were once wrong
    "the word before that before": (
        language.aggregate("twice", language.select(PLACES, PLACES, lambda k, q: k == q - 1), BEFORE, default="none"),
        lambda xs: ["none", "^", *xs][len(xs) - 1],
    ),
    "the first word": (
        language.aggregate("first", language.where(BEFORE, lambda word: word == "^"), WORDS, default="none"),
        lambda xs: xs[0],
    ),
    "how many have no b so far": (
        language.count(
            "n", language.where(language.count("b", language.where(WORDS, lambda x: x == "b"), 5), lambda n: n == 0), 5
        ),
        lambda xs: str(([*xs, "b"]).index("b")),
    ),
    "twice the same word": (
        language.apply("doubled", lambda x, y: x + y, WORDS, WORDS),
        lambda xs: 2 * xs[-1],
    ),
    "no word is read": (
        language.count("n", language.select(PLACES, PLACES, lambda k, q: k <= q), 5),
        lambda xs: str(len(xs)),
    ),
    "the same words made again": (
        language.aggregate(
            "same", language.select(language.tokens("abc"), WORDS, lambda k, q: k == q), language.tokens("abc")
        ),
        lambda xs: xs[-1],
    ),
    "more indices than positions": (
        language.aggregate(
            "here", language.select(language.indices(9), language.indices(9), lambda k, q: k == q), WORDS
        ),
        lambda xs: xs[-1],
    ),
    "a share at the start is a level, too": (
        language.aggregate(
            "low",
            language.where(
                language.nearest("level", SHARE, {"none": 0.0, "some": 0.5, "all": 1.0}), lambda x: x == "none"
            ),
            WORDS,
            default="never",
        ),
        None,
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_model_interpreter_and_plain_python_say_the_same(name):
    output, answer = MADE[name]
    model = compiled.model_of(Program(name, tuple("abc"), 5, output, lambda words: "", lambda rng: []))
    for words in (list(words) for n in (1, 2, 3, 4) for words in product("abc", repeat=n)):
        held = interpret(place(output), words)[output][-1]
        logits = model.run(" ".join(["<bos>", *words])).logits[0, -1]
        said = {word: float(logits[model.token_id(word)]) / 10 for word in map(str, output.values)}
        assert said == pytest.approx({str(value): amount for value, amount in held.items()}, abs=1e-5)
        if answer is not None:
            assert max(said, key=said.get) == answer(words) and max(said.values()) > 0.999


MISTAKES = {
    "an alphabet is of different words without spaces, such as 'abc'": lambda: language.tokens("aab"),
    "indices are of at least one position, not of 0": lambda: language.indices(0),
    "an order of 'tokens' is of different values among .* not of .'z'.": lambda: EVERY.preferring(WORDS, "z"),
    "this selector has a preference": lambda: EVERY.preferring(WORDS, "abc").preferring(PLACES, range(5)),
    "the numbers of 'm' is of different values": lambda: language.mean("m", EVERY, WORDS, {"z": 1.0}),
    "'tokens' is no number, whose level 'n' could be": lambda: language.nearest("n", WORDS, {"a": 1.0}),
    "the levels of 'n' are different finite numbers": lambda: language.nearest("n", SHARE, {"a": 1.0, "b": 1.0}),
    "n counts to 1 at least, not to -1": lambda: language.count("n", EVERY, -1),
    "'x' is a function of nothing": lambda: language.apply("x", lambda: "k"),
    "'share' is a number; nearest makes one of some values of it": lambda: language.apply("x", str, SHARE),
    "the output of a program is one of its variables, not 'p'": lambda: place("p"),
    "answers are different words without spaces": lambda: compile_program(
        place(language.apply("x", lambda word: 1 if word == "a" else "1", WORDS)), 6
    ),
    "<bos> begins every prompt": lambda: compile_program(place(WORDS), 6, ["<bos>"]),
    "is not in the tokenizer's vocabulary": lambda: compiled.model_of(PROGRAMS["substitute"]()).run("<bos> a z"),
    "the answer is 'z', but the program wrong says": lambda: compiled.known(
        Program("wrong", tuple("abc"), 5, BEFORE, lambda words: "z", lambda rng: ["a", "b"])
    ),
}


@pytest.mark.parametrize("said", MISTAKES)
def test_mistakes_in_programs_are_said_where_they_are_made(said):
    with pytest.raises((ValueError, TypeError), match=said):
        MISTAKES[said]()
