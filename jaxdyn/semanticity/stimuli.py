"""Stimuli with a known metric, made from text: a value at the end of a template, so that its last token stands for it.

Each generator gives texts and the distances between them, scaled to [0, 1]. They are small on purpose: write your own
`Stimuli` for others.
"""

from dataclasses import dataclass

import numpy as np

from jaxdyn.errors import InputError

VOWELS, CONSONANTS = "aeiou", "bdfgklmnprst"
WORD_LENGTH = 6
WORDS_AT_MOST = 300


@dataclass(frozen=True)
class Stimuli:
    """Texts in a metric space.

    Attributes
    ----------
    name : how the command line calls them.
    texts : N different texts.
    distance : (N, N), symmetric, 0 on the diagonal only, largest value 1.
    metric : what the distance is, in words.
    """

    name: str
    texts: list[str]
    distance: np.ndarray
    metric: str

    def __post_init__(self) -> None:
        """Refuse what is no metric space of different texts."""
        count, d = len(self.texts), self.distance
        if d.shape != (count, count) or count < 8:
            msg = f"stimuli: got {count} texts and distances of shape {d.shape}; allowed 8 texts or more, and (N, N)"
            raise InputError(msg)
        if len(set(self.texts)) < count or not np.array_equal(d, d.T) or (np.diag(d) != 0).any():
            msg = "stimuli: the texts must differ, and the distances be symmetric with 0 on the diagonal"
            raise InputError(msg)
        if (d[~np.eye(count, dtype=bool)] <= 0).any():
            msg = "stimuli: two different texts are at distance 0; give each pair a distance above 0"
            raise InputError(msg)


def numbers(count: int = 100, *, first: int = 1, template: str = "The number is {}") -> Stimuli:
    """Return the integers from `first` on, at distance |i - j|/(N - 1): a segment."""
    return _on_segment("numbers", [template.format(first + i) for i in range(_checked(count))], "difference of numbers")


def years(count: int = 100, *, first: int = 1900, template: str = "It was the year {}") -> Stimuli:
    """Return successive years, at distance |i - j|/(N - 1): a segment."""
    return _on_segment("years", [template.format(first + i) for i in range(_checked(count))], "difference of years")


def words(count: int = 100, *, distance: str = "edit", seed: int = 0, template: str = "The word is {}") -> Stimuli:
    """Return invented words of six letters, each the one before with one letter changed.

    Parameters
    ----------
    count : number of words, 8 to 300.
    distance : "edit", the Levenshtein distance by 6, of which there are six values (so a third of the pairs tie); or
        "list", the distance along the chain, by N - 1.
    seed : of the letters.
    template : text with {} for the word.
    """
    if not 8 <= count <= WORDS_AT_MOST:
        msg = f"samples: got {count}; allowed 8 to {WORDS_AT_MOST} words"
        raise InputError(msg)
    if distance not in ("edit", "list"):
        msg = f"distance: got {distance!r}; allowed 'edit' or 'list'"
        raise InputError(msg)
    rng = np.random.default_rng(seed)
    letters = [CONSONANTS, VOWELS] * (WORD_LENGTH // 2)
    word = [str(rng.choice(list(choice))) for choice in letters]
    chain: list[str] = []
    place = 0
    while len(chain) < count:
        if "".join(word) not in chain:
            chain.append("".join(word))
        place = (place + 1) % WORD_LENGTH
        word[place] = str(rng.choice([letter for letter in letters[place] if letter != word[place]]))
    texts = [template.format(one) for one in chain]
    if distance == "list":
        return _on_segment("words", texts, "place in a list of words, each a letter off the one before")
    table = np.array([[levenshtein(one, other) for other in chain] for one in chain], np.float64)
    return Stimuli("words", texts, table / table.max(), "Levenshtein distance of words")


def make(name: str, count: int, *, distance: str | None = None) -> Stimuli:
    """Return stimuli by name: numbers, years or words; `distance` ("edit" or "list") is for words."""
    if name not in ("numbers", "years", "words"):
        msg = f"stimuli: got {name!r}; allowed numbers, years, words"
        raise InputError(msg)
    if name == "words":
        return words(count, distance=distance or "edit")
    if distance is not None:
        msg = f"distance: got {distance!r} with {name}, whose distance is their difference; it is for words"
        raise InputError(msg)
    return numbers(count) if name == "numbers" else years(count)


def levenshtein(one: str, other: str) -> int:
    """Return the least number of letters inserted, deleted or replaced that turn one string into the other."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def _on_segment(name: str, texts: list[str], metric: str) -> Stimuli:
    place = np.arange(len(texts))
    return Stimuli(name, texts, np.abs(place[:, None] - place[None, :]) / (len(texts) - 1), metric)


def _checked(count: int) -> int:
    if count < 8:
        msg = f"samples: got {count}; allowed 8 or more: half of them fit the kernel, half are tested"
        raise InputError(msg)
    return count
