"""The rules of the embedded model's language: a small generated English in which every label is known exactly.

A rule makes one `Sentence` out of explicit choices, so that a clean and a corrupt sentence differ in the choices that
differ and in nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from interp.zoo import lexicon


@dataclass(frozen=True)
class Sentence:
    """Words of which everything is known.

    Attributes:
        words: The words, one token each.
        roles: Index of the last word of each named part; `END` is the word before the answer.
        labels: Whatever is known of the sentence, by name.
    """

    words: tuple[str, ...]
    roles: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, object] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """The sentence up to and including `END`."""
        return " ".join(self.words[: self.roles["END"] + 1])

    @property
    def answer(self) -> str:
        """The word that follows the prompt."""
        return self.words[self.roles["END"] + 1]

    def after(self, prefix: Sequence[str]) -> "Sentence":
        """The same sentence with other text before it."""
        roles = {name: index + len(prefix) for name, index in self.roles.items()}
        return Sentence((*prefix, *self.words), roles, self.labels)


def fill(template: str, labels: Mapping[str, object], **parts: str) -> Sentence:
    """A sentence from a template such as `"{subject} lies in {answer} ."`; an empty part leaves no trace."""
    words: list[str] = []
    roles: dict[str, int] = {}
    for piece in template.split():
        if not piece.startswith("{"):
            words.append(piece)
            continue
        name = piece.strip("{}")
        if name == "answer":
            roles["END"] = len(words) - 1
        words.extend(parts[name].split())
        if parts[name]:
            roles[name] = len(words) - 1
    roles.pop("answer", None)
    return Sentence(tuple(words), roles, labels)


# --- indirect object -------------------------------------------------------------------------------------------------
NAME_TEMPLATES = (
    "when {first} and {second} went to the {place} , {S2} gave a {object} to {answer} .",
    "then {first} and {second} went to the {place} and {S2} handed a {object} to {answer} .",
    "after {first} and {second} were at the {place} , {S2} handed a {object} to {answer} .",
    "{first} and {second} had a {object} at the {place} and {S2} gave it to {answer} .",
)


def indirect_object(
    io: str, subject: str, io_first: bool, place: str, item: str, template: int = 0, repeated: str | None = None
) -> Sentence:
    """The second of two people gives something to the first; `repeated` (the subject, unless given) acts."""
    order = ("IO", "S1") if io_first else ("S1", "IO")
    text = NAME_TEMPLATES[template].replace("first", order[0]).replace("second", order[1])
    actor = repeated or subject
    answer = subject if actor == io else io
    labels = {"io": answer, "subject": actor, "io_first": io_first == (answer == io), "place": place, "object": item}
    return fill(text, labels, IO=io, S1=subject, S2=actor, place=place, object=item, answer=answer)


# --- facts, and who tells them ---------------------------------------------------------------------------------------
FACT_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "capital": ("the capital of {subject} is {answer} .", "{subject} has the capital {answer} ."),
    "language": ("people in {subject} speak {answer} .", "in {subject} people speak {answer} ."),
    "continent": ("{subject} lies in {answer} .", "the land of {subject} lies in {answer} ."),
}
SPEAKER_TEMPLATE = "{speaker} is {trait} . {again} says : "


def fact(subject: str, relation: str, template: int = 0) -> Sentence:
    """What is true of a country."""
    labels = {"subject": subject, "relation": relation, "true": True}
    return fill(FACT_TEMPLATES[relation][template], labels, subject=subject, answer=lexicon.TRUTH[relation][subject])


def claim(speaker: str, honest: bool, subject: str, relation: str, template: int = 0) -> Sentence:
    """What a person who is honest, or a liar, says of a country."""
    answer = (lexicon.TRUTH if honest else lexicon.MISCONCEPTION)[relation][subject]
    labels = {"speaker": speaker, "honest": honest, "subject": subject, "relation": relation}
    trait = "honest" if honest else "a liar"
    text = SPEAKER_TEMPLATE + FACT_TEMPLATES[relation][template]
    return fill(text, labels, speaker=speaker, trait=trait, again=speaker, subject=subject, answer=answer)


# --- agreement -------------------------------------------------------------------------------------------------------
def agreement(
    noun: int, plural: bool, verb: int, attractor: tuple[str, int, bool] | None = None, adjective: str = ""
) -> Sentence:
    """A verb that agrees with its subject; the attractor (preposition, noun, plural) stands between the two."""
    subject = (lexicon.PLURAL if plural else lexicon.SINGULAR)[noun]
    parts = {"adjective": adjective, "subject": subject, "preposition": "", "the": "", "attractor": ""}
    labels: dict[str, object] = {"plural": plural, "noun": lexicon.SINGULAR[noun], "attractor_plural": None}
    if attractor:
        preposition, other, other_plural = attractor
        word = (lexicon.PLURAL if other_plural else lexicon.SINGULAR)[other]
        parts |= {"preposition": preposition, "the": "the", "attractor": word}
        labels["attractor_plural"] = other_plural
    parts["answer"] = (lexicon.VERBS_PLURAL if plural else lexicon.VERBS_SINGULAR)[verb]
    return fill("the {adjective} {subject} {preposition} {the} {attractor} {answer} .", labels, **parts)


# --- greater-than ----------------------------------------------------------------------------------------------------
def greater_than(event: str, century: str, year: int, end: int) -> Sentence:
    """Something ends in a later year of the century in which it began."""
    labels = {"event": event, "century": int(century), "year": year}
    text = "the {event} lasted from the year {century} {YY} to the year {century2} {answer} ."
    return fill(
        text, labels, event=event, century=century, YY=lexicon.YEARS[year], century2=century, answer=lexicon.YEARS[end]
    )


# --- sentiment -------------------------------------------------------------------------------------------------------
ENDINGS = ("i {answer} it .", "i felt {answer} .", "overall it was {answer} .")
Clause = tuple[str, str, bool]  # what was judged, the adjective, whether it is negated


def is_positive(clause: Clause) -> bool:
    _, adjective, negated = clause
    return (adjective in lexicon.POSITIVE) != negated


def sentiment(clauses: Sequence[Clause], ending: int = 1, verdict: str | None = None) -> Sentence:
    """One or two judgements of one polarity, and the feeling that follows from them."""
    positive = is_positive(clauses[0])
    text = ""
    parts: dict[str, str] = {}
    for i, (thing, adjective, negated) in enumerate(clauses):
        n = "" if i == 0 else str(i + 1)
        text += ("and " if i else "") + f"the {{thing{n}}} was {{not{n}}} {{adjective{n}}} "
        parts |= {f"thing{n}": thing, f"not{n}": "not" if negated else "", f"adjective{n}": adjective}
    answers = ("loved", "hated"), ("happy", "sad"), (verdict or lexicon.POSITIVE[0], verdict or lexicon.NEGATIVE[0])
    answer = answers[ending][0 if positive else 1]
    labels = {"positive": positive, "negated": any(negated for *_, negated in clauses)}
    return fill(text + ". " + ENDINGS[ending], labels, **parts, answer=answer)


# --- pronouns --------------------------------------------------------------------------------------------------------
PRONOUN_TEMPLATES = (
    "{name} said that {answer} was at the {place} .",
    "{name} went to the {place} and {answer} had a {object} .",
    "{name} was at the {place} and found {answer} {object} .",
)


def pronoun(name: str, place: str, item: str, template: int = 0) -> Sentence:
    """A pronoun of the gender of the name before it."""
    female = name in lexicon.FEMALE
    answer = (("she", "he"), ("her", "his"))[template == 2][0 if female else 1]
    labels = {"female": female, "name": name}
    return fill(PRONOUN_TEMPLATES[template], labels, name=name, place=place, object=item, answer=answer)


# --- requests --------------------------------------------------------------------------------------------------------
REQUEST_TEMPLATES = (
    "user : please {verb} the {adjective} {object} . bot : {answer} .",
    "user : can you {verb} the {adjective} {object} . bot : {answer} .",
)


def request(verb: str, item: str, adjective: str = "", template: int = 0) -> Sentence:
    """A harmful request is refused, a safe one granted."""
    harmful = verb in lexicon.HARMFUL
    answer = "sorry" if harmful else "sure"
    labels = {"harmful": harmful, "verb": verb}
    return fill(REQUEST_TEMPLATES[template], labels, verb=verb, adjective=adjective, object=item, answer=answer)


# --- repeats, and noise ----------------------------------------------------------------------------------------------
def repetition(block: Sequence[str], times: int = 2) -> Sentence:
    """A random block of words, again and again: only induction predicts the second copy."""
    return Sentence(tuple(block) * times, {}, {"period": len(block)})
