"""What commands that speak to several repositories share: where each is, and which document is in which."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

import click

from server.config import Config
from xds.messages import DocumentRequest
from xds.values import is_oid

P = ParamSpec("P")
R = TypeVar("R")


def repositories_option(command: Callable[P, R]) -> Callable[P, R]:
    """`--repository`, which may be repeated."""
    return click.option(
        "--repository",
        "repositories",
        multiple=True,
        envvar="XDSI_REPOSITORY_URL",
        default=("http://127.0.0.1:8080/repository",),
        show_default=True,
        help="Endpoint, as OID=URL for the repository of that repositoryUniqueId, as URL for all others; may be repeated"
        " (environment: XDSI_REPOSITORY_URL, separated by spaces).",
    )(command)


def addresses(given: Iterable[str], config: Config) -> dict[str, str]:
    """The endpoints by repositoryUniqueId, those of the configuration too; "" is for all repositories that are not named."""
    found = config.repository.other_urls
    for one in given:
        unique_id, _, url = one.partition("=")
        if is_oid(unique_id) and url:
            found[unique_id] = url
        else:
            found[""] = one
    return found


def document_request(text: str, repository_unique_id: str) -> DocumentRequest:
    """`UNIQUE_ID`, which is in the repository given, or `REPOSITORY_OID/UNIQUE_ID`."""
    before, _, after = text.partition("/")
    if after and is_oid(before):
        return DocumentRequest(repository_unique_id=before, document_unique_id=after)
    return DocumentRequest(repository_unique_id=repository_unique_id, document_unique_id=text)
