"""STOW-RS on a disk that fails: what was acknowledged is there, what was not is not, by half or whole."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.dicomweb import STUDY, Answer, ask, ct, multipart
from torture.serving import Disk, Server, compiled


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    try:
        library = compiled(tmp_path_factory.mktemp("faults"))
    except FileNotFoundError as error:
        pytest.fail(str(error)) if os.environ.get("CI") else pytest.skip(str(error))
    return Disk(tmp_path_factory.mktemp("failing") / "data", library)


@pytest.fixture(scope="module")
def server(disk: Disk) -> Iterator[Server]:
    server = Server(disk.below.parent, "", "--actors", "imaging", disk=disk)
    server.start()
    try:
        yield server
    finally:
        server.end()


def store(server: Server, parts: list[bytes]) -> Answer:
    body, content_type = multipart(parts)
    return ask(f"{server.url}/dicomweb/studies", method="POST", body=body, Content_Type=content_type)


@pytest.mark.parametrize(
    ("rule", "status", "words"),
    [
        ("ENOSPC write * imaging/staging", 503, "there is no room for the message; nothing of it is stored"),
        ("ENOSPC create 2 imaging/staging", 503, "there is no room for the message; nothing of it is stored"),
        ("EIO write * imaging/staging", 500, "internal error; the server's log has it as incident"),
        ("ENOSPC rename * imaging/", 409, '"00081197":{"vr":"US","Value":[42752]}'),
        ("EIO rename * imaging/", 409, '"00081197":{"vr":"US","Value":[42752]}'),
        ("ENOSPC write * imaging.sqlite", 409, '"00081197":{"vr":"US","Value":[272]}'),
        ("EIO sync * imaging.sqlite", 409, '"00081197":{"vr":"US","Value":[272]}'),
    ],
)
def test_a_fault_of_the_disk_is_told_and_leaves_nothing_by_half(
    server: Server, disk: Disk, rule: str, status: int, words: str
) -> None:
    """PS3.18 table I.2-2: 0xA700 is out of resources, 0x0110 a processing failure."""
    disk.fail(rule)
    try:
        answer = store(server, ct(3))
    finally:
        disk.work()
    assert (answer.status, words in answer.text) == (status, True), answer.text
    assert ask(f"{server.url}/dicomweb/studies").status == 204
    left = [path for path in (server.data / "imaging").rglob("*") if path.is_file()]
    assert left == []


def test_what_one_fault_spared_is_stored_and_what_is_stored_is_whole(server: Server, disk: Disk) -> None:
    disk.fail("ENOSPC rename 2 imaging/")
    try:
        answer = store(server, ct(3))
    finally:
        disk.work()
    assert (answer.status, len(answer.json["00081199"]["Value"]), len(answer.json["00081198"]["Value"])) == (202, 2, 1)
    found = [content for _, content in ask(f"{server.url}/dicomweb/studies/{STUDY}").parts]
    assert found == [ct(3)[0], ct(3)[2]]
    assert store(server, ct(3)).status == 200
    assert [content for _, content in ask(f"{server.url}/dicomweb/studies/{STUDY}").parts] == ct(3)


def test_what_was_acknowledged_outlives_the_power(server: Server, disk: Disk) -> None:
    study = f"{STUDY}.8"
    sent = ct(3, study_instance_uid=study, series_instance_uid=f"{study}.1")
    assert store(server, sent).status == 200
    disk.fail("POWER any 1 imaging")
    try:
        with pytest.raises(OSError):
            store(server, ct(1, study_instance_uid=f"{STUDY}.9", series_instance_uid=f"{STUDY}.9.1"))
        server.is_dead()
    finally:
        disk.work()
    server.start()
    assert [content for _, content in ask(f"{server.url}/dicomweb/studies/{study}").parts] == sent
    assert ask(f"{server.url}/dicomweb/studies/{STUDY}.9").status == 404
