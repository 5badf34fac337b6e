"""RAD-107 WADO-RS over real HTTP, on synthetic and real objects (PS3.18 10.4)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

from imaging.dicomweb.resources import Refusal, Request
from imaging.dicomweb.wado_rs import finding, retrieve
from imaging.instances import Instance, Instances
from imaging.pixels.frames import Decoding, Frames
from imaging.pixels.recoding import Recoder
from imaging.pixels.transfer import Transfer
from server.compose import Domain
from server.embedded import serving
from tests.conftest import configured
from tests.dicomweb import SERIES, STUDY, ask, ct, encoded, read, sample
from xds.messages import Document

EXPLICIT = "1.2.840.10008.1.2.1"
AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
FRAMES_AS_STORED = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
SAMPLES = (
    "JPEG2000.dcm",
    "SC_rgb_rle_2frame.dcm",
    "test-SR.dcm",
    "rtdose.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "image_dfl.dcm",
)
PAGES = "https://viewer.example.org"


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    config = configured(tmp_path_factory.mktemp("wado"))
    imaging = replace(config.imaging, cors_origins=PAGES, max_side_px=1024)
    config = replace(config, server=replace(config.server, actors="imaging"), imaging=imaging)
    with serving(config) as served:
        for one in (*ct(3), *map(sample, SAMPLES)):
            served.parts["instances"].add_bytes(one)
        yield served


@pytest.fixture(scope="module")
def web(domain: Domain) -> str:
    return domain.endpoints["dicomweb"]


def path_of(dataset: Dataset) -> str:
    return f"/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}/instances/{dataset.SOPInstanceUID}"


def at(web: str, name: str) -> str:
    return web + path_of(read(sample(name)))


FIRST = path_of(read(ct(3)[0]))


@pytest.mark.parametrize("path", [f"/studies/{STUDY}", f"/studies/{STUDY}/series/{SERIES}"])
@pytest.mark.parametrize("accept", ["", "*/*", AS_STORED, "multipart/related; type=application/dicom"])
def test_all_instances_come_in_order_bit_for_bit(web: str, path: str, accept: str) -> None:
    answer = ask(web + path, accept)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith('multipart/related; type="application/dicom"; boundary=')
    assert [content for _, content in answer.parts] == ct(3)
    assert {kind for kind, _ in answer.parts} == {f'application/dicom; transfer-syntax="{EXPLICIT}"'}


def test_one_instance_may_come_without_multipart(web: str) -> None:
    answer = ask(web + FIRST, "application/dicom")
    assert (answer.status, answer.body) == (200, ct(3)[0])
    assert answer.headers["content-type"] == f"application/dicom; transfer-syntax={EXPLICIT}"
    assert answer.headers["content-length"] == str(len(answer.body))


@pytest.mark.parametrize("name", ["rtdose.dcm", "image_dfl.dcm"])
def test_uncompressed_pixels_come_in_explicit_little_endian(web: str, name: str) -> None:
    """Implicit VR is not for the web (PS3.18 8.7.3.5.2): not even as it is stored."""
    ((_, content),) = ask(at(web, name)).parts
    assert read(content).file_meta.TransferSyntaxUID == EXPLICIT
    assert read(content).PixelData == read(sample(name)).PixelData


@pytest.mark.parametrize("name", ["JPEG2000.dcm", "SC_rgb_rle_2frame.dcm", "SC_rgb_jpeg_dcmtk.dcm"])
def test_compressed_objects_come_as_they_are_stored_where_that_is_taken(web: str, name: str) -> None:
    stored = read(sample(name)).file_meta.TransferSyntaxUID
    own = f'multipart/related; type="application/dicom"; transfer-syntax={stored}'
    for accept in (AS_STORED, own, f"{own}, text/html"):
        assert [content for _, content in ask(at(web, name), accept).parts] == [sample(name)]


@pytest.mark.parametrize(
    ("name", "error"), [("JPEG2000.dcm", 0), ("SC_rgb_rle_2frame.dcm", 0), ("SC_rgb_jpeg_dcmtk.dcm", 2)]
)
def test_compressed_objects_are_decoded_for_those_who_take_no_other(web: str, name: str, error: int) -> None:
    """`error`: decoders of JPEG may differ in the last bits."""
    ((kind, content),) = ask(at(web, name)).parts
    assert kind == f'application/dicom; transfer-syntax="{EXPLICIT}"'
    given, stored = read(content), read(sample(name))
    assert (given.file_meta.TransferSyntaxUID, given.SOPInstanceUID) == (EXPLICIT, stored.SOPInstanceUID)
    assert np.abs(given.pixel_array.astype(int) - stored.pixel_array).max() <= error


def test_an_object_is_encoded_as_is_asked(web: str) -> None:
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.90'
    for kind, content in ask(f"{web}/studies/{STUDY}", accept).parts:
        assert kind == 'application/dicom; transfer-syntax="1.2.840.10008.1.2.4.90"'
        assert (read(content).pixel_array == read(ct(3)[read(content).InstanceNumber - 1]).pixel_array).all()


def test_a_hostile_stream_of_pixels_is_refused_and_harms_nobody(domain: Domain) -> None:
    """JPEG 2000 cut short, of other dimensions, and no JPEG 2000 at all: decoders run in processes of their own."""
    study = "1.2.826.0.1.3680043.10.99.6"
    good = read(sample("JPEG2000.dcm"))
    stream = next(generate_frames(good.PixelData, number_of_frames=1))
    streams = (stream[:60], stream[:8] + b"\xff" * 16 + stream[24:], bytes(range(256)) * 8)
    web = domain.endpoints["dicomweb"]
    for number, hostile in enumerate(streams, 1):
        good.StudyInstanceUID, good.SeriesInstanceUID = study, f"{study}.1"
        good.SOPInstanceUID = good.file_meta.MediaStorageSOPInstanceUID = f"{study}.1.{number}"
        good.PixelData = encapsulate([hostile])
        domain.parts["instances"].add_bytes(encoded(good))
        for path in ("", "/frames/1", "/rendered", "/thumbnail"):
            answer = ask(web + path_of(good) + path)
            assert (answer.status, f"instance {study}.1.{number}" in answer.text) == (406, True), answer.text
        assert ask(web + path_of(good), AS_STORED).status == 200
    assert ask(f"{at(web, 'JPEG2000.dcm')}/rendered").status == 200


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/studies/1.2.3", 404, "study 1.2.3 is not stored here"),
        (f"/studies/{STUDY}/series/1.2.3", 404, f"series 1.2.3 is not in study {STUDY}"),
        (f"/studies/{STUDY}/series/{SERIES}/instances/1.2.3", 404, "instance 1.2.3 is not stored here"),
        (FIRST.replace(f"studies/{STUDY}/", "studies/1.2.3/"), 404, "is not in study 1.2.3"),
        (FIRST.replace(f"series/{SERIES}/", "series/1.2.3/"), 404, "is not in series 1.2.3"),
        ("/studies/1..2", 400, "the Study Instance UID '1..2' is no UID"),
        (f"/studies/{'1.2' * 30}", 400, "at most 64 digits and dots"),
        (f"/studies/{STUDY}/series/..%2f..%2fx", 404, "there is no such resource"),
        (f"/studies/{STUDY}/series/%2e%2e", 400, "the Series Instance UID '..' is no UID"),
        (f"/studies/{STUDY}?anonymize=yes", 400, "there is no parameter 'anonymize' here"),
        (f"{FIRST}/frames/0", 400, "frame '0' is no number; frames are counted from 1"),
        (f"{FIRST}/frames/1,,2", 400, "frame '' is no number"),
        (f"{FIRST}/frames/2", 404, "has 1 frame, and no 2"),
        (f"{FIRST}/frames/9999999999", 404, "has 1 frame, and no 9999999999"),
        (f"{FIRST}/frames/" + ",".join(["1"] * 10_000), 400, "the list has 10000 frames; the limit is 1000"),
        (f"{FIRST}/bulkdata/..%2f..%2fetc", 400, "is none of the BulkDataURIs"),
        (f"{FIRST}/bulkdata/00420011", 404, "has no value at 00420011"),
        (f"{FIRST}/bulkdata/00400275/1/00400007", 404, "has no value at"),
        (f"{FIRST}/rendered?viewport=1000000000,1000000000", 400, "viewport width is '1000000000'; it must be"),
        (f"{FIRST}/rendered?viewport=1025,10", 400, "a whole number from 1 to 1024"),
        (f"{FIRST}/rendered?viewport=0,10", 400, "viewport width is '0'"),
        (f"{FIRST}/rendered?viewport=10", 400, "it must be vw,vh or vw,vh,sx,sy,sw,sh"),
        (f"{FIRST}/rendered?viewport=10,10,-1,0,5,5", 400, "must not be negative"),
        (f"{FIRST}/rendered?viewport=10,10,0,0,1e99,5", 400, "between -1e9 and 1e9"),
        (f"{FIRST}/rendered?window=40,400", 400, "it must be centre,width,function"),
        (f"{FIRST}/rendered?window=40,0,linear", 400, "window width is '0'; it must be at least 1"),
        (f"{FIRST}/rendered?window=nan,400,linear", 400, "window centre is 'nan'; it must be a number"),
        (f"{FIRST}/rendered?window=40,400,cubic", 400, "linear, linear-exact, sigmoid"),
        (f"{FIRST}/rendered?quality=101", 400, "quality is '101'; it must be a whole number from 1 to 100"),
        (f"{FIRST}/rendered?annotation=all", 400, "annotation 'all' is neither patient nor technique"),
        (f"{FIRST}/rendered?iccprofile=srgb", 400, "iccprofile is 'srgb'; only 'no' is possible"),
        (f"{FIRST}/rendered?quality=1&quality=2", 400, "the parameter quality comes twice"),
    ],
)
def test_what_cannot_be_given_is_refused_with_its_reason(web: str, path: str, status: int, words: str) -> None:
    answer = ask(web + path)
    assert (answer.status, words in answer.text) == (status, True), answer.text
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("path", "accept", "status", "words"),
    [
        ("", "application/zip", 406, 'multipart/related; type="application/dicom"'),
        (
            "",
            'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2',
            406,
            "not in Implicit VR",
        ),
        ("", 'multipart/related; type="application/dicom"; transfer-syntax=JPEG', 400, "neither a UID nor *"),
        (
            "",
            'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.100',
            406,
            "is stored in",
        ),
        ("", "dicom", 400, "Accept: 'dicom' is no media type"),
        ("", "a/b," * 60, 400, "more than 50 media types"),
        ("/metadata", 'multipart/related; type="application/dicom+xml"', 406, "application/dicom+json"),
        ("/frames/1", 'multipart/related; type="image/jls"', 406, 'type="application/octet-stream"'),
        ("/frames/1,1", "application/octet-stream", 406, 'type="application/octet-stream"'),
        ("/rendered", "image/gif", 406, "image/jpeg, image/png"),
    ],
)
def test_no_other_media_types_are_given(web: str, path: str, accept: str, status: int, words: str) -> None:
    answer = ask(web + FIRST + path, accept)
    assert (answer.status, words in answer.text) == (status, True), answer.text


def test_the_preferred_media_type_is_given(web: str) -> None:
    assert ask(f"{web}{FIRST}/rendered", "image/jpeg;q=0.5, image/png;q=0.9").headers["content-type"] == "image/png"
    assert ask(f"{web}{FIRST}/rendered", "image/jpeg;q=0, */*;q=0.1").headers["content-type"] == "image/jpeg"
    assert ask(f"{web}{FIRST}/rendered?accept=image/png", "image/jpeg").headers["content-type"] == "image/png"


def test_metadata_name_where_the_bulk_data_are(web: str) -> None:
    """PS3.18 F.2.2: no group 2, UTF-8, numbers as numbers; and the URI gives the bytes."""
    answer = ask(f"{web}/studies/{STUDY}/metadata", "application/dicom+json")
    assert (answer.status, len(answer.json)) == (200, 3)
    stored = read(ct(3)[0])
    one: dict[str, Any] = answer.json[0]
    assert not [tag for tag in one if tag.startswith("0002")]
    assert one["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Muster^Ann Marie"}]}
    assert one["00280010"] == {"vr": "US", "Value": [64]}
    assert one["00281050"] == {"vr": "DS", "Value": [40.0]}
    assert one["00083002"] == {"vr": "UI", "Value": [EXPLICIT]}
    assert one["7FE00010"] == {"vr": "OW", "BulkDataURI": f"{web}{FIRST}/bulkdata/7FE00010"}
    assert [content for _, content in ask(one["7FE00010"]["BulkDataURI"]).parts] == [stored.PixelData]
    assert ask(one["7FE00010"]["BulkDataURI"], "application/octet-stream").body == stored.PixelData


@pytest.mark.parametrize("name", SAMPLES)
def test_metadata_are_those_of_the_object(web: str, name: str) -> None:
    (given,) = ask(f"{at(web, name)}/metadata").json
    given = Dataset.from_json(given, lambda tag, vr, uri: b"")
    stored = read(sample(name))
    for element in stored:
        if (
            element.VR not in ("SQ", "OB", "OW", "UN", "PN")
            and element.keyword != "SpecificCharacterSet"
            and element.value
        ):
            assert given[element.tag].value == element.value, element.keyword
    assert {str(one.keyword) for one in given} - {str(one.keyword) for one in stored} <= {
        "AvailableTransferSyntaxUID",
        "SpecificCharacterSet",
    }


def test_bulk_data_within_a_sequence_are_given(domain: Domain) -> None:
    dataset, item = read(ct(1, study_instance_uid="1.2.9", series_instance_uid="1.2.9.1")[0]), Dataset()
    item.ContentDescription, item.EncapsulatedDocument = "x", bytes(range(256)) * 100
    dataset.SourceImageSequence = [Dataset(), item]
    domain.parts["instances"].add_bytes(encoded(dataset))
    (given,) = ask(f"{domain.endpoints['dicomweb']}{path_of(dataset)}/metadata").json
    uri = given["00082112"]["Value"][1]["00420011"]["BulkDataURI"]
    assert uri.endswith("/bulkdata/00082112/2/00420011")
    assert [content for _, content in ask(uri).parts] == [item.EncapsulatedDocument]


def test_frames_of_stored_bytes_come_in_the_order_of_the_list(web: str) -> None:
    stored = read(sample("rtdose.dcm"))
    frames = [stored.PixelData[start : start + 400] for start in range(0, len(stored.PixelData), 400)]
    assert len(frames) == 15
    answer = ask(f"{at(web, 'rtdose.dcm')}/frames/3,1,15,3")
    assert answer.parts == [("application/octet-stream", frames[number - 1]) for number in (3, 1, 15, 3)]
    assert ask(f"{at(web, 'rtdose.dcm')}/frames/2", "application/octet-stream").body == frames[1]


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("JPEG2000.dcm", "image/jp2"),
        ("SC_rgb_rle_2frame.dcm", "image/dicom-rle"),
        ("SC_rgb_jpeg_dcmtk.dcm", "image/jpeg"),
    ],
)
def test_compressed_frames_come_as_they_are_stored_or_decoded(web: str, name: str, media_type: str) -> None:
    stored = read(sample(name))
    count = int(stored.get("NumberOfFrames") or 1)
    compressed = list(generate_frames(stored.PixelData, number_of_frames=count))
    url = f"{at(web, name)}/frames/" + ",".join(str(number) for number in range(1, count + 1))
    for accept in (f'multipart/related; type="{media_type}"', FRAMES_AS_STORED):
        parts = ask(url, accept).parts
        assert [content for _, content in parts] == compressed
        assert {kind for kind, _ in parts} == {f'{media_type}; transfer-syntax="{stored.file_meta.TransferSyntaxUID}"'}
    decoded = stored.pixel_array if count > 1 else stored.pixel_array[None]
    assert [content for _, content in ask(url).parts] == [one.tobytes() for one in decoded]
    bulk = ask(f"{at(web, name)}/bulkdata/7FE00010").parts
    assert [content for _, content in bulk] == [one.tobytes() for one in decoded]


def shown(content: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"), int)


def test_a_rendered_image_is_windowed(web: str) -> None:
    """PS3.18 8.3.5.1.4 and PS3.3 C.11.2.1.2, on Hounsfield units."""
    values = read(ct(3)[0]).pixel_array.astype(float) - 1024
    expected = {
        "linear": ((values - 39.5) / 399 + 0.5) * 255,
        "linear-exact": ((values - 40) / 400 + 0.5) * 255,
        "sigmoid": 255 / (1 + np.exp(-4 * (values - 40) / 400)),
    }
    for function, picture in expected.items():
        content = ask(f"{web}{FIRST}/rendered?window=40,400,{function}", "image/png").body
        assert np.abs(shown(content) - np.clip(picture, 0, 255)).max() <= 1
    assert (
        np.abs(shown(ask(f"{web}{FIRST}/rendered", "image/png").body) - np.clip(expected["linear"], 0, 255)).max() <= 1
    )


def test_a_rendered_image_fits_the_viewport(web: str) -> None:
    def size(query: str) -> tuple[int, int]:
        return Image.open(io.BytesIO(ask(f"{web}{FIRST}/rendered{query}").body)).size

    assert size("") == (48, 64)
    assert size("?viewport=1024,128") == (96, 128)
    assert size("?viewport=24,1000") == (24, 32)
    assert size("?viewport=100,100,0,0,10,5") == (100, 50)
    plain = shown(ask(f"{web}{FIRST}/rendered", "image/png").body)
    cut = shown(ask(f"{web}{FIRST}/rendered?viewport=10,20,5,6,10,20", "image/png").body)
    assert (cut == plain[6:26, 5:15]).all()
    flipped = shown(ask(f"{web}{FIRST}/rendered?viewport=10,20,5,6,-10,20", "image/png").body)
    assert (flipped == cut[:, ::-1]).all()
    assert (shown(ask(f"{web}{FIRST}/rendered?annotation=patient&viewport=512,512", "image/png").body)[:16] > 200).any()


def test_studies_series_and_frames_are_rendered_too(web: str) -> None:
    several = ask(f"{web}/studies/{STUDY}/rendered").parts
    assert [kind for kind, _ in several] == ["image/jpeg"] * 3
    assert len({content for _, content in several}) == 3
    frames = ask(f"{at(web, 'SC_rgb_rle_2frame.dcm')}/frames/1,2/rendered", 'multipart/related; type="image/png"').parts
    assert [Image.open(io.BytesIO(content)).size for _, content in frames] == [(100, 100)] * 2
    assert ask(f"{web}/studies/{STUDY}/series/{SERIES}/rendered", "image/png").status == 406
    for path in (f"/studies/{STUDY}", f"/studies/{STUDY}/series/{SERIES}", FIRST, f"{FIRST}/frames/1"):
        thumbnail = ask(f"{web}{path}/thumbnail")
        assert Image.open(io.BytesIO(thumbnail.body)).size == (96, 128)
    refused = ask(f"{at(web, 'test-SR.dcm')}/rendered")
    assert (refused.status, "has no pixels: it cannot be rendered" in refused.text) == (406, True)


def test_a_study_of_which_some_cannot_be_given_is_partial(domain: Domain) -> None:
    """A lost file, and pixels in a syntax that nobody decodes: 206, and a warning that counts."""
    instances: Instances = domain.parts["instances"]
    study = "1.2.826.0.1.3680043.10.99.4"
    for one in ct(3, study_instance_uid=study, series_instance_uid=f"{study}.1"):
        instances.add_bytes(one)
    video = read(ct(3)[0])
    video.StudyInstanceUID, video.SeriesInstanceUID, video.SOPInstanceUID = study, f"{study}.2", f"{study}.2.1"
    video.file_meta.MediaStorageSOPInstanceUID = video.SOPInstanceUID
    video.PixelData = (
        b"\xfe\xff\x00\xe0\x00\x00\x00\x00" + b"\xfe\xff\x00\xe0\x04\x00\x00\x00abcd" + b"\xfe\xff\xdd\xe0" + bytes(4)
    )
    video["PixelData"].VR, video["PixelData"].is_undefined_length = "OB", True
    video.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
    instances.add_bytes(encoded(video))
    instances.of_study(study)[0].path.unlink()
    web = domain.endpoints["dicomweb"]
    answer = ask(f"{web}/studies/{study}")
    assert (answer.status, len(answer.parts)) == (206, 2)
    assert answer.headers["warning"] == '299 xdsi "2 of 4 instances cannot be given"'
    refused = ask(f"{web}/studies/{study}/series/{study}.2")
    assert (refused.status, "is stored in transfer syntax 1.2.840.10008.1.2.4.100" in refused.text) == (406, True)
    drawn = ask(f"{web}/studies/{study}/series/{study}.2/rendered")
    assert (drawn.status, "is stored in transfer syntax 1.2.840.10008.1.2.4.100" in drawn.text) == (406, True)
    lost = instances.of_study(study)[0]
    gone = ask(f"{web}/studies/{study}/series/{study}.1/instances/{lost.sop_instance_uid}")
    assert (gone.status, "its file is lost or damaged" in gone.text) == (500, True)


def test_a_header_that_lies_about_its_pixels_is_refused(domain: Domain) -> None:
    """65,535 x 65,535 pixels in 6,144 bytes, and 2,000,000,000 frames of them."""
    study = "1.2.826.0.1.3680043.10.99.5"
    lying = read(ct(1, study_instance_uid=study, series_instance_uid=f"{study}.1")[0])
    lying.Rows = lying.Columns = 65_535
    lying.NumberOfFrames = "2000000000"
    domain.parts["instances"].add_bytes(encoded(lying))
    url = domain.endpoints["dicomweb"] + path_of(lying)
    assert ask(f"{url}/frames/2").status == 404
    drawn = ask(f"{url}/rendered")
    assert (drawn.status, "65535 x 65535 pixels; the limit is" in drawn.text) == (406, True)
    assert ask(f"{url}/metadata").status == 200


def test_only_pages_of_the_configured_origin_may_read(web: str) -> None:
    url = f"{web}/studies"
    allowed = ask(url, Origin=PAGES)
    assert allowed.headers["access-control-allow-origin"] == PAGES
    assert "Warning" in allowed.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" in ask(f"{web}/nothing", Origin=PAGES).headers
    preflight = ask(url, method="OPTIONS", Origin=PAGES, Access_Control_Request_Method="POST")
    assert (preflight.status, preflight.headers["access-control-allow-methods"]) == (204, "GET, POST, OPTIONS")
    assert "Authorization" in preflight.headers["access-control-allow-headers"]
    for origin in ("https://evil.example.org", f"{PAGES}.evil.org", "null"):
        for method in ("GET", "OPTIONS"):
            assert "access-control-allow-origin" not in ask(url, method=method, Origin=origin).headers


def test_nobodys_pages_may_read_unless_configured(tmp_path: Path) -> None:
    config = configured(tmp_path)
    with serving(replace(config, server=replace(config.server, actors="imaging"))) as domain:
        answer = ask(f"{domain.endpoints['dicomweb']}/studies", Origin=PAGES)
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_study_is_never_whole_in_memory(domain: Domain) -> None:
    """An instance is opened when its turn comes: taking the first pieces of an answer opens the first one only."""
    instances: Instances = domain.parts["instances"]
    opened: list[str] = []

    def given(stored: Instance, syntaxes: Sequence[str]) -> Document:
        def open_it() -> BinaryIO:
            opened.append(stored.sop_instance_uid)
            return stored.path.open("rb")

        return replace(stored.document, open=open_it)

    find = finding(instances, lambda uids: {})
    answer = retrieve(find=find, given=given)(Request(place={"study": STUDY}))
    uids = [one.sop_instance_uid for one in instances.of_study(STUDY)]
    seen = [list(opened) for piece in answer.pieces if piece in ct(3)]
    assert seen == [uids[:1], uids[:2], uids]


def test_what_is_rejected_is_not_given(domain: Domain) -> None:
    """As if it were not stored (PS3.18 8.5: 404), with the reason."""
    instances: Instances = domain.parts["instances"]
    uids = [one.sop_instance_uid for one in instances.of_study(STUDY)]
    find = finding(
        instances, lambda asked: {uids[0]: "113001 Rejected for Quality Reasons"} if uids[0] in asked else {}
    )
    assert [one.sop_instance_uid for one in find(Request(place={"study": STUDY}))] == uids[1:]
    with pytest.raises(Refusal, match=f"instance {uids[0]} is rejected: 113001") as refused:
        find(Request(place={"study": STUDY, "series": SERIES, "instance": uids[0]}))
    assert refused.value.status == 404


def test_who_asks_for_one_frame_after_the_other_has_the_object_decoded_once(domain: Domain, tmp_path: Path) -> None:
    instances: Instances = domain.parts["instances"]
    stored = instances.find([str(read(sample("SC_rgb_rle_2frame.dcm")).SOPInstanceUID)]).popitem()[1]
    other = instances.find([str(read(sample("JPEG2000.dcm")).SOPInstanceUID)]).popitem()[1]
    pixels = read(sample("SC_rgb_rle_2frame.dcm")).pixel_array
    asked: list[str] = []
    with closing(Recoder(processes=1)) as recoder:
        transfer = Transfer(recoder, tmp_path)

        def given(one: Instance, syntaxes: Sequence[str]) -> Document:
            asked.append(one.sop_instance_uid)
            return transfer.given(one, syntaxes)

        decoding = Decoding(given, kept=1)
        for number in (1, 2, 1):
            assert Frames(stored, decoding).decoded_frame(number) == pixels[number - 1].tobytes()
        assert asked == [stored.sop_instance_uid]
        (kept,) = tmp_path.iterdir()
        Frames(other, decoding).decoded_frame(1)
        assert kept not in tmp_path.iterdir()
        assert len(list(tmp_path.iterdir())) == 1
