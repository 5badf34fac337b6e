"""The only place that knows spyne: it declares a service's operations, finds the one that a message asks for, and runs it.

spyne dispatches and fires its events (method_call, method_return_object, method_exception_object); our protocol class in between
takes a parsed envelope and gives a Reply, so that bodies stay lxml elements and attachments stay on disk.
"""

from __future__ import annotations

import importlib
import logging
import sys
import types
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import six


def _replace_spynes_six() -> None:
    """spyne 2.14 carries a six from before Python 3.12, whose import hook no longer works: PyPI's takes its place."""
    module = types.ModuleType("spyne.util.six")
    module.__dict__.update({name: value for name, value in vars(six).items() if name not in ("__name__", "__spec__")})
    module.__dict__["get_function_name"] = lambda function: function.__name__
    sys.modules.setdefault(module.__name__, module)
    for name in list(sys.modules):
        if name == "six.moves" or name.startswith("six.moves."):
            sys.modules.setdefault(f"spyne.util.{name}", sys.modules[name])


for _name in (
    "collections_abc",
    "urllib",
    "urllib.parse",
    "urllib.request",
    "urllib.error",
    "http_cookies",
    "http_client",
):
    importlib.import_module(f"six.moves.{_name}")
_replace_spynes_six()

from spyne import Application, Fault, MethodContext, ServiceBase, const, rpc  # noqa: E402
from spyne.model.primitive import AnyXml  # noqa: E402
from spyne.protocol.soap import Soap12  # noqa: E402
from spyne.server import ServerBase  # noqa: E402

from soap import addressing, xop  # noqa: E402
from soap.envelope import Envelope  # noqa: E402
from soap.fault import SoapFault, sender  # noqa: E402
from soap.operations import Call, Operation, Reply, Service  # noqa: E402
from xds.messages import Document  # noqa: E402

_log = logging.getLogger("xdsi.soap")
# spyne logs every fault with its traceback; what matters of it is logged here.
logging.getLogger("spyne").setLevel(logging.CRITICAL + 1)


# spyne would collect all garbage of the process once a second, in the middle of a request.
const.MIN_GC_INTERVAL = float("inf")


@dataclass(frozen=True, slots=True)
class Message:
    """A received message: its envelope, its parts but the root, and whether it came as multipart."""

    envelope: Envelope
    documents: Mapping[str, Document]
    mtom: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply with what its headers must say."""

    operation: Operation
    relates_to: str | None
    reply: Reply


class _Carried(Fault):  # type: ignore[misc]
    """A SoapFault on its way through spyne, which masks every other exception."""

    def __init__(self, fault: SoapFault) -> None:
        super().__init__("Client", fault.reason)
        self.fault = fault


class _Elements(Soap12):  # type: ignore[misc]
    """SOAP 1.2 with bodies that stay lxml elements: ctx.in_document is a Message, ctx.out_document a Reply."""

    def __init__(self, operations: Mapping[str, Operation], strict: bool) -> None:
        super().__init__()
        self._operations, self._strict = operations, strict

    def create_in_document(self, ctx: Any, in_string_encoding: str | None = None) -> None:
        """The transport has put the Message there."""

    def decompose_incoming_envelope(self, ctx: Any, message: str = Soap12.REQUEST) -> None:
        envelope: Envelope = ctx.in_document.envelope
        ctx.in_header_doc, ctx.in_body_doc = envelope.headers, envelope.body
        try:
            ctx.udc = addressing.read(envelope.headers)
        except SoapFault as fault:
            raise _Carried(fault) from None
        ctx.method_request_string = ctx.udc.action

    def get_call_handles(self, ctx: Any) -> list[Any]:
        """By wsa:Action, which the body element must fit: SOAPAction and the action parameter say nothing that counts."""
        action, element = ctx.udc.action, ctx.in_body_doc.tag
        operation = self._operations.get(action)
        if operation is None:
            reason = f"the action {action[:300]!r} is not supported at this endpoint"
            raise _Carried(SoapFault("Sender", reason, subcode="ActionNotSupported", problem_action=action[:300]))
        if element != operation.element and element not in operation.alternate_elements:
            raise _Carried(sender(f"the Body holds {element[:300]}; the action {action} demands {operation.element}"))
        if self._strict and ctx.in_document.mtom != operation.mtom:
            expected = "multipart/related (MTOM)" if operation.mtom else "a single XML entity"
            raise _Carried(sender(f"{operation.name} is packaged as {expected}, which the message is not"))
        return list(self.app.interface.service_method_map[f"{{{self.app.tns}}}{operation.name}"])

    def deserialize(self, ctx: Any, message: str) -> None:
        received: Message = ctx.in_document
        try:
            xop.check_references(ctx.in_body_doc, received.documents)
        except SoapFault as fault:
            raise _Carried(fault) from None
        ctx.in_object = Call(
            body=ctx.in_body_doc,
            documents=received.documents,
            message_id=ctx.udc.message_id,
            mtom=received.mtom,
        )

    def serialize(self, ctx: Any, message: str) -> None:
        ctx.out_document = ctx.out_object[0]

    def create_out_string(self, ctx: Any, out_string_encoding: str | None = None) -> None:
        ctx.out_string = ()


class _Transport(ServerBase):  # type: ignore[misc]
    transport = "http://schemas.xmlsoap.org/soap/http"


def _declare(operation: Operation) -> Any:
    """The operation as a method of a spyne service."""

    def run(ctx: Any, call: Any) -> Reply:
        try:
            return operation.answer(call)
        except SoapFault as fault:
            raise _Carried(fault) from None
        except Exception:
            incident = uuid.uuid4()
            _log.exception("incident %s in %s", incident, operation.name)
            raise _Carried(
                SoapFault("Receiver", f"internal error; the server's log has it as incident {incident}")
            ) from None

    run.__name__ = operation.name
    return rpc(AnyXml, _returns=AnyXml, _body_style="bare", _operation_name=operation.name)(run)


class Dispatcher:
    """A service's operations behind one address. `strict` refuses what is not packaged as its operation demands."""

    def __init__(self, service: Service, *, strict: bool = False) -> None:
        self.operations = {operation.action: operation for operation in service.operations}
        methods = {operation.name: _declare(operation) for operation in service.operations}
        spyne_service = type(ServiceBase)(service.name, (ServiceBase,), methods)
        application = Application(
            [spyne_service],
            tns=f"urn:xdsi:{service.name}",
            name=service.name,
            in_protocol=_Elements(self.operations, strict),
            out_protocol=_Elements(self.operations, strict),
        )
        self._server = _Transport(application)

    def dispatch(self, message: Message) -> Answer:
        """Runs what the message asks for. SoapFault where it asks for nothing that can be run, or running it failed."""
        context = running = MethodContext(self._server, MethodContext.SERVER)
        context.in_document = message
        try:
            running, *_ = self._server.generate_contexts(context)
            self._raise(running.in_error)
            self._server.get_in_object(running)
            self._raise(running.in_error)
            self._server.get_out_object(running)
            self._raise(running.out_error)
            self._server.get_out_string(running)
            return Answer(self.operations[running.udc.action], running.udc.message_id, running.out_document)
        finally:
            context.close()
            # They refer to themselves: what they hold, the whole message, would wait for the garbage collector.
            for one in (context, running):
                vars(one).clear()

    @staticmethod
    def _raise(error: Exception | None) -> None:
        try:
            if isinstance(error, _Carried):
                raise error.fault
            if error is not None:
                raise RuntimeError("spyne could not dispatch a message") from error
        finally:
            # What is raised knows this frame, which must not know it.
            del error
