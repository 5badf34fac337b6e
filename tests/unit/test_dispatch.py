"""A message that has been answered is let go of at once: it may be large, and the next one comes (soap/server.py)."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

import pytest
from lxml import etree

from soap.envelope import parse
from soap.fault import SOAP12, WSA, SoapFault
from soap.operations import Call, Operation, Reply, Service
from soap.server import Dispatcher, Message


def answer(call: Call) -> Reply:
    if call.body.text == "broken":
        raise RuntimeError("nobody foresaw this")
    return Reply(body=[b"<answer/>"])


OPERATION = Operation(
    name="Ask",
    transaction="ITI-0",
    action="urn:example:ask",
    element="{urn:example}ask",
    reply_action="urn:r",
    mtom=False,
    answer=answer,
)


def message(text: str, action: str = "urn:example:ask") -> Message:
    content = (
        f'<s:Envelope xmlns:s="{SOAP12}" xmlns:a="{WSA}"><s:Header><a:Action s:mustUnderstand="true">{action}</a:Action>'
        f'<a:MessageID>urn:uuid:1</a:MessageID></s:Header><s:Body><ask xmlns="urn:example">{text}</ask></s:Body></s:Envelope>'
    )
    return Message(parse(content.encode()), {}, False)


def kept() -> int:
    return sum(isinstance(one, Message | Call | etree._Element) for one in gc.get_objects())


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(
    ("text", "action"), [("fine", "urn:example:ask"), ("broken", "urn:example:ask"), ("fine", "urn:example:other")]
)
@pytest.mark.usefixtures("no_collector")
def test_an_answered_message_does_not_wait_for_the_collector(
    text: str, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest keeps what is logged, and with it the frames of an exception.
    monkeypatch.setattr(logging.getLogger("xdsi.soap"), "disabled", True)
    dispatcher = Dispatcher(Service(name="Example", operations=(OPERATION,), describe=lambda *_: None))
    before = kept()
    for _ in range(3):
        try:
            dispatcher.dispatch(message(text, action))
        except SoapFault as fault:
            assert "internal error" in fault.reason or "urn:example:other" in fault.reason
    assert kept() == before
