"""Which namespaces may use which credentials, as an annotation of these lists them. Pure.

The annotation stands on the Secret or the ServiceAccount. Caches of a namespace may use credentials
that list the namespace or `*`; LocalModelCaches are the administrator's, and may use all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.credentials.settings import denied
from agent.structs.credentials import Unlisted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.credentials.secret_api import Secret, ServiceAccount

ANNOTATION = "serving.kserve.io/localmodel-namespaces"
_EVERY = "*"


def check_entry(namespace: str, secret: Secret, key: str, unlisted: Unlisted) -> None:
    """Raises DownloadError (Denied) unless a namespace may use this key of a secret.

    The keys of one secret may belong to several teams: an annotation that ends with `.` and the key
    overrides that of the secret.
    """
    where = f"the key {key!r} of {secret.where}"
    annotation = f"{ANNOTATION}.{key}"
    if annotation not in secret.annotations:
        annotation = ANNOTATION
    if _says(namespace, secret.annotations, where, annotation) is None:
        _check_unlisted(namespace, where, unlisted)


def check_account(
    namespace: str, account: ServiceAccount, secrets: Sequence[Secret], unlisted: Unlisted
) -> None:
    """Raises DownloadError (Denied) unless a namespace may use an account with its secrets.

    The account and each secret that list namespaces must list this one. The account's list also
    applies to its secrets without a list.
    """
    is_listed = _says(namespace, account.annotations, account.where)
    silent = [one.where for one in secrets if _says(namespace, one.annotations, one.where) is None]
    if not is_listed and (silent or not secrets):
        _check_unlisted(namespace, (*silent, account.where)[0], unlisted)


def _says(
    namespace: str, annotations: Mapping[str, str], where: str, annotation: str = ANNOTATION
) -> bool | None:
    """True if the namespace is listed, None if there is no list. Raises DownloadError otherwise."""
    if annotation not in annotations:
        return None
    listed = {name.strip() for name in annotations[annotation].split(",")}
    if listed.isdisjoint({_EVERY, namespace}):
        raise denied(
            f"{where} is not for the namespace {namespace}",
            f"whoever keeps it must list that in its annotation {annotation}, or name other "
            "credentials in the cache",
        )
    return True


def _check_unlisted(namespace: str, where: str, unlisted: Unlisted) -> None:
    if unlisted is Unlisted.REFUSE:
        raise denied(
            f"{where} does not say which namespaces may use it, so {namespace} may not",
            f"whoever keeps it must list them in the annotation {ANNOTATION}, separated by commas, "
            "or * for all",
        )
