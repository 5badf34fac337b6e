"""A Ceph cluster of one's own with its object gateway, all on loopback: one monitor, one manager, one OSD in a file, one RGW.

Debian: radosgw ceph-mon ceph-osd ceph-mgr ceph-common. Its files go when it ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import obstore
from obstore.store import S3Store

from benchmarks.limits import free_port
from benchmarks.orthanc import loopback_only
from repository.objects import Service

_PROGRAMS = (
    "ceph-mon",
    "ceph-osd",
    "ceph-mgr",
    "radosgw",
    "radosgw-admin",
    "ceph-authtool",
    "monmaptool",
    "ceph",
    "curl",
)
_KEY, _SECRET = "xdsitest", "not-a-secret"
_pause = threading.Event().wait
_CONFIGURATION = """[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{v2}/0,v1:127.0.0.1:{v1}/0]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
keyring = {directory}/keyring
run_dir = {directory}
log_file = {directory}/$name.log
admin_socket = {directory}/$name.asok
mon_data = {directory}/mon
mgr_data = {directory}/mgr
osd_data = {directory}/osd
osd_objectstore = bluestore
bluestore_block_size = 4294967296
osd_memory_target = 939524096
osd_crush_chooseleaf_type = 0
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
mon_allow_pool_size_one = true
mon_data_avail_crit = 1
mgr_initial_modules =
osd_class_update_on_start = false
rgw_thread_pool_size = 64
"""


def missing() -> list[str]:
    """The programs that are not installed."""
    return [one for one in _PROGRAMS if shutil.which(one) is None]


class Cluster:
    """The processes of a cluster."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._environment = {
            **os.environ,
            "CEPH_CONF": str(directory / "ceph.conf"),
            "LD_PRELOAD": str(loopback_only(directory)),
        }
        self._running: list[subprocess.Popen[bytes]] = []

    def run(self, *command: str) -> str:
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command[:3])}: {done.stderr[-1000:]}")
        return done.stdout

    def start(self, *command: str) -> None:
        with (self._directory / f"{Path(command[0]).name}.out").open("wb") as log:
            self._running.append(subprocess.Popen(command, env=self._environment, stdout=log, stderr=log))

    def stop(self) -> None:
        for one in reversed(self._running):
            one.kill()
        for one in self._running:
            one.wait()


@contextlib.contextmanager
def serving(bucket: str = "documents") -> Iterator[Service]:
    """The gateway until the context ends, with a bucket."""
    if absent := missing():
        raise FileNotFoundError(
            f"not installed: {', '.join(absent)} (Debian: radosgw ceph-mon ceph-osd ceph-mgr ceph-common)"
        )
    with tempfile.TemporaryDirectory(prefix="xdsi-ceph-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        fsid, v2, v1, port = str(uuid.uuid4()), free_port(), free_port(), free_port()
        settings = _CONFIGURATION.format(fsid=fsid, v2=v2, v1=v1, directory=directory)
        (directory / "ceph.conf").write_text(settings)
        cluster = Cluster(directory)
        try:
            _monitor(cluster, directory, fsid, f"[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]")
            _storage(cluster)
            endpoint = f"http://127.0.0.1:{port}"
            cluster.start("radosgw", "-n", "client.rgw", "-f", "--rgw-frontends", f"beast endpoint=127.0.0.1:{port}")
            keys = ("--access-key", _KEY, "--secret", _SECRET)
            cluster.run(
                "radosgw-admin", "-n", "client.rgw", "user", "create", "--uid", "xdsi", "--display-name", "xdsi", *keys
            )
            _bucket(endpoint, bucket)
            yield Service(endpoint=endpoint, bucket=bucket, access_key_id=_KEY, secret_access_key=_SECRET, timeout_s=60)
        finally:
            cluster.stop()


def _monitor(cluster: Cluster, directory: Path, fsid: str, addresses: str) -> None:
    keyring = str(directory / "keyring")
    everything = ("--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *")
    cluster.run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
    for name in ("client.admin", "client.rgw", "mgr.x", "osd.0"):
        cluster.run("ceph-authtool", keyring, "--gen-key", "-n", name, *everything)
    monmap = str(directory / "monmap")
    cluster.run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", addresses, monmap)
    cluster.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
    cluster.start("ceph-mon", "-i", "a", "-f")
    for one in ("mgr", "osd"):
        (directory / one).mkdir()


def _storage(cluster: Cluster) -> None:
    cluster.start("ceph-mgr", "-i", "x", "-f")
    osd = str(uuid.uuid4())
    cluster.run("ceph", "--connect-timeout", "60", "osd", "new", osd, "0")
    cluster.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
    cluster.start("ceph-osd", "-i", "0", "-f")
    _until(cluster, ["ceph", "osd", "stat"], "1 up")


def _bucket(endpoint: str, bucket: str) -> None:
    """Makes the bucket, as soon as the gateway answers: a signed PUT of nothing is one."""
    store = S3Store(
        bucket,
        endpoint=endpoint,
        region="us-east-1",
        access_key_id=_KEY,
        secret_access_key=_SECRET,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
    for _ in range(240):
        url = obstore.sign(store, "PUT", "", timedelta(seconds=60))
        try:
            urllib.request.urlopen(urllib.request.Request(url, b"", method="PUT"), timeout=60).close()
        except urllib.error.URLError:
            _pause(0.5)
        else:
            return
    raise RuntimeError("the gateway made no bucket")


def _until(cluster: Cluster, command: Sequence[str], told: str) -> None:
    said = ""
    for _ in range(240):
        with contextlib.suppress(RuntimeError):
            said = cluster.run(*command)
        if told in said:
            return
        _pause(0.5)
    raise RuntimeError(f"{' '.join(command[:3])} never said {told!r}: {said[-500:]}")
