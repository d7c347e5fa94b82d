"""The failure for URIs that no source fetches: what they are, and what to do instead."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agent.structs.failures import DownloadError, FailureKind, public_uri, scheme

if TYPE_CHECKING:
    from collections.abc import Collection

_IMAGE = (
    "a model in an OCI image: let the service name that URI itself as its storageUri, without a "
    "cache, and the node keeps the image"
)
_REPOSITORY = (
    "a Git repository: name an archive of a release that its server offers (https://…/v1.tar.gz)"
)
# By the part of the scheme before a `+`.
_WHAT_IT_IS = {
    "git": _REPOSITORY,
    "model-registry": (
        "a name of Kubeflow's Model Registry: use the URI that the registry has for its artifact"
    ),
    "modelscope": "a model of ModelScope: if the Hugging Face Hub has it too, use hf://",
    "oci": _IMAGE,
}
_WEB = ("http", "https")


def is_repository(uri: str) -> bool:
    """Whether a web address is that of a Git repository, which KServe would clone."""
    if scheme(uri) not in _WEB:
        return False
    try:
        return urlsplit(uri).path.rstrip("/").endswith(".git")
    except ValueError:
        return False


def unfetched(uri: str, schemes: Collection[str]) -> DownloadError:
    """The failure (Unsupported) for a URI. `schemes` are those that the agent fetches."""
    name = scheme(uri) if "://" in uri else ""
    known = _REPOSITORY if is_repository(uri) else _WHAT_IT_IS.get(name.partition("+")[0])
    meant = get_close_matches(name, schemes, n=1) if name else []
    works = ", ".join(f"{name}://" for name in sorted(schemes))
    if known:
        hint = f" That is {known}. Otherwise"
    elif meant:
        hint = f" If {meant[0]}:// was meant, create a cache with that. Otherwise"
    else:
        hint = " So"
    return DownloadError(
        FailureKind.UNSUPPORTED,
        f"this agent cannot fetch {public_uri(uri)}: it fetches {works}.{hint} copy the model to "
        "one of these, and create a cache with that sourceModelUri",
    )
