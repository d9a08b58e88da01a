"""Fill what the pages hold between `<!-- made: NAME -->` and `<!-- /made -->`: `python -m docs.fill`.

Tables of measures come from jaxdyn's own, numbers of runs from docs/data/ (`python -m docs.gallery`), so that no table
of a page is typed by hand. A test holds the pages against this.
"""

import json
import re
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdyn.cli_study import claim_cells
from jaxdyn.measures import MEASURES, nulls
from jaxdyn.pipeline import products
from jaxdyn.report.profiles import TITLES

from . import studies
from .gallery import DATA, FIGURES, HERE, HERO, SHOWN

MADE = re.compile(r"(<!-- made: (?P<name>[\w-]+(?: [\w-]+)?) -->\n).*?(<!-- /made -->)", re.DOTALL)
PAGES = ("README.md", *sorted(f"docs/{page.name}" for page in HERE.glob("*.md")))
BAR = "\u2223"
"""A vertical bar that does not end the cell of a table."""

HEADINGS = {
    "depth_profiles": "Measures by depth, with their nulls",
    "depth_excess": "The same, less N1",
    "budget": "What explains the Henrici departure",
    "bottleneck": "The running product and its laws",
    "eigenvalues": "Eigenvalues over those of N1",
    "energy": "What survives averaging over prompts",
    "pseudospectra": "Pseudospectra of averaged blocks",
}
RUNS = {"embedded": "embedded model", "stories260k": "small trained Llama"}


def main() -> None:
    """Fill all pages."""
    for page in PAGES:
        path = HERE.parent / page
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")


def filled(page: str) -> str:
    """Return the page with every marked part made again; an unknown name raises KeyError."""

    def make(match: re.Match[str]) -> str:
        name, *run = match["name"].split()
        return f"{match[1]}{MAKERS[name](*run).strip()}\n{match[3]}"

    return MADE.sub(make, page)


def measures() -> str:
    """Every measure of the store: name, definition, unit, id and closed form of N0."""
    rows = [
        (
            f"`{one.name}`",
            code(one.definition),
            {"1": ""}.get(one.unit, one.unit),
            one.formula,
            code(one.null) or "none",
        )
        for one in MEASURES
    ]
    return table(("measure", "definition, of M (J or J - I)", "unit", "id", "N0, of cI + sG"), rows)


def without_closed_form() -> str:
    """Measures that have no N0, and why."""
    return "\n".join(f"- `{name}`: {why}." for name, why in nulls.UNAVAILABLE.items())


def running_products() -> str:
    """What the group `cumulative` holds."""
    rows = [(f"`{name}`", code(text)) for name, text in {**products.MEASURES, **products.LAWS}.items()]
    return table(("variable", "what it is"), rows)


def terminal(run: str) -> str:
    """The table that the command prints."""
    return f"```text\n{data(run)['terminal']}\n```"


def command(run: str) -> str:
    """The command of a run."""
    return f"```sh\n{data(run)['command']}\n```"


def explained(run: str) -> str:
    """What N1 accounts for of each profile over depth, for block and update."""
    read = data(run)
    rows = []
    for part, profiles in read["parts"].items():
        for measure in (*HERO, "symmetry_gap", "effective_rank"):
            one = profiles[measure]
            measured, null = np.asarray(one["measured"]), np.asarray(one["N1"])
            rows.append(
                (
                    {"block": "block J", "update": "update J - I"}[part],
                    TITLES[measure].replace("|", BAR),
                    span(measured),
                    span(null),
                    short(np.abs(measured - null).max()),
                    share(measured, null) if one["stands_out"] else "-",
                    f"{one['stands_out']} of {len(measured)}",
                )
            )
    head = ("part", "measure", "measured, over layers", "N1, over layers", "largest difference", "explained by N1",
            "layers that stand out")  # fmt: skip
    return table(head, rows)


def share(measured: np.ndarray, null: np.ndarray) -> str:
    """1 - sum (m - null)^2 / sum (m - mean m)^2 over layers, as a percentage; below 0 it is "nothing"."""
    explained = 1 - np.sum((measured - null) ** 2) / np.sum((measured - measured.mean()) ** 2)
    return f"{100 * explained:.0f} %" if explained >= 0.005 else "nothing"


def product(run: str) -> str:
    """The running product by depth beside its nulls."""
    read = data(run)
    of = {name: np.asarray(values) for name, values in read["product"].items()}
    rows = []
    for number in range(len(read["layers"])):
        rows.append(
            (
                str(number + 1),
                *(short(of[name][number]) for name in ("effective_rank", "effective_rank_null")),
                short(nulls.ginibre_product_effective_rank(read["width"], number + 1)),
                *(short(of[name][number]) for name in ("participation_ratio", "participation_ratio_null",
                  "free_product_participation_ratio", "ginibre_participation_ratio")),
                short(nulls.ginibre_product_participation_ratio(read["width"], number + 1)),
            )
        )  # fmt: skip
    head = ("blocks", "effective rank", "N1", "Ginibre", "participation ratio", "N1", "free product (N3)",
            "I + Ginibre", "Ginibre")  # fmt: skip
    return table(head, rows)


def ginibre() -> str:
    """What pure noise gives at the widths of large models."""
    rows = [
        (
            str(width),
            f"{float(nulls.closed_form(jnp.zeros(()), jnp.ones(()), width)['complex_fraction']):.2%}",
            *(f"{nulls.ginibre_product_effective_rank(width, depth):.0f}" for depth in (1, 8, 32)),
            *(f"{nulls.ginibre_product_participation_ratio(width, depth):.0f}" for depth in (8, 32)),
        )
        for width in (64, 128, 768, 2560, 4096)
    ]
    head = ("width d", "complex eigenvalues", "effective rank of 1 factor", "of 8", "of 32",
            "participation ratio of 8", "of 32")  # fmt: skip
    return table(head, rows)


def gallery(run: str) -> str:
    """Every figure of one run with its caption."""
    read = data(run)
    pieces = []
    for figure in SHOWN[run]:
        (file,) = FIGURES.glob(f"{run}_{figure}.*")
        chart = {"depth_excess": "depth_profiles"}.get(figure, figure)
        heading = f"{HEADINGS[figure]}, {RUNS[run]}"
        picture = f"[![{heading}](figures/{file.name})](figures/{file.name})"
        pieces.append(f"### {HEADINGS[figure]}\n{picture}\n\n{read['captions'][chart]}")
    return "\n\n".join(pieces)


def claims(run: str) -> str:
    """The claims of one study."""
    rows = [claim_cells(row) for row in data(run)["claims"]]
    return table(("claim", "number", "null", "excess [95 %]", "verdict"), rows)


def survival(run: str) -> str:
    """Which verdicts of one study survive."""
    head, *rows = [tuple(row) for row in data(run)["survival"]]
    return table(head, rows)


def ladder(run: str) -> str:
    """Every measure beside every rung, of one study."""
    head, *rows = [tuple(cell.replace("|", BAR) for cell in row) for row in data(run)["measures"]]
    return table(head, rows)


def training(run: str) -> str:
    """The claims over training: number and excess, means over the runs, and the verdicts of the runs."""
    read = data(run)["steps"]
    names = list(read[0]["claims"])
    rows = []
    for row in read:
        of = [row["claims"][name] for name in names]
        rows.append(
            (str(row["step"]), f"{row['loss']:.2f}", *(f"{one['number']:.3f} ({one['excess']:+.3f})" for one in of))
        )
    return table(("step", "loss", *names), rows)


def studied(run: str) -> str:
    """The figures of one study or trajectory with their captions."""
    read, pieces = data(run), []
    for figure in studies.SHOWN[run]:
        file = f"figures/{run}_{figure}.svg"
        pieces.append(f"[![{figure.replace('_', ' ')}]({file})]({file})\n\n{read['captions'][figure]}")
    return "\n\n".join(pieces)


def caption(run: str) -> str:
    """The caption of a run's depth profiles."""
    return data(run)["captions"]["depth_profiles"]


def data(run: str) -> dict[str, Any]:
    """The committed numbers of one run."""
    return json.loads((DATA / f"{run}.json").read_text(encoding="utf-8"))


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def code(text: str) -> str:
    """A formula as code, in which a bar must not end the cell; words as they are."""
    text = text.replace("|", BAR)
    return f"`{text}`" if re.search(r"[=^()/+]|\d", text) else text


def span(values: np.ndarray) -> str:
    """First and last layer, and the range between where they are not its ends."""
    return f"{short(values[0])} … {short(values[-1])} ({short(values.min())} to {short(values.max())})"


def short(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}" if abs(value) < 99.95 else f"{value:.0f}"


MAKERS = {
    "caption": caption,
    "claims": claims,
    "command": command,
    "explained": explained,
    "gallery": gallery,
    "ladder": ladder,
    "ginibre": ginibre,
    "measures": measures,
    "product": product,
    "running-products": running_products,
    "studied": studied,
    "survival": survival,
    "terminal": terminal,
    "training": training,
    "without-closed-form": without_closed_form,
}

if __name__ == "__main__":
    main()
