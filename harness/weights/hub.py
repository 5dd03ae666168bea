"""Fetches repositories from a hub of models, and says what to do when one cannot be had.

Conventions: what was fetched lies in the hub's own cache and is used again without a
network. A place is a `Weights` with a hub id ``owner/name``; `files` are patterns of
names, so that nothing but weights, settings and vocabularies is ever fetched.
"""

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from harness.cards import Weights
from harness.errors import ModelError


class _Cause(NamedTuple):
    """Why a repository cannot be had, what would be right, and whether that says how."""

    found: str
    right: str
    is_remedy: bool = True


def fetch(place: Weights, files: Sequence[str], *, where: str, advice: str) -> Path:
    """The folder in the hub's cache that holds the files of a repository that match the patterns.

    Messages begin with `where`, the card's key, and end with `advice`, how to do without the hub;
    they tell a wrong name from terms to be agreed to, a missing network and a full disk.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    assert place.hub is not None, "a card gives 'hub' or 'path'"
    try:
        return Path(
            snapshot_download(place.hub, revision=place.revision, allow_patterns=list(files))
        )
    except (OSError, EntryNotFoundError, HFValidationError) as problem:
        cause = _cause(problem, place)
        otherwise = "Without the hub: " if cause.is_remedy else ""
        raise ModelError(
            f"{where}: {place.hub!r} cannot be had ({cause.found}). {cause.right} "
            f"{otherwise}{advice}"
        ) from None


def _cause(problem: Exception, place: Weights) -> _Cause:
    from huggingface_hub import constants, errors

    # From the special to the general: a gated repository is also one that was not found.
    match problem:
        case errors.HFValidationError():
            return _Cause("it is no hub id", "An id reads 'owner/name'. Correct the key.")
        case errors.GatedRepoError():
            return _Cause(
                "its owner asks every user to agree to terms first",
                "Agree to them on the repository's page, then log in with `hf auth login` or set "
                "HF_TOKEN, and run this again.",
            )
        case errors.RepositoryNotFoundError():
            return _Cause(
                "there is no such repository, or it is private",
                "Correct the id on the card; if it is private, log in with `hf auth login` or set "
                "HF_TOKEN.",
            )
        case errors.RevisionNotFoundError():
            return _Cause(
                f"it has no revision {place.revision!r}",
                "A branch, a tag or a commit is needed. Correct 'revision' on the card.",
            )
        case errors.LocalEntryNotFoundError() if constants.HF_HUB_OFFLINE:
            return _Cause(f"HF_HUB_OFFLINE forbids the network, and {_absent(place)}", _copy(place))
        case errors.LocalEntryNotFoundError():
            why = f"no answer from the hub: {_said(problem.__cause__ or problem)}"
            return _Cause(f"{why}; and {_absent(place)}", _copy(place))
        case OSError(errno=errno.ENOSPC):
            return _Cause(
                "the disk is full",
                f"The cache {constants.HF_HUB_CACHE} needs room for it. Free some, or set HF_HOME "
                "to a folder on another disk.",
            )
    reachable = "The repository must be reachable or in the hub's cache."
    return _Cause(_said(problem), reachable, is_remedy=False)


def _said(problem: BaseException) -> str:
    """The class and the first line of an error of another library."""
    return f"{type(problem).__name__}: {(str(problem).splitlines() or [''])[0][:160]}"


def _cache_folder(place: Weights) -> Path:
    from huggingface_hub import constants

    assert place.hub is not None, "a card gives 'hub' or 'path'"
    return Path(constants.HF_HUB_CACHE) / f"models--{place.hub.replace('/', '--')}"


def _absent(place: Weights) -> str:
    folder = _cache_folder(place)
    if not folder.is_dir():
        return f"there is no {folder}"
    return f"{folder} holds only a part of it or another revision"


def _copy(place: Weights) -> str:
    revision = f" --revision {place.revision}" if place.revision else ""
    return (
        f"It must lie in that folder. Run `hf download {place.hub}{revision}` on a machine that "
        "reaches the hub, and copy the folder of that name from its cache to here."
    )
