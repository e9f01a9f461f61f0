"""Logging in to a node that others reach: over its own TLS, behind a real nginx, and with a real browser that other sites try to use."""

import http.client
import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from dicom_node.store import Store
from tests.browsing import HASH, PASSWORD, token_of
from tests.certificates import Pair, authority, signed
from tests.orthanc import free_ports
from tests.peers import missing, need, need_file
from tests.walks.node import ROOT, wait_for

CHROMIUM = "/usr/bin/chromium"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return authority(tmp_path_factory.mktemp("pki"), "root")


@contextmanager
def web(folder: Path, port: int, **said: Any) -> Iterator[Path]:
    """Run `dicom-node web` on a port, with one viewer; return its log."""
    storage, log = folder / "data", folder / "web.log"
    if not storage.exists():
        store = Store.open(storage)
        store.people.add("anna", "viewer", password=HASH, who="test", now=time.time())
        store.close()
    lines = [
        f"{key} = {value if isinstance(value, str) and value.startswith('{') else json.dumps(value)}" for key, value in {"port": port, **said}.items()
    ]
    (folder / "node.toml").write_text(f"[node]\nstorage = {json.dumps(str(storage))}\n[web]\n" + "\n".join(lines))
    with log.open("ab") as out:
        command = [sys.executable, "-m", "dicom_node", "web", "--config", str(folder / "node.toml")]
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT)
    try:
        wait_for(lambda: process.poll() is not None or listens(port), says=log.read_text)
        assert process.poll() is None, log.read_text()
        yield log
    finally:
        process.terminate()
        process.wait(timeout=60)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def trusting(root: Pair) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=root.certificate)


def log_in(client: httpx2.Client, password: str = PASSWORD) -> httpx2.Response:
    csrf = token_of(client.get("/login").text)
    said = {"name": "anna", "password": password, "csrf_token": csrf, "next": "/login/password"}
    return client.post("/login", data=said, headers={"origin": str(client.base_url).rstrip("/")})


def test_over_its_own_tls_a_person_logs_in_and_stays_so_over_a_restart(root: Pair, tmp_path: Path) -> None:
    """TLS 1.2 at least; a certificate that was renewed is shown without a restart."""
    (port,) = free_ports(1)
    shown = signed(root, tmp_path, "web")
    tls = f"{{ certificate = {json.dumps(str(shown.certificate))}, key = {json.dumps(str(shown.key))} }}"
    said = {"host": "0.0.0.0", "names": ["localhost"], "tls": tls}
    with httpx2.Client(base_url=f"https://localhost:{port}", verify=trusting(root), timeout=60) as client:
        with web(tmp_path, port, **said) as log:
            assert client.get("/login/password", headers={"accept": "text/html"}).headers["location"] == "/login?next=%2Flogin%2Fpassword"
            assert log_in(client).status_code == 303
            assert client.get("/login/password").status_code == 200
            assert [cookie.secure for cookie in client.cookies.jar if cookie.name == "__Host-dicom-node"] == [True]
            assert "strict-transport-security" in client.get("/health/live").headers
            first = ssl.get_server_certificate(("localhost", port), timeout=30)
            shutil.copy(renewed := signed(root, tmp_path, "renewed").key, shown.key)
            shutil.copy(renewed.with_suffix(".pem"), shown.certificate)
            assert ssl.get_server_certificate(("localhost", port), timeout=30) != first
            assert [speaks(port, version) for version in ("-tls1_1", "-tls1_2")] == [False, True]
            with pytest.raises((http.client.HTTPException, ConnectionError)):
                plain(port)
        with web(tmp_path, port, **said):
            assert client.get("/login/password").status_code == 200
    assert PASSWORD not in log.read_text()


def speaks(port: int, version: str) -> bool:
    """Say whether the node agrees to a version of TLS, asked by a program that knows old ones."""
    command = [need("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", version, "-cipher", "ALL:@SECLEVEL=0"]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False).returncode == 0


def plain(port: int) -> None:
    connection = http.client.HTTPConnection("localhost", port, timeout=30)
    try:
        connection.request("GET", "/login")
        connection.getresponse()
    finally:
        connection.close()


def test_behind_nginx_as_the_example_has_it(root: Pair, tmp_path: Path) -> None:
    """deploy/nginx.conf: its word counts, the caller's does not, and nobody is `local` because the proxy is on this machine."""
    outside, inside = free_ports(2)
    shown = signed(root, tmp_path, "nginx")
    with web(tmp_path, inside, names=["localhost"], behind_proxy=["127.0.0.1"]) as log, nginx(tmp_path, shown, outside, inside):
        with httpx2.Client(base_url=f"https://localhost:{outside}", verify=trusting(root), timeout=60) as client:
            assert client.get("/login/password").status_code == 401
            assert log_in(client, "wrong").status_code == 403
            client.headers["x-forwarded-for"] = "198.51.100.1"
            client.headers["x-forwarded-host"] = "evil.example"
            assert log_in(client, "wrong").status_code == 403
            assert log_in(client).status_code == 303
            assert client.get("/login/password").status_code == 200
            assert "__Host-dicom-node" in client.cookies
        with httpx2.Client(base_url=f"http://127.0.0.1:{inside}", timeout=60) as client:
            assert client.get("/login/password").status_code == 401
    said = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert {one["address"] for one in said if one["event"].startswith("web.log")} == {"127.0.0.1"}


@contextmanager
def nginx(folder: Path, shown: Pair, outside: int, inside: int) -> Iterator[None]:
    """Run nginx with the example, on ports and files of its own."""
    program, server = need("nginx"), (ROOT / "deploy" / "nginx.conf").read_text()
    for there, here in (
        ("listen 443 ssl", f"listen 127.0.0.1:{outside} ssl"),
        ("node.hospital.example", "localhost"),
        ("/etc/nginx/node.pem", str(shown.certificate)),
        ("/etc/nginx/node.key", str(shown.key)),
        ("127.0.0.1:8080", f"127.0.0.1:{inside}"),
        ("proxy_set_header Host $host;", f"proxy_set_header Host $host:{outside};"),
        ("X-Forwarded-Host $host;", f"X-Forwarded-Host $host:{outside};"),
    ):
        assert there in server
        server = server.replace(there, here)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    around = f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;\nevents {{}}\n"
    (folder / "nginx.conf").write_text(f"{around}http {{ access_log off; {places}\n{server} }}\n")
    process = subprocess.Popen([program, "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "nginx.log")])
    try:
        wait_for(lambda: process.poll() is not None or listens(outside), says=(folder / "nginx.log").read_text)
        assert process.poll() is None, (folder / "nginx.log").read_text()
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


# ------------------------------------------------------------------------------------------------------------ a real browser

EVIL = """<!doctype html><title>evil</title>
<form id=f method=post action="{node}{path}"><input name=password value=x><input name=new value=x><input name=csrf_token value=x></form>
<script>document.getElementById("f").submit()</script>"""


@contextmanager
def evil_site() -> Iterator[tuple[str, dict[str, str]]]:
    """Serve pages that another site might have; return its address and, by path, the pages."""
    pages: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = pages.get(self.path, "").encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", pages
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_browser_logs_in_by_keyboard_and_no_other_site_acts_in_its_name(tmp_path: Path) -> None:
    """Chromium: the form works under the policy that goes with it; a form of another port's site, which has the cookie sent along, does not."""
    need_file(CHROMIUM)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed")
    (port,) = free_ports(1)
    node = f"http://127.0.0.1:{port}"
    with web(tmp_path, port) as log, evil_site() as (evil, pages), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(f"{node}/login/password")
        assert page.url == f"{node}/login?next=%2Flogin%2Fpassword"
        assert page.evaluate("document.activeElement.id") == "name", "one types at once"
        page.keyboard.type("anna")
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{node}/login/password")
        assert "Another password" in page.inner_text("h1")
        assert not re.search("Content.Security.Policy|Refused", " ".join(complaints))
        for path in ("/login/password", "/logout"):
            pages["/"] = EVIL.format(node=node, path=path)
            with page.expect_navigation(url=f"{node}{path}"):
                page.goto(f"{evil}/", wait_until="commit")
            assert "A page of another site asked for this" in page.inner_text("body")
        page.goto(f"{node}/login/password")
        assert "Another password" in page.inner_text("h1"), "still logged in"
        page.fill("#password", PASSWORD)
        page.fill("#new", "another horse battery")
        page.keyboard.press("Enter")
        page.wait_for_url(f"{node}/login")
        browser.close()
    assert "horse" not in log.read_text()
