"""OHIF, fetched by hash and served: with a package drawn here, of the same layout as the published one; no network, no socket."""

import base64
import hashlib
import io
import json
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dicom_node.config import load_site
from dicom_node.domain import NodeError, Rejected
from dicom_node.serve.web import context
from dicom_node.store import Store
from dicom_node.web import build
from dicom_node.web.ohif import package
from tests import verbs

BUNDLE = "app.bundle.0123456789abcdef.js"
FILES = {
    "package/LICENSE": b"MIT",
    "package/package.json": b"{}",
    "package/dist/index.html": b'<html><head><script>window.PUBLIC_URL="/"</script><script src="/app-config.js"></script>'
    b'<script rel="preload" type="module" src="/init-service-worker.js"></script><link href="/app.bundle.css" rel="stylesheet">'
    b'<script defer src="/app.bundle.0123456789abcdef.js"></script></head></html>',
    f"package/dist/{BUNDLE}": b'__webpack_require__.p = "/";\n' + b"// long\n" * 1000,
    "package/dist/app.bundle.css": b"@font-face{src:url(/a.woff2)}",
    "package/dist/0123456789abcdef.wasm": b"\0asm",
    "package/dist/assets/favicon.ico": b"icon",
    "package/dist/app.bundle.js.map": b"{}",
    "package/dist/app-config.js": b"window.config = {servers: 'elsewhere'};",
    "package/dist/google.js": b"fetch('elsewhere')",
    "package/dist/sw.js": b"importScripts('elsewhere')",
    "package/dist/init-service-worker.js": b"importScripts('elsewhere')",
}


def packed(folder: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes] = FILES, link: str = "") -> Path:
    """Write a package, and have it be the one that is pinned."""
    path = folder / "ohif.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        if link:
            member = tarfile.TarInfo("package/dist/link.js")
            member.type, member.linkname = tarfile.SYMTYPE, link
            archive.addfile(member)
    monkeypatch.setattr(package, "INTEGRITY", f"sha512-{base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()}")
    return path


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    """The web of a node on its defaults."""
    site = load_site(None, node={"storage": tmp_path / "data", "disk_reserve_mb": 0})
    store = Store.of(site.config.node)
    with TestClient(build(context(site, store, time.time)), base_url="http://127.0.0.1:8080") as found:
        yield found
    store.close()


def test_without_it_the_answer_says_how_it_is_fetched(client: TestClient) -> None:
    """It is no part of the program."""
    answer = client.get("/ohif/viewer?StudyInstanceUIDs=1.2.3")
    assert (answer.status_code, "dicom-node web --fetch-ohif" in answer.text) == (404, True)


def test_the_verb_takes_a_file_that_was_brought_by_hand(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a network: the same hash, the same checks; the node serves it from then on."""
    file = packed(tmp_path, monkeypatch)
    said = verbs.run("web", "--storage", tmp_path / "data", "--ohif-package", file)
    assert said.code == 0, said.all
    assert client.get("/ohif/").status_code == 200


def test_it_is_served_with_what_browsers_ask_for(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own routes are its page; MIME types; isolation, so that its workers share memory; hashed names are kept for ever."""
    package.fetch(tmp_path / "data" / "ohif", package=packed(tmp_path, monkeypatch))
    page = client.get("/ohif/viewer?StudyInstanceUIDs=1.2.3")
    assert page.headers["content-type"].startswith("text/html")
    assert (page.headers["cross-origin-opener-policy"], page.headers["cross-origin-embedder-policy"]) == ("same-origin", "require-corp")
    assert page.headers["cache-control"] == "no-cache"
    assert "window.PUBLIC_URL" not in page.text
    assert "service-worker" not in page.text
    assert 'src="/ohif/app-config.js"' in page.text
    script = client.get(f"/ohif/{BUNDLE}")
    assert script.headers["content-type"].startswith("text/javascript")
    assert script.headers["content-encoding"] == "gzip"
    assert "immutable" in script.headers["cache-control"]
    assert script.text.startswith('__webpack_require__.p = "/ohif/";')
    assert client.get(f"/ohif/{BUNDLE}", headers={"Accept-Encoding": "identity"}).text == script.text
    assert client.get("/ohif/0123456789abcdef.wasm").headers["content-type"] == "application/wasm"
    assert client.get("/ohif/app.bundle.css").text == "@font-face{src:url(/ohif/a.woff2)}"
    for absent in ("google.js", "sw.js", "app.bundle.js.map.js", "nothing.js", "../ledger.sqlite.js", "..%2f..%2fledger.json"):
        assert client.get(f"/ohif/{absent}").status_code == 404, absent


def test_its_configuration_names_this_node_and_nobody_else(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """app-config.js is ours: one data source, by paths of this node; the notice of investigational use stays."""
    package.fetch(tmp_path / "data" / "ohif", package=packed(tmp_path, monkeypatch))
    text = client.get("/ohif/app-config.js").text
    assert "http" not in text
    said = json.loads(text.partition("window.config = ")[2].rstrip(";\n"))
    (source,) = said["dataSources"]
    assert {source["configuration"][root] for root in ("qidoRoot", "wadoRoot", "wadoUriRoot")} == {"/dicom-web"}
    assert said["routerBasename"] == "/ohif"
    assert said["investigationalUseDialog"] == {"option": "always"}


@pytest.mark.parametrize("name", ["../outside.js", "/etc/outside.js", "package/dist/../../../outside.js", "package/dist/..\\outside.js"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whatever the hash: nothing is written outside, and nothing is kept."""
    file = packed(tmp_path, monkeypatch, {**FILES, name: b"outside"})
    with pytest.raises(Rejected, match="leads out"):
        package.fetch(tmp_path / "ohif", package=file)
    assert [*(tmp_path / "ohif").iterdir()] == []
    assert not [*tmp_path.rglob("outside*")]


def test_links_strangers_and_another_hash_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link, a package that is not laid out as it was, one with another hash, one that is too large."""
    with pytest.raises(Rejected, match="link"):
        package.fetch(tmp_path / "ohif", package=packed(tmp_path, monkeypatch, link="/etc/passwd"))
    other = {name: data for name, data in FILES.items() if BUNDLE not in name}
    with pytest.raises(Rejected, match="laid out"):
        package.fetch(tmp_path / "ohif", package=packed(tmp_path, monkeypatch, other))
    file = packed(tmp_path, monkeypatch)
    monkeypatch.setattr(package, "_MOST_BYTES", 100)
    with pytest.raises(Rejected, match="more than it should"):
        package.fetch(tmp_path / "ohif", package=file)
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(Rejected, match="SHA-512"):
        package.fetch(tmp_path / "ohif", package=file)
    assert [*(tmp_path / "ohif").iterdir()] == []


def test_without_npm_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error has a hint."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NodeError) as caught:
        package.fetch(tmp_path / "ohif")
    assert "--ohif-package" in caught.value.hint
