"""Copies of documents as objects of an S3-compatible service, such as SeaweedFS, Ceph RGW or MinIO.

Nothing but PUT, GET, HEAD, LIST and DELETE is asked of it, and If-None-Match where it can be: an object is written once and never again.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from repository.files import checked
from xds.messages import Document

#: Larger documents are sent in parts of this size; then the service looks at no If-None-Match.
_PART_BYTES = 8 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_MAX_DELETED = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """An S3-compatible service. Without an access key, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment are used."""

    endpoint: str
    bucket: str
    prefix: str = ""
    region: str = "us-east-1"
    access_key_id: str = ""
    secret_access_key: str = ""
    timeout_s: float = 60.0


class Objects:
    """Copies as objects of a bucket."""

    name = "objects"

    def __init__(self, service: Service) -> None:
        credentials = {
            name: value
            for name, value in (
                ("access_key_id", service.access_key_id),
                ("secret_access_key", service.secret_access_key),
            )
            if value
        }
        timeout = timedelta(seconds=service.timeout_s)
        self._store = S3Store(
            service.bucket,
            endpoint=service.endpoint,
            region=service.region,
            prefix=service.prefix or None,
            virtual_hosted_style_request=False,
            client_options={
                "allow_http": service.endpoint.startswith("http://"),
                "timeout": timeout,
                "connect_timeout": timedelta(seconds=min(5.0, service.timeout_s)),
            },
            retry_config={"max_retries": 3, "retry_timeout": timeout},
            **credentials,  # type: ignore[arg-type]
        )

    def put(self, documents: Mapping[str, Document]) -> None:
        """As `Place.put`."""
        for name, document in documents.items():
            with _as_os_error():
                if document.size > _PART_BYTES:
                    obstore.put(
                        self._store,
                        name,
                        checked(document),
                        use_multipart=True,
                        chunk_size=_PART_BYTES,
                        max_concurrency=2,
                    )
                else:
                    self._put_whole(name, document)

    def _put_whole(self, name: str, document: Document) -> None:
        content = b"".join(checked(document))
        try:
            obstore.put(self._store, name, content, mode="create", use_multipart=False)
        except AlreadyExistsError:
            # Nobody else has this name: the answer to our own first attempt was lost.
            if obstore.head(self._store, name)["size"] != document.size:
                raise

    def remove(self, names: Collection[str]) -> None:
        """As `Place.remove`."""
        all_names = list(names)
        for start in range(0, len(all_names), _MAX_DELETED):
            with _as_os_error(), suppress(FileNotFoundError):
                obstore.delete(self._store, all_names[start : start + _MAX_DELETED])

    def chunks(self, name: str) -> Iterator[bytes]:
        """As `Place.chunks`."""
        with _as_os_error():
            for chunk in obstore.get(self._store, name).stream(min_chunk_size=_CHUNK_BYTES):
                yield bytes(chunk)

    def has(self, name: str) -> bool:
        """As `Place.has`."""
        with _as_os_error():
            try:
                obstore.head(self._store, name)
            except FileNotFoundError:
                return False
            return True

    def names(self) -> Iterator[str]:
        """As `Place.names`."""
        with _as_os_error():
            for page in obstore.list(self._store):
                for one in page:
                    yield one["path"]

    def path(self, name: str) -> None:
        """Objects have no files."""

    def check(self) -> None:
        """OSError where the service does not answer, or does not let us in."""
        self.has("0" * 32)


@contextmanager
def _as_os_error() -> Iterator[None]:
    """What the library raises, as OSError. Its text names the object and what the service said, and is for the log only."""
    try:
        yield
    except BaseError as error:
        said = " ".join(str(error).partition("Debug source")[0].split())
        raise OSError(errno.EREMOTEIO, said[:1000]) from error
