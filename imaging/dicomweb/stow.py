"""RAD-108 STOW-RS: storing instances (PS3.18 10.5). A message that cannot be read to its end stores nothing."""

from __future__ import annotations

import errno
import json
import logging
import uuid
from collections.abc import Callable

from pydicom.dataset import Dataset

from imaging.dicom_json import Json, texts
from imaging.dicomweb.resources import JSON, Refusal, Request, one_of, reply
from imaging.dicomweb.wado_rs import DICOM, url_of
from imaging.instances import DifferentInstance, Instance, InstanceError, Instances, read_header
from soap import multipart
from soap.multipart import MultipartError, MultipartReader
from soap.operations import Limits
from soap.replying import HttpReply
from soap.spool import Sink, Spool
from xds.messages import Document

_log = logging.getLogger("xdsi.imaging")
# PS3.18 table I.2-2
_PROCESSING_FAILURE = 0x0110
_OUT_OF_RESOURCES = 0xA700
_NOT_OF_THIS_STUDY = 0xA900
_CANNOT_UNDERSTAND = 0xC000


class Storing:
    """Takes the body of one request: each part goes to a file; `answer` stores them all."""

    def __init__(self, request: Request, *, instances: Instances, limits: Limits) -> None:
        one_of(request, (JSON, "application/json"))
        request.parameters(())
        self._request, self._instances, self._limits = request, instances, limits
        self._reader = MultipartReader(_boundary(request.content_type), limits)
        # Every part becomes a file: what stores an instance takes one.
        self._spool = Spool(instances.staging, memory_bytes=0)
        self._parts: list[Document | str] = []
        self._sink: Sink | None = None
        self._received = 0

    def receive_data(self, data: bytes) -> None:
        """The next bytes of the body. Refusal or SoapFault where a limit is passed or it is no multipart."""
        self._received += len(data)
        if self._received > self._limits.message_bytes:
            raise Refusal(413, f"the message is larger than the limit of {self._limits.message_bytes} bytes")
        try:
            for event in self._reader.receive_data(data):
                self._handle(event)
        except MultipartError as error:
            raise Refusal(error.http_status, str(error)) from None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise Refusal(503, "there is no room for the message; nothing of it is stored") from error

    def answer(self) -> HttpReply:
        """The response module (PS3.18 annex I): 200 where all is stored, 202 where some, 409 where nothing is."""
        try:
            self._reader.receive_eof()
        except MultipartError as error:
            raise Refusal(400, str(error)) from None
        if not self._parts:
            raise Refusal(400, "the message has no parts: there is nothing to store")
        stored: list[Json] = []
        failed: list[Json] = []
        unknown: list[Json] = []
        studies: dict[str, None] = {}
        for part in self._parts:
            if isinstance(part, str):
                unknown.append(_failure(_CANNOT_UNDERSTAND, part))
                continue
            result, known = self._store(part)
            if isinstance(result, Instance):
                studies[result.study_instance_uid] = None
                stored.append({**known, "00081190": texts("UR", [url_of(self._request.base, result)])})
            else:
                (failed if known else unknown).append({**known, **result})
        answer: Json = {}
        if len(studies) == 1:
            answer["00081190"] = texts("UR", [f"{self._request.base}/studies/{next(iter(studies))}"])
        for tag, items in (("00081198", failed), ("00081199", stored), ("0008119A", unknown)):
            if items:
                answer[tag] = texts("SQ", items)
        status = 200 if not failed and not unknown else 202 if stored else 409
        return reply(json.dumps(answer, separators=(",", ":")).encode(), JSON, status=status)

    def close(self) -> None:
        """Removes what is left of the parts."""
        self._spool.close()

    def _handle(self, event: multipart.Event) -> None:
        match event:
            case multipart.PartBegin(headers, _):
                given = headers.get("content-type", DICOM)
                if multipart.parse_content_type(given).media_type != DICOM:
                    self._parts.append(f"a part of the media type {given[:40]!r}, not {DICOM}")
                    return
                self._sink = self._spool.sink(
                    name=f"number {len(self._parts) + 1}",
                    mime_type=DICOM,
                    transfer_encoding=headers.get("content-transfer-encoding", ""),
                    max_bytes=self._limits.document_bytes,
                )
            case multipart.PartData(data) if self._sink is not None:
                self._sink.write(data)
            case multipart.PartEnd() if self._sink is not None:
                self._parts.append(self._sink.close())
                self._sink = None
            case _:
                pass

    def _store(self, part: Document) -> tuple[Instance | Json, Json]:
        """The stored instance or why it is not, and which it is: nothing where that cannot be read."""
        known: Json = {}
        if part.path is None:
            return _failure(_CANNOT_UNDERSTAND, "it is empty"), known
        try:
            header = read_header(part.path)
            known, study = _identified(header)
            wanted = self._request.place.get("study", study)
            if study != wanted:
                return _failure(_NOT_OF_THIS_STUDY, "it is of another study than the one posted to"), known
            stored, _ = self._instances.take(part.path, header, size=part.size, sha1=part.sha1)
            return stored, known
        except DifferentInstance as error:
            return _failure(_PROCESSING_FAILURE, error.short), known
        except InstanceError as error:
            return _failure(_PROCESSING_FAILURE if known else _CANNOT_UNDERSTAND, str(error)), known
        except OSError:
            _log.exception("an instance could not be stored")
            return _failure(_OUT_OF_RESOURCES, "there is no room, or the disk fails"), known
        except Exception:
            incident = uuid.uuid4()
            _log.exception("incident %s in RAD-108", incident)
            text = f"internal error; the server's log has it as incident {incident}"
            return _failure(_PROCESSING_FAILURE, text), known


def storing(*, instances: Instances, limits: Limits) -> Callable[[Request], Storing]:
    """What takes the body of each request."""
    return lambda request: Storing(request, instances=instances, limits=limits)


def _boundary(content_type: str) -> str:
    try:
        parsed = multipart.parse_content_type(content_type)
    except MultipartError:
        raise Refusal(415, f"Content-Type is {content_type[:80]!r}; it must be multipart/related") from None
    part_type = parsed.parameters.get("type", DICOM).lower()
    if parsed.media_type != "multipart/related" or part_type != DICOM:
        raise Refusal(415, f'Content-Type is {content_type[:120]!r}; it must be multipart/related; type="{DICOM}"')
    if not parsed.parameters.get("boundary"):
        raise Refusal(400, "Content-Type has no parameter boundary")
    return parsed.parameters["boundary"]


def _identified(header: Dataset) -> tuple[Json, str]:
    """SOP class and instance as items of the answer name them, and the study."""
    sop_class, sop_instance = (str(header.get(one) or "") for one in ("SOPClassUID", "SOPInstanceUID"))
    if not sop_instance:
        return {}, str(header.get("StudyInstanceUID") or "")
    named = {"00081150": texts("UI", [sop_class] if sop_class else []), "00081155": texts("UI", [sop_instance[:64]])}
    return named, str(header.get("StudyInstanceUID") or "")


def _failure(reason: int, text: str) -> Json:
    """A reason, and in words, as Error Comment: the table has no attribute for them, but others answer so too."""
    return {"00000902": texts("LO", [text[:64]]), "00081197": texts("US", [reason])}
