"""RAD-55 WADO-URI over real HTTP (RAD TF-2 4.55, PS3.18 9)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import pytest
from PIL import Image

from server.embedded import serving
from tests.conftest import configured
from tests.dicomweb import SERIES, STUDY, Answer, ask, ct, read, sample

EXPLICIT = "1.2.840.10008.1.2.1"
FIRST = str(read(ct(1)[0]).SOPInstanceUID)


@pytest.fixture(scope="module")
def wado(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    config = configured(tmp_path_factory.mktemp("wado"))
    imaging = replace(config.imaging, max_side_px=1024)
    with serving(replace(config, server=replace(config.server, actors="imaging"), imaging=imaging)) as domain:
        for one in (*ct(1), sample("rtdose.dcm"), sample("test-SR.dcm"), sample("JPEG2000.dcm")):
            domain.parts["instances"].add_bytes(one)
        yield domain.endpoints["wado"]


def get(wado: str, accept: str = "*/*", **parameters: str) -> Answer:
    """A request for the CT image; parameters of the value "-" are left out."""
    given = {"requestType": "WADO", "studyUID": STUDY, "seriesUID": SERIES, "objectUID": FIRST} | parameters
    return ask(f"{wado}?{urlencode({name: value for name, value in given.items() if value != '-'})}", accept)


def of(name: str) -> dict[str, str]:
    dataset = read(sample(name))
    return {
        "studyUID": str(dataset.StudyInstanceUID),
        "seriesUID": str(dataset.SeriesInstanceUID),
        "objectUID": str(dataset.SOPInstanceUID),
    }


def test_an_object_comes_bit_for_bit(wado: str) -> None:
    for extra in ({}, {"transferSyntax": EXPLICIT}):
        answer = get(wado, contentType="application/dicom", **extra)
        assert (answer.status, answer.headers["content-type"], answer.body) == (200, "application/dicom", ct(1)[0])
    compressed = get(
        wado, contentType="application/dicom", transferSyntax="1.2.840.10008.1.2.4.91", **of("JPEG2000.dcm")
    )
    assert compressed.body == sample("JPEG2000.dcm")


def test_an_image_comes_as_a_picture_by_default_and_other_objects_as_dicom(wado: str) -> None:
    assert get(wado).headers["content-type"] == "image/jpeg"
    assert get(wado, **of("test-SR.dcm")).headers["content-type"] == "application/dicom"


@pytest.mark.parametrize(
    ("content_type", "accept", "given"),
    [
        ("image/png", "*/*", "image/png"),
        ("image/jpg", "image/jpeg", "image/jpeg"),
        ("application/jpeg", "*/*", "image/jpeg"),
        ("text/html,image/png", "*/*", "image/png"),
        ("image/png,image/jpeg", "image/jpeg", "image/jpeg"),
        ("application/dicom", "application/dicom, text/html", "application/dicom"),
    ],
)
def test_the_content_type_that_both_sides_have_is_given(wado: str, content_type: str, accept: str, given: str) -> None:
    answer = get(wado, accept, contentType=content_type)
    assert (answer.status, answer.headers["content-type"]) == (200, given)


def test_a_picture_has_the_size_and_part_that_are_asked_for(wado: str) -> None:
    def size(**parameters: str) -> tuple[int, int]:
        return Image.open(io.BytesIO(get(wado, **parameters).body)).size

    assert size() == (48, 64)
    assert size(rows="128") == (96, 128)
    assert size(columns="24") == (24, 32)
    assert size(rows="1024", columns="48") == (48, 64)
    assert size(region="0,0,0.5,0.25") == (24, 16)
    plain, windowed = (
        get(wado, contentType="image/png", **one).body for one in ({}, {"windowCenter": "-600", "windowWidth": "1500"})
    )
    assert plain != windowed
    assert len(get(wado, imageQuality="1").body) < len(get(wado, imageQuality="100").body)
    frames = [get(wado, contentType="image/png", frameNumber=number, **of("rtdose.dcm")).body for number in ("1", "15")]
    assert frames[0] != frames[1]


@pytest.mark.parametrize(
    ("parameters", "status", "words"),
    [
        ({"requestType": "-"}, 400, "requestType is ''; it must be WADO"),
        ({"requestType": "wado"}, 400, "requestType is 'wado'"),
        ({"studyUID": ""}, 404, "studyUID is missing or empty"),
        ({"seriesUID": "-"}, 404, "seriesUID is missing or empty"),
        ({"objectUID": "../../etc/passwd"}, 400, "objectUID '../../etc/passwd' is no UID"),
        ({"objectUID": "1.2.3"}, 404, "instance 1.2.3 is not stored here"),
        ({"studyUID": "1.2.3"}, 404, "is not in study 1.2.3"),
        ({"seriesUID": "1.2.3"}, 404, "is not in series 1.2.3"),
        ({"contentType": "video/mpeg"}, 406, "image/jpeg, image/png, application/dicom"),
        ({"contentType": "image/png", **of("test-SR.dcm")}, 406, "has application/dicom"),
        ({"contentType": "application/dicom", "rows": "10"}, 400, "rows does not go with the contentType"),
        ({"contentType": "application/dicom", "frameNumber": "1"}, 400, "frameNumber does not go with"),
        ({"transferSyntax": EXPLICIT}, 400, "transferSyntax does not go with the contentType image/jpeg"),
        ({"contentType": "application/dicom", "anonymize": "yes"}, 400, "cannot be de-identified here"),
        ({"contentType": "application/dicom", "transferSyntax": "x"}, 400, "transferSyntax 'x' is no UID"),
        (
            {"contentType": "application/dicom", "transferSyntax": "1.2.840.10008.1.2"},
            400,
            "must be neither Implicit VR nor Big Endian",
        ),
        (
            {"contentType": "application/dicom", "transferSyntax": "1.2.840.10008.1.2.4.100"},
            406,
            "cannot be given in 1.2.840.10008.1.2.4.100",
        ),
        ({"frameNumber": "2"}, 404, "has 1 frame, and no 2"),
        ({"frameNumber": "0"}, 400, "frameNumber is '0'"),
        ({"rows": "1000000000"}, 400, "rows is '1000000000'; it must be a whole number from 1 to 1024"),
        ({"columns": "-5"}, 400, "columns is '-5'"),
        ({"windowCenter": "40"}, 400, "windowCenter and windowWidth must come both or not at all"),
        ({"windowCenter": "x", "windowWidth": "400"}, 400, "window centre is 'x'; it must be a number"),
        ({"windowCenter": "40", "windowWidth": "0.5"}, 400, "window width is '0.5'; it must be at least 1"),
        ({"region": "0,0,2,1"}, 400, "it must be xmin,ymin,xmax,ymax, each from 0 to 1"),
        ({"region": "0.5,0,0.5,1"}, 400, "min below max"),
        ({"imageQuality": "0"}, 400, "imageQuality is '0'"),
        ({"annotation": "everything"}, 400, "annotation 'everything' is neither patient nor technique"),
        ({"presentationUID": "1.2.3"}, 400, "presentation states cannot be applied here"),
        ({"colour": "red"}, 400, "there is no parameter 'colour' here"),
    ],
)
def test_what_cannot_be_given_is_refused_with_its_reason(
    wado: str, parameters: dict[str, str], status: int, words: str
) -> None:
    answer = get(wado, **parameters)
    assert (answer.status, words in answer.text) == (status, True), answer.text


def test_an_accept_header_that_rules_out_the_content_type_is_refused(wado: str) -> None:
    answer = get(wado, "image/jpeg", contentType="application/dicom")
    assert (answer.status, "does not take the contentType application/dicom" in answer.text) == (406, True)


def test_a_missing_uid_is_a_bad_request_where_that_is_configured(tmp_path: Path) -> None:
    config = configured(tmp_path)
    imaging = replace(config.imaging, empty_uid=400)
    with serving(replace(config, server=replace(config.server, actors="imaging"), imaging=imaging)) as domain:
        assert get(domain.endpoints["wado"], studyUID="").status == 400
