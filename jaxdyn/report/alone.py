"""Stage 7 of 7: a page of some figures alone, for a folder that holds no results.zarr, with the figures' files."""

import os
from collections.abc import Sequence
from pathlib import Path

from jaxdyn.store import StoreError

from .chart import Chart, as_plain


def write_alone(
    folder: Path,
    drawn: Sequence[Chart],
    formats: Sequence[str],
    *,
    heading: str,
    lines: Sequence[str],
    footer: str,
    stores: Sequence[str],
    commands: Sequence[str],
) -> list[Path]:
    """Write the figures and `report.html`.

    Parameters
    ----------
    folder, drawn, formats : where, which charts, and the endings of their files.
    heading, lines, footer : of the page.
    stores, commands : what the figures' captions name as their source, one for each store.

    Returns
    -------
    The files written, the page first.

    Raises
    ------
    StoreError : the folder cannot be written.
    """
    from .figures import draw_all, save_figure  # they import those who call this
    from .page import assemble

    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in draw_all(drawn).items():
            written += save_figure(figure, [folder / f"{name}.{ending}" for ending in formats])
        names = {path.name for path in written}
        data = {
            "stores": list(stores),
            "commands": list(commands),
            "lead": "",
            "summary": None,
            "charts": [as_plain(chart) for chart in drawn],
            "files": {
                chart.name: [[end.upper(), f"{chart.name}.{end}"] for end in formats if f"{chart.name}.{end}" in names]
                for chart in drawn
            },
        }
        page, update = folder / "report.html", folder / ".report.html.partial"
        update.write_text(assemble(heading, list(lines), [], [footer], data), encoding="utf-8")
        os.replace(update, page)
    except OSError as error:
        msg = f"out: cannot write the report in {folder}: {error.strerror or error}; choose another folder with --out"
        raise StoreError(msg) from error
    return [page, *written]
