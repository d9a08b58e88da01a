"""Stage 1 of 7: where a model is: a folder, or an id of the hub, described first and read after."""

from dataclasses import dataclass, replace
from pathlib import Path

from jaxdyn import embedded
from jaxdyn.errors import InputError
from jaxdyn.models import hub
from jaxdyn.models.checkpoint import Checkpoint, open_checkpoint, refuse_pickle
from jaxdyn.models.tensor_file import Entry


@dataclass(frozen=True)
class Located:
    """A model whose description is at hand.

    Attributes
    ----------
    name
        As the user gave it.
    folder
        Holds config.json, the tokenizer's files and, for a folder of the user's, the weights.
    revision
        The commit of a model of the hub; None for a folder.
    """

    name: str
    folder: Path
    revision: str | None

    def checkpoint(self) -> Checkpoint:
        """Open the weights, fetched first where they are on the hub."""
        if self.revision is not None:
            hub.fetch_weights(self.name, self.folder, self.revision)
        return open_checkpoint(self.folder)

    def entries(self) -> dict[str, Entry]:
        """Return dtype and shape of every tensor, of the headers alone: no weights are read or fetched."""
        if self.revision is None:
            return open_checkpoint(self.folder).entries
        return hub.fetch_entries(self.name, self.folder, self.revision)


def locate(name_or_path: str | Path | None, revision: str | None) -> Located:
    """Find a folder, or fetch the description of a model of the hub; what is neither is an ``InputError``.

    None is the model that comes with the package, by its name wherever that is installed.
    """
    if name_or_path is None:
        return replace(locate(embedded.FOLDER, revision), name=embedded.NAME)
    if name_or_path == "":
        msg = "model: got ''; give a hub id such as openai-community/gpt2, a folder with config.json, or nothing at all"
        raise InputError(msg)
    text, path = str(name_or_path), Path(name_or_path).expanduser()
    refuse_pickle(path)
    if path.is_file():
        msg = f"model: got the file {path}; give its folder, with config.json beside the weights"
        raise InputError(msg)
    if path.is_dir():
        if revision is not None:
            msg = f"revision: got {revision!r}, but {path} is a local folder, which has none; leave revision out"
            raise InputError(msg)
        return Located(text, path, None)
    if isinstance(name_or_path, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1:
        msg = f"model: got {text!r}, and there is no such folder; give an existing folder or a hub id (owner/name)"
        raise InputError(msg)
    folder, commit = hub.fetch_description(text, revision=revision)
    return Located(text, folder, commit)
