"""ITI-64 Notify XAD-PID Link Change: the message, its event, and its refusals. What the registry does with it is tested elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from feeds import adt
from feeds.adt import Authority
from xds.patients import LinkChanged, PatientEvent
from xds.problems import ErrorCode, fail
from xds.transactions import Feed
from xds.values import Identifier

OURS = (Authority(namespace="AFF", universal_id="1.2.3.4"),)
X1, X2 = "x1^^^&1.2.3.4&ISO", "x2^^^&1.2.3.4&ISO"
L1, L2 = "l1^^^&2.6.7&ISO", "l2^^^&2.6.7&ISO"


def notification(pid_3: str, mrg_1: str | None) -> bytes:
    lines = [
        "MSH|^~\\&|XREF|NORTH|XDSREG|AFFDOM|20240102030405||ADT^A43^ADT_A43|MSG1|P|2.5",
        "EVN|A43|20240102030405",
        f"PID|||{pid_3}||Muster^Ann",
        *([] if mrg_1 is None else [f"MRG|{mrg_1}"]),
    ]
    return "".join(f"{line}\r" for line in lines).encode()


def ask(message: bytes, feed: Feed, authorities: tuple[Authority, ...] = OURS) -> list[str]:
    reply = adt.answer(
        message,
        feed=feed,
        authorities=authorities,
        now=lambda: datetime(2024, 1, 2, 3, 4, 6, tzinfo=UTC),
        new_control_id=lambda: "ACK1",
    )
    return reply.decode().split("\r")[:-1]


@pytest.mark.parametrize(
    ("new", "old"),
    [((X2, L1), (X1, L1)), ((X2, L2), (X1, L1)), ((X1, L2), (X1, L1))],
    ids=["link change", "merge over XAD-PIDs", "merge inside one XAD-PID"],
)
@pytest.mark.parametrize("order", [1, -1])
def test_the_xad_pid_is_told_from_the_local_id_by_its_authority(
    new: tuple[str, str], old: tuple[str, str], order: int
) -> None:
    """ITI-64: PID-3 `new XAD-PID ~ new local id`, MRG-1 the old ones, in either order."""
    events: list[PatientEvent] = []
    assert ask(notification("~".join(new[::order]), "~".join(old[::-order])), events.append) == [
        "MSH|^~\\&|XDSREG|AFFDOM|XREF|NORTH|20240102030406||ACK^A43|ACK1|P|2.5",
        "MSA|AA|MSG1",
    ]
    assert events == [
        LinkChanged(
            patient_id=Identifier(new[0]),
            source_patient_id=Identifier(new[1]),
            old_patient_id=Identifier(old[0]),
            old_source_patient_id=Identifier(old[1]),
        )
    ]


def test_the_namespace_of_our_authority_is_enough() -> None:
    events: list[PatientEvent] = []
    assert ask(notification(f"{L1}~x2^^^AFF", f"x1^^^AFF~{L1}"), events.append)[1] == "MSA|AA|MSG1"
    assert [(one.patient_id, one.old_patient_id) for one in events if isinstance(one, LinkChanged)] == [(X2, X1)]


@pytest.mark.parametrize(
    ("pid_3", "mrg_1", "place"),
    [
        (L1, f"{X1}~{L1}", "PID^1^3^204"),
        (X2, f"{X1}~{L1}", "PID^1^3^204"),
        (f"{X2}~{L1}", X1, "MRG^1^1^204"),
        (f"{X2}~{L1}", L1, "MRG^1^1^204"),
        (f"{X2}~{L1}~{L2}", f"{X1}~{L1}", "PID^1^3^102"),
        (f"{X2}~{X1}~{L1}", f"{X1}~{L1}", "PID^1^3^102"),
        (f"{X2}~{L1}", f"{X1}~{L1}~{L2}", "MRG^1^1^102"),
        ("", f"{X1}~{L1}", "PID^1^3^101"),
        (f"{X2}~{L1}", "", "MRG^1^1^101"),
        (f"{X2}~{L1}", None, "MRG^1^0^100"),
    ],
)
def test_a_notification_without_one_id_of_each_kind_is_refused(pid_3: str, mrg_1: str | None, place: str) -> None:
    events: list[PatientEvent] = []
    _, msa, err = ask(notification(pid_3, mrg_1), events.append)
    assert msa.startswith("MSA|AE|MSG1|")
    assert (err, events) == (f"ERR|{place}", [])


def test_an_xad_pid_that_the_registry_does_not_know_is_refused_at_pid_3() -> None:
    """ITI-64: the new XAD-PID came by ITI-8 or ITI-44 before."""

    def refuse(event: PatientEvent) -> None:
        assert isinstance(event, LinkChanged)
        raise fail(ErrorCode.UNKNOWN_PATIENT_ID, f"patient {event.patient_id.identifier} is not known to this registry")

    assert ask(notification(f"{X2}~{L1}", f"{X1}~{L1}"), refuse)[1:] == [
        "MSA|AE|MSG1|patient x2 is not known to this registry",
        "ERR|PID^1^3^204",
    ]


def test_without_configured_authorities_nobody_can_tell_the_ids_apart() -> None:
    events: list[PatientEvent] = []
    _, msa, err = ask(notification(f"{X2}~{L1}", f"{X1}~{L1}"), events.append, ())
    assert "no assigning authority is configured" in msa
    assert (err, events) == ("ERR|PID^1^3^204", [])
