"""Which verdicts survive a change of convention: counted by hand on a small table."""

import numpy as np
import xarray as xr

from jaxdyn.study.conventions import OWN, every_convention
from jaxdyn.study.settings import claims, definitions
from jaxdyn.study.survival import survival
from jaxdyn.study.verdict import judge

EXPLAINED, ABOVE = "explained by N1", "above every null"


def stage(of, labels, verdict, corpora=(OWN,)):
    """A conventions stage whose verdict is a function of the convention and the label."""
    every = every_convention(("in-context", "isolated"), corpora)
    axes = ("operator", "target", "metric", "average", "corpus")
    names = {axis: ("convention", [getattr(one, axis) for one in every]) for axis in axes}
    told = [[verdict(one, label) for label in labels] for one in every]
    return xr.Dataset(
        {"verdict": (("convention", "claim"), told)},
        {"convention": [str(one) for one in every], "claim": labels, "of_claim": ("claim", of), **names},
    )


def counts(found, claim, changed):
    at = found.sel(judged=claim, changed=changed)
    return tuple(int(at[key]) for key in ("same", "other", "undecided"))


def test_each_axis_is_changed_with_the_others_as_they_are():
    def verdict(one, label):
        if one.metric == "relative":
            return ABOVE
        return "undecided" if one.operator == "isolated" else EXPLAINED

    found = survival(stage(["depth gradient"], ["depth gradient"], verdict, (OWN, "other")), "in-context")
    assert str(found["primary"].item()) == "explained"
    assert counts(found, "depth gradient", "metric") == (0, 1, 0)
    assert counts(found, "depth gradient", "operator") == (0, 0, 1)
    assert counts(found, "depth gradient", "target") == counts(found, "depth gradient", "average") == (1, 0, 0)
    assert counts(found, "depth gradient", "corpus") == (1, 0, 0)
    assert counts(found, "depth gradient", "definition") == (0, 0, 0)
    # Of 32 conventions 16 are relative, 8 raw and isolated, 8 raw and in context, of which one is the primary.
    assert counts(found, "depth gradient", "all") == (7, 16, 8)


def test_other_definitions_are_of_the_claim_and_only_one_axis():
    claim = next(one for one in claims() if one["name"] == "alignment")
    labels = list(definitions(claim))
    assert labels == ["alignment", "alignment, pairs", "alignment, trace"]

    def verdict(one, label):
        return ABOVE if label.endswith("trace") else EXPLAINED

    conventions = stage(["alignment"] * 3, labels, verdict)
    assert counts(survival(conventions, "isolated"), "alignment", "definition") == (1, 1, 0)
    assert counts(survival(conventions, "isolated"), "alignment", "all") == (31, 16, 0)


def test_another_definition_or_corpus_makes_a_verdict_convention_dependent():
    rng = np.random.default_rng(0)
    claim = next(one for one in claims() if one["name"] == "alignment") | {"ladder": ["N1"]}
    names = [claim["statistic"]]
    ladder = xr.Dataset(
        {
            "number": (("statistic", "sample"), 1e-3 * rng.standard_normal((1, 20))),
            "null_draws": (("rung", "draw", "statistic", "sample"), 1e-3 * rng.standard_normal((1, 8, 1, 20))),
            "null_count": (("rung",), [8]),
            "null_shared": (("rung",), [False]),
            "floor": (("statistic",), [1e-3]),
            "trend_p": (("series",), [0.5]),
        },
        {"statistic": names, "rung": ["N1"], "series": ["alignment"]},
        {"operator": "in-context"},
    )

    def judged(differs):
        told = stage(
            ["alignment"] * 3, list(definitions(claim)), lambda *one: ABOVE if differs(*one) else EXPLAINED, (OWN, "w")
        )
        return judge(claim, {"ladder": ladder, "conventions": told})["verdict"]

    assert judged(lambda one, label: False) == "explained by N1"
    assert (
        judged(lambda one, label: one.operator == "isolated") == "explained by N1"
    )  # another operator is another thing
    assert judged(lambda one, label: label.endswith("pairs")) == "convention-dependent"
    assert judged(lambda one, label: one.corpus == "w") == "convention-dependent"
