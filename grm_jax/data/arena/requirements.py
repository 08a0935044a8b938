"""Requirements: what a task asks of a list of words, and how each is checked."""

from dataclasses import dataclass

WEIGHTS: dict[str, int] = {
    "use": 3,
    "avoid": 4,
    "start": 3,
    "end": 3,
    "length": 2,
    "form": 2,
    "before": 4,
    "twice": 3,
}
"""The kinds of requirement and the points that breaking one costs, in the order in which a task states them."""

KINDS: tuple[str, ...] = tuple(WEIGHTS)

FORMS: tuple[str, ...] = ("plain", "brackets", "dot")
"""How a response may be written."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response in parts: its words, and the form in which they are written."""

    words: tuple[str, ...]
    form: str

    @property
    def text(self) -> str:
        """The response as the judge sees it. Brackets stand apart from the words, so that a word stays the same token."""
        text = " ".join(self.words)
        if self.form == "brackets":
            return f"( {text} )"
        return f"{text}." if self.form == "dot" else text


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement.

    Attributes:
        kind: one of `KINDS`.
        arguments: the word or the two words that it is about, the number of `length`, or the form of `form`.
    """

    kind: str
    arguments: tuple[str, ...]

    @property
    def weight(self) -> int:
        """Points that breaking it costs."""
        return WEIGHTS[self.kind]

    @property
    def text(self) -> str:
        """The requirement as tasks and critiques state it, such as "use sun" or "sun before pig"."""
        if self.kind == "before":
            return f"{self.arguments[0]} before {self.arguments[1]}"
        return f"{self.kind} {self.arguments[0]}"

    def evidence(self, response: Response) -> str:
        """Returns what a look at the response finds: a word, a count or a form, from which alone the verdict follows."""
        words = response.words
        match self.kind:
            case "use" | "avoid":
                return "yes" if self.arguments[0] in words else "no"
            case "start":
                return words[0]
            case "end":
                return words[-1]
            case "length":
                return str(len(words))
            case "form":
                return response.form
            case "before":
                return next((word for word in words if word in self.arguments), "none")
            case "twice":
                return str(words.count(self.arguments[0]))
        raise ValueError(f"unknown kind {self.kind!r}")

    @property
    def right_evidence(self) -> str:
        """The evidence of a response that meets the requirement."""
        return {"use": "yes", "avoid": "no", "twice": "2"}.get(self.kind, self.arguments[0])

    def met(self, response: Response) -> bool:
        """Tells whether a response meets the requirement: its evidence is the right one."""
        return self.evidence(response) == self.right_evidence


def quality(broken: tuple[Requirement, ...]) -> int:
    """Returns 10 minus the weights of the requirements that are broken, at least 1."""
    return max(1, 10 - sum(requirement.weight for requirement in broken))
