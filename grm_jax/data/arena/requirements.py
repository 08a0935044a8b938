"""Requirements: what a task asks of a list of words, and how each is checked."""

from dataclasses import dataclass

WEIGHTS: dict[str, int] = {
    "use": 3,
    "avoid": 4,
    "start": 3,
    "end": 3,
    "length": 2,
    "form": 2,
    "after": 4,
    "double": 3,
}
"""The kinds of requirement and the points that breaking one costs, in the order in which a task states them."""

KINDS: tuple[str, ...] = tuple(WEIGHTS)

_AROUND = {"dash": "- {}", "brackets": "( {} )", "stars": "* {} *"}

FORMS: tuple[str, ...] = tuple(_AROUND)
"""How a response may be written."""

LAST = "last"
MISSING = "none"
"""What is found of a word that is a response's last, and of one that does not occur."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response in parts: its words, and the form in which they are written."""

    words: tuple[str, ...]
    form: str

    @property
    def text(self) -> str:
        """The response as the judge sees it. A mark stands before the first word, so that a word is the same token everywhere."""
        return _AROUND[self.form].format(" ".join(self.words))

    def follower(self, word: str) -> str:
        """Returns the word right after the first `word`; `LAST` if there is none, and `MISSING` if `word` does not occur."""
        if word not in self.words:
            return MISSING
        place = self.words.index(word) + 1
        return self.words[place] if place < len(self.words) else LAST


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
        """The requirement as tasks and critiques state it, such as "use sun" or "pig after sun"."""
        if self.kind == "after":
            return f"{self.arguments[0]} after {self.arguments[1]}"
        return f"{self.kind} {self.arguments[0]}"

    def evidence(self, response: Response) -> str:
        """Returns what a look at the response finds: a word, a count or a form, from which alone the verdict follows.

        It is something read off the response, not a yes or no: of a word that has to occur, what follows it there.
        """
        match self.kind:
            case "start":
                return response.words[0]
            case "end":
                return response.words[-1]
            case "length":
                return str(len(response.words))
            case "form":
                return response.form
            case "use" | "avoid" | "after" | "double":
                return response.follower(self.arguments[-1])
        raise ValueError(f"unknown kind {self.kind!r}")

    def met_by(self, evidence: str) -> bool:
        """Tells whether a response with this evidence meets the requirement."""
        match self.kind:
            case "use":
                return evidence != MISSING
            case "avoid":
                return evidence == MISSING
        return evidence == self.arguments[0]

    def met(self, response: Response) -> bool:
        """Tells whether a response meets the requirement."""
        return self.met_by(self.evidence(response))


def quality(broken: tuple[Requirement, ...]) -> int:
    """Returns 10 minus the weights of the requirements that are broken, at least 1."""
    return max(1, 10 - sum(requirement.weight for requirement in broken))
