"""The Query/Retrieve SCP (PS3.4 Annex C, IHE RAD-14 and RAD-16): Study Root and Patient Root, over what is stored here.

It is for an association that the Storage SCP has accepted, and knows no users.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context, evt
from pynetdicom.dimse_primitives import C_FIND, C_GET, C_MOVE
from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import ServiceClass
from pynetdicom.sop_class import _SERVICE_CLASSES

from imaging.archive.association import Peer
from imaging.dimse import of_service
from imaging.instances import Instance, Instances
from imaging.pixels.transfer import Transfer
from imaging.publication.rejections import Rejected
from imaging.query_retrieve import answers, identifiers
from imaging.query_retrieve.answers import Exchange, NobodyWaits, Tally
from imaging.query_retrieve.choosing import MAX_INSTANCES, TooMany, choose
from imaging.query_retrieve.finding import find
from imaging.query_retrieve.identifiers import Asked, Root, WrongIdentifier
from imaging.query_retrieve.retrieving import Retrieving
from imaging.query_retrieve.sending import ConnectionEnded

_log = logging.getLogger("xdsi.imaging")
_P = "1.2.840.10008.5.1.4.1.2."
#: SOP classes (PS3.4 C.6): their information model, and their service.
MODELS: Mapping[UID, tuple[Root, type[C_FIND] | type[C_MOVE] | type[C_GET]]] = {
    UID(f"{_P}1.1"): ("patient", C_FIND),
    UID(f"{_P}1.2"): ("patient", C_MOVE),
    UID(f"{_P}1.3"): ("patient", C_GET),
    UID(f"{_P}2.1"): ("study", C_FIND),
    UID(f"{_P}2.2"): ("study", C_MOVE),
    UID(f"{_P}2.3"): ("study", C_GET),
}
_EVENTS: dict[type, evt.InterventionEvent] = {C_FIND: evt.EVT_C_FIND, C_MOVE: evt.EVT_C_MOVE, C_GET: evt.EVT_C_GET}
#: By which pynetdicom knows our service, derived from a UUID (PS3.5 B.2). It is on no wire.
_SERVICE = UID("2.25.292080141940937881957395280807716843485")
_ELSEWHERE = "it failed; the log of the server says why"


class _Service(ServiceClass):
    """pynetdicom's own would have each data set in memory, and encode it anew."""

    def SCP(self, req: Any, context: PresentationContext) -> None:  # noqa: N802 - pynetdicom's name
        _, service = MODELS[UID(str(context.abstract_syntax))]
        if not isinstance(req, service):
            raise ValueError("the request is none of its presentation context")
        told = {"request": req, "context": context.as_tuple, "_is_cancelled": self.is_cancelled}
        evt.trigger(self.assoc, _EVENTS[service], told)


_SERVICE_CLASSES[_SERVICE] = _Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`ae_title` is ours; `peers` are where a C-MOVE may send, by AE title; `max_results` bounds the matches of one C-FIND.

    `timeout_s` is how long it is waited for the one who takes an instance.
    """

    ae_title: str
    peers: Mapping[str, tuple[str, int]]
    max_results: int
    timeout_s: float


class QueryRetrieve:
    """The SCP. Every association is served by a thread of its own."""

    def __init__(self, instances: Instances, transfer: Transfer, rejected: Rejected, settings: Settings) -> None:
        self._instances, self._transfer, self._rejected, self._settings = instances, transfer, rejected, settings
        self._directory = instances.staging

    @property
    def handlers(self) -> list[evt.EventHandlerType]:
        return [(evt.EVT_C_FIND, self._find), (evt.EVT_C_MOVE, self._move), (evt.EVT_C_GET, self._get)]

    def contexts(self) -> list[PresentationContext]:
        """What can be asked for. Identifiers are small, and come in no syntax that could inflate them."""
        return [build_context(uid, [ExplicitVRLittleEndian, ImplicitVRLittleEndian]) for uid in MODELS]

    def services(self) -> dict[UID, SOPClassCommonExtendedNegotiation]:
        """By which pynetdicom gives these requests to us."""
        return {uid: of_service(uid, _SERVICE) for uid in MODELS}

    def _find(self, event: evt.Event) -> None:
        self._answered(event, self._found)

    def _move(self, event: evt.Event) -> None:
        self._answered(event, self._moved)

    def _get(self, event: evt.Event) -> None:
        self._answered(event, self._got)

    def _answered(self, event: evt.Event, answer: Callable[[Exchange, Asked], None]) -> None:
        """Answers; whatever goes wrong is answered, too."""
        exchange = Exchange(event, timeout_s=self._settings.timeout_s)
        root, _ = MODELS[UID(str(event.context.abstract_syntax))]
        try:
            self._attempt(exchange, root, answer)
        except (ConnectionEnded, NobodyWaits) as error:
            _log.warning("a request of %r was not answered to its end: %s", exchange.caller, error)
            exchange.association.abort()

    def _attempt(self, exchange: Exchange, root: Root, answer: Callable[[Exchange, Asked], None]) -> None:
        try:
            answer(exchange, _read(exchange, root))
        except (ConnectionEnded, NobodyWaits):
            raise
        except WrongIdentifier as error:
            # The reason may have a value of what was asked for in it.
            _log.info("a request of %r was refused: its identifier fits no level", exchange.caller)
            exchange.respond(answers.DOES_NOT_MATCH, str(error))
        except TooMany:
            exchange.respond(answers.CANNOT_COUNT, f"more than {MAX_INSTANCES} instances; ask for less")
        except Exception as error:
            # What was asked for is of patients, and in the text of some errors.
            _log.error("a request of Query/Retrieve failed: %s", type(error).__name__)
            exchange.respond(answers.UNABLE_TO_PROCESS, _ELSEWHERE)

    def _found(self, exchange: Exchange, asked: Asked) -> None:
        settings = self._settings
        matches = find(
            asked,
            reading=self._instances.reading,
            rejected=self._rejected,
            most=settings.max_results,
            ae_title=settings.ae_title,
        )
        pending = answers.PENDING_IN_PART if matches.partial else answers.PENDING
        for sent, match in enumerate(matches.found):
            if exchange.is_cancelled:
                _log.info("C-FIND of %r: cancelled after %d matches", exchange.caller, sent)
                exchange.respond(answers.CANCELLED)
                return
            exchange.respond(pending, identifier=match)
        more = "more" if matches.more else "all"
        _log.info("C-FIND of %r at %s level: %d matches (%s)", exchange.caller, asked.level, matches.count, more)
        if matches.more:
            exchange.respond(answers.OUT_OF_RESOURCES, f"there are more than these {settings.max_results} matches")
        else:
            exchange.respond(answers.SUCCESS)

    def _moved(self, exchange: Exchange, asked: Asked) -> None:
        settings, destination = self._settings, exchange.destination
        if destination not in settings.peers:
            _log.warning("C-MOVE of %r: imaging.dimse_peers does not say where %r is", exchange.caller, destination)
            exchange.respond(answers.DESTINATION_UNKNOWN, f"{destination} is unknown here")
            return
        host, port = settings.peers[destination]
        peer = Peer(ae_title=destination, host=host, port=port, calling=settings.ae_title, timeout_s=settings.timeout_s)
        if (retrieving := self._retrieving(exchange, asked)) is not None:
            retrieving.move(peer, self._directory)

    def _got(self, exchange: Exchange, asked: Asked) -> None:
        if (retrieving := self._retrieving(exchange, asked)) is not None:
            retrieving.get()

    def _retrieving(self, exchange: Exchange, asked: Asked) -> Retrieving | None:
        """None where there is nothing to be sent, which is answered."""
        chosen: list[Instance] = choose(asked, instances=self._instances, rejected=self._rejected)
        if not chosen:
            _log.info("a retrieval of %r at %s level: nothing is stored of it", exchange.caller, asked.level)
            exchange.respond(answers.SUCCESS, tally=Tally(remaining=0))
            return None
        return Retrieving(exchange, chosen, self._transfer, timeout_s=self._settings.timeout_s)


def take_roles(contexts: list[PresentationContext]) -> list[PresentationContext]:
    """Storage in either role, as the peer likes: who sends C-GET is sent instances."""
    for one in contexts:
        one.scu_role = one.scp_role = True
    return contexts


def _read(exchange: Exchange, root: Root) -> Asked:
    try:
        identifier = exchange.identifier
    except Exception:  # readers raise anything on hostile bytes
        raise WrongIdentifier("the identifier cannot be read") from None
    return identifiers.read(identifier, root)
