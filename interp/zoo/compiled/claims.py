"""What is known of a compiled model before it is run: computed from the program, by its interpreter."""

import random
from collections.abc import Mapping, Sequence

from interp.graph import Edge
from interp.model import Model
from interp.tasks import Task
from interp.zoo.compiled.compiler import GAIN, compile_program
from interp.zoo.compiled.interpreter import Cut, interpret
from interp.zoo.compiled.placing import place
from interp.zoo.compiled.programs import Program
from interp.zoo.compiled.variables import Held
from interp.zoo.handset.blank import BOS
from interp.zoo.known import ABLATIONS, LEAST, Known, pairs


def model_of(program: Program, backend: str | None = None) -> Model:
    """The program as a model: after a prompt that begins with "<bos>", the answer has the highest logit."""
    if not isinstance(program, Program):
        raise TypeError(f"a model is made of a Program, not {type(program).__name__}; give Program(..., output=that)")
    return compile_program(place(program.output), program.length + 1, program.alphabet).model(backend)


def known(program: Program, n: int = 16, seed: int = 0, backend: str | None = None) -> Known:
    """The program as a model, with pairs of prompts of different answers, and the edges that matter on them.

    Raises:
        ValueError: A program that does not say what `answer` says; too few prompts that differ.
    """

    placed, model = place(program.output), model_of(program, backend)

    def draw(rng: random.Random) -> tuple[str, str]:
        words = program.draw(rng)
        answer, held = str(program.answer(words)), interpret(placed, words)[placed.output][-1]
        said = {str(value): amount for value, amount in held.items() if amount > LEAST}
        if said.get(answer, 0.0) < 1 - LEAST:
            raise ValueError(
                f"after {' '.join(words)!r} the answer is {answer!r}, but the program {program.name} says {said}"
            )
        return " ".join([BOS, *words]), answer

    task = pairs(program.name, model, draw, n, seed)
    found = {ablation: changes(program, task, ablation) for ablation in ABLATIONS}
    edges = {
        ablation: frozenset(edge for edge, values in by_edge.items() if max(map(abs, values)) > LEAST)
        for ablation, by_edge in found.items()
    }
    return Known(program.name, model, task, edges)


def changes(program: Program, task: Task, ablation: str) -> Mapping[Edge, Sequence[float]]:
    """How the task's logit difference must change, prompt by prompt, when one edge alone is ablated in the clean run.

    Returns:
        Changes of the edges along which the program passes something; those of all others are zero.
    """
    placed = place(program.output)
    found: dict[Edge, list[float]] = {edge: [] for edge in sorted(placed.edges)}
    for clean, corrupt in zip(*([text.split()[1:] for text in side] for side in task.texts)):
        answers = str(program.answer(clean)), str(program.answer(corrupt))
        whole, other = (interpret(placed, words) for words in (clean, corrupt))
        before = _said(whole[placed.output][-1], *answers)
        for edge, values in found.items():
            cut = interpret(placed, clean, Cut(edge, other if ablation == "corrupt" else None))
            values.append(_said(cut[placed.output][-1], *answers) - before)
    return found


def _said(held: Held, right: str, wrong: str) -> float:
    """The logit difference of two answers."""
    amounts = {str(value): amount for value, amount in held.items()}
    return GAIN * (amounts.get(right, 0.0) - amounts.get(wrong, 0.0))
