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
from interp.zoo.compiled import PROGRAMS, Program, interpret, language, place

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
