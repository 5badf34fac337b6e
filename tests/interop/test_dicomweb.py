"""An independent DICOMweb client, dicomweb-client, against `xdsi serve` as it is run, with two processes."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from pydicom.dataset import Dataset
from requests.exceptions import HTTPError

from tests.dicomweb import SERIES, STUDY, ct, encoded, read, sample
from tests.interop.test_serving import served


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DICOMwebClient]:
    with served(tmp_path_factory.mktemp("web"), "", "--workers", "2", "--actors", "imaging") as (_, endpoints):
        made = DICOMwebClient(endpoints["dicomweb"])
        made.store_instances([read(one) for one in (*ct(3), sample("JPEG2000.dcm"), sample("SC_rgb_rle_2frame.dcm"))])
        yield made
        made._session.close()


def uids(dataset: Dataset) -> tuple[str, str, str]:
    return str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID), str(dataset.SOPInstanceUID)


J2K, RLE = read(sample("JPEG2000.dcm")), read(sample("SC_rgb_rle_2frame.dcm"))
AS_STORED = (("application/dicom", "*"),)


def test_what_it_stores_is_referenced_and_what_fails_is_told(client: DICOMwebClient) -> None:
    answer = client.store_instances([read(ct(3)[0])], study_instance_uid=STUDY)
    assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == [uids(read(ct(3)[0]))[2]]
    with pytest.raises(HTTPError) as refused:
        client.store_instances([read(ct(3)[0])], study_instance_uid="1.2.3")
    assert refused.value.response.status_code == 409
    assert refused.value.response.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA900]


def test_it_finds_studies_series_and_instances(client: DICOMwebClient) -> None:
    (study,) = (Dataset.from_json(one) for one in client.search_for_studies(search_filters={"PatientID": "MRN7"}))
    assert (study.StudyInstanceUID, study.PatientName, study.NumberOfStudyRelatedInstances) == (
        STUDY,
        "Muster^Ann Marie",
        3,
    )
    assert client.search_for_studies(search_filters={"PatientName": "Muster"}) == []
    assert len(client.search_for_studies(fuzzymatching=True, search_filters={"PatientName": "must"})) == 1
    assert len(client.search_for_studies(limit=2)) == 2
    assert [one["0020000E"]["Value"] for one in client.search_for_series(STUDY)] == [[SERIES]]
    assert len(client.search_for_instances(STUDY, SERIES, fields=["00280010"])) == 3
    assert len(client.search_for_instances(get_remaining=True, limit=2)) == 5


@pytest.mark.parametrize("media_types", [None, (("application/dicom", "1.2.840.10008.1.2.1"),), AS_STORED])
def test_it_retrieves_a_study_and_a_series(client: DICOMwebClient, media_types: object) -> None:
    for got in (
        client.retrieve_study(STUDY, media_types=media_types),
        client.retrieve_series(STUDY, SERIES, media_types=media_types),
        list(client.iter_study(STUDY, media_types=media_types)),
    ):
        assert [encoded(one) for one in got] == ct(3)


def test_it_retrieves_compressed_instances(client: DICOMwebClient) -> None:
    for stored in (J2K, RLE):
        assert client.retrieve_instance(*uids(stored), media_types=AS_STORED) == stored


def test_it_reads_metadata_and_follows_the_bulk_data(client: DICOMwebClient) -> None:
    study = client.retrieve_study_metadata(STUDY)
    assert len(study) == 3
    stored = read(ct(3)[0])
    (pixels,) = client.retrieve_bulkdata(study[0]["7FE00010"]["BulkDataURI"])
    assert pixels == stored.PixelData
    one = Dataset.from_json(client.retrieve_instance_metadata(*uids(stored)), lambda tag, vr, uri: b"")
    assert [one[element.tag].value for element in stored if element.VR != "OW"] == [
        element.value for element in stored if element.VR != "OW"
    ]
    assert len(client.retrieve_series_metadata(STUDY, SERIES)) == 3


def test_it_retrieves_frames_decoded_and_as_they_are_stored(client: DICOMwebClient) -> None:
    decoded = client.retrieve_instance_frames(*uids(RLE), [2, 1])
    assert decoded == [RLE.pixel_array[1].tobytes(), RLE.pixel_array[0].tobytes()]
    (compressed,) = client.retrieve_instance_frames(
        *uids(J2K), [1], media_types=(("image/jp2", "1.2.840.10008.1.2.4.91"),)
    )
    # JPEG 2000 code-stream: SOC and SIZ.
    assert compressed[:4] == b"\xff\x4f\xff\x51"


def test_it_renders(client: DICOMwebClient) -> None:
    stored = read(ct(3)[0])
    picture = client.retrieve_instance_rendered(
        *uids(stored), media_types=("image/png",), params={"viewport": "24,1000", "window": "40,400,linear"}
    )
    assert Image.open(io.BytesIO(picture)).size == (24, 32)
    frame = client.retrieve_instance_frames_rendered(*uids(RLE), [2], media_types=("image/png",))
    assert (np.asarray(Image.open(io.BytesIO(frame))) == RLE.pixel_array[1]).all()


def test_a_refusal_reaches_it_with_its_reason(client: DICOMwebClient) -> None:
    with pytest.raises(HTTPError) as refused:
        client.retrieve_study("1.2.3")
    assert refused.value.response.status_code == 404
    assert refused.value.response.text == "study 1.2.3 is not stored here\n"


def test_it_searches_with_the_index_that_another_process_wrote(client: DICOMwebClient) -> None:
    """With two processes whoever answers has stored only some of them."""
    study = f"{STUDY}.7"
    for number, one in enumerate(ct(6, study_instance_uid=study, series_instance_uid=f"{study}.1"), 1):
        client.store_instances([read(one)])
        (found,) = client.search_for_studies(search_filters={"StudyInstanceUID": study})
        assert found["00201208"]["Value"] == [number]
