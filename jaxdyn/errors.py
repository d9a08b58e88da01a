"""The errors a user can mend: each names the argument, what it got, what is allowed and what to do."""

from importlib.metadata import PackageNotFoundError, metadata

DOCUMENTATION, REPOSITORY = ("documentation", "docs"), ("repository", "source", "source code", "homepage")
"""Names of project links in the package's metadata, as the packaging guide has them."""


class InputError(ValueError):
    """Input that cannot be used as given: an argument, a file, a model id. One line; the command line exits with 2.

    Parameters
    ----------
    message : the line.
    page : path in the repository of the page that explains more, such as "docs/models.md", or None.
    """

    def __init__(self, message: str, *, page: str | None = None) -> None:
        super().__init__(message)
        self.page = page


def address(page: str) -> str:
    """Return where a page of the documentation is: its address if the package's metadata has one, else its path."""
    try:
        links = metadata("jaxdyn").get_all("Project-URL") or []
    except PackageNotFoundError:
        links = []
    known = {}
    for link in links:
        name, _, url = link.partition(",")
        known[name.strip().lower()] = url.strip().rstrip("/")
    for name in DOCUMENTATION:
        if name in known:
            stem = page.removeprefix("docs/").removesuffix(".md")
            return f"{known[name]}/" + ("" if stem == "index" else f"{stem}/")
    return next((f"{known[name]}/blob/HEAD/{page}" for name in REPOSITORY if name in known), page)
