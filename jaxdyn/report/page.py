"""Stage 7 of 7: report.html, one file that opens from disk without a network, and the figures beside it.

The page holds its data as JSON and draws them itself. Everything that comes from a model or a prompt is escaped twice
over: JSON keeps no character that could end its element, and the script puts text in as text. The page's policy lets
nothing but its own script and style run and nothing be fetched.
"""

import base64
import hashlib
import html
import json
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from jaxdyn.store import StoreError

from . import captions, palette
from .chart import Chart, as_plain
from .figures import charts, save_all
from .painter import Painter
from .source import FORMATS, Source, commands, differences, one_line, provenance
from .summary import summary

SCRIPTS = ("svg.js", "readout.js", "lines.js", "planes.js", "depth.js", "flow.js", "words.js", "study.js", "main.js")
ABSENT = {
    "budget": "what explains the Henrici departure (needs null N1: --draws 8)",
    "bottleneck": "the running product (needs part block and layers without gaps)",
    "eigenvalues": "eigenvalues (needs part block)",
    "directions": "decoded directions (written when a run with part block is finished)",
    "energy": "the energy that survives averaging (written when a run is finished)",
    "pseudospectra": "pseudospectra (run with --pseudospectra LAYERS)",
}
"""Figures that a store may lack, and why."""


def write_report(
    sources: Sequence[Source],
    folder: str | Path,
    *,
    formats: Sequence[str] = FORMATS,
    painter: Painter | None = None,
) -> list[Path]:
    """Write report.html, the figures and the card.

    Parameters
    ----------
    sources : one store or two to be overlaid (`source.open_sources`).
    folder : created where it is missing; files of an earlier report are replaced.
    formats : endings of the figure files, any of "png", "svg".
    painter : draws half of the figures at the same time.

    Returns
    -------
    The files written, the page first.

    Raises
    ------
    StoreError : the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        drawn = charts(sources)
        written = save_all(sources, folder, formats=formats, drawn=drawn, painter=painter)
        page = folder / "report.html"
        update = page.with_name(".report.html.partial")
        update.write_text(page_html(sources, drawn, [path.name for path in written]), encoding="utf-8")
        os.replace(update, page)
    except OSError as error:
        msg = f"out: cannot write the report in {folder}: {error.strerror or error}; choose another folder with --out"
        raise StoreError(msg) from error
    return [page, *written]


def page_html(sources: Sequence[Source], drawn: Sequence[Chart], beside: Sequence[str] = ()) -> str:
    """Return the whole page as text.

    Parameters
    ----------
    sources, drawn : the stores and their charts (`figures.charts`).
    beside : names of the figure files that lie beside the page and are linked.
    """
    return assemble(
        " · ".join(source.label for source in sources),
        [one_line(source) for source in sources],
        _notes(sources),
        _footer(sources, drawn),
        page_data(sources, drawn, beside),
    )


def assemble(
    heading: str, lines: Sequence[str], notes: Sequence[str], footer: Sequence[str], data: dict[str, Any]
) -> str:
    """Put words and data into the page, escaped; `data` as `page_data` gives it, with summary None for no table."""
    assets = files("jaxdyn.report") / "assets"
    read = {name: (assets / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", *SCRIPTS)}
    style = palette.style_sheet() + read["page.css"]
    script = '"use strict";(()=>{\n' + "\n".join(read[name] for name in SCRIPTS) + "\n})();"
    fields = {
        "title": html.escape(f"{heading} · jaxdyn"),
        "description": html.escape(" | ".join(lines)),
        "heading": html.escape(heading),
        "lines": "\n".join(f'<p class="line">{html.escape(line)}</p>' for line in lines),
        "notes": "\n".join(f'<p class="note">{html.escape(note)}</p>' for note in notes),
        "footer": "\n".join(f"<p>{html.escape(line)}</p>" for line in footer),
        "data": embedded(data),
        "style": style,
        "script": script,
        "policy": f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
    }
    return Template(read["page.html"]).substitute(fields)


def page_data(sources: Sequence[Source], drawn: Sequence[Chart], beside: Sequence[str] = ()) -> dict[str, Any]:
    """Return everything the page's script draws from, as JSON values."""
    has_n1 = any("N1" in source.root["rung"].values.tolist() for source in sources)
    return {
        "stores": [source.label for source in sources],
        "commands": commands(sources),
        "lead": "An excess counts where it leaves the null, the floor and 0 behind (●)." if has_n1 else captions.NO_N1,
        "summary": summary(sources),
        "charts": [as_plain(chart) for chart in drawn],
        "files": {chart.name: _links(chart, beside) for chart in drawn},
    }


def embedded(values: Any) -> str:
    """JSON for inside a script element: no <, > or &, and none of the line ends that only JavaScript knows."""
    text = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _notes(sources: Sequence[Source]) -> list[str]:
    notes = []
    for source in sources:
        total, done = source.tree.to_dataset().sizes["sample"], source.root.sizes["sample"]
        if done < total:
            notes.append(
                (f"{source.tag}: this run" if source.tag else "This run")
                + f" is not finished: {done} of {total} samples are done, and the averages over all samples "
                "are missing. Repeat its command with --resume."
            )
        if source.init and len(source.init.seeds) < source.init.wanted:
            notes.append(
                (f"{source.tag}: of" if source.tag else "Of")
                + f" the random initialisations (N5) {len(source.init.seeds)} of {source.init.wanted} are done. Repeat "
                "the command with --resume."
            )
    return [note for note in (*notes, differences(sources)) if note]


def _footer(sources: Sequence[Source], drawn: Sequence[Chart]) -> list[str]:
    present = {chart.name for chart in drawn}
    absent = [text for name, text in ABSENT.items() if name not in present]
    lines = [f"Not on this page: {'; '.join(absent)}."] if absent else []
    for source in sources:
        made = provenance(source.root)
        versions = (
            f"jaxdyn {made.get('version_jaxdyn', captions.UNKNOWN)}, jax {made.get('version_jax', captions.UNKNOWN)}"
        )
        device = made.get("device_kind", captions.UNKNOWN)
        commit = str(made.get("commit") or captions.UNKNOWN)[:12]
        lines.append(
            f"{source.label}: {versions}, device {device}, commit {commit}, {made.get('date', 'date not recorded')}, "
            f"dtype {captions.setting(source.root, 'dtype') or captions.UNKNOWN}, "
            f"seed {captions.setting(source.root, 'seed')}."
        )
    return [*lines, "Numbers carry 9 significant digits. Analyses after Fernando and Guitchounts (arXiv 2605.14258)."]


def _links(chart: Chart, beside: Sequence[str]) -> list[list[str]]:
    """Pair a text with the name of each file of a chart; the depth profiles have a second figure."""
    stems = {chart.name: "", "depth_excess": "Excess as "} if chart.name == "depth_profiles" else {chart.name: ""}
    return [
        [f"{word}{ending.upper()}", f"{stem}.{ending}"]
        for stem, word in stems.items()
        for ending in FORMATS
        if f"{stem}.{ending}" in beside
    ]


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
