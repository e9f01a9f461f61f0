"""An identity provider as a small program: real HTTP, real keys, and people who log in without being asked."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, Key, RSAKey

CLIENT, SECRET, AUDIENCE = "dicom-node", "s3cret: of/the client", "dicom-node-api"
RSA_1, RSA_2 = RSAKey.generate_key(2048, {"kid": "rsa-1"}), RSAKey.generate_key(2048, {"kid": "rsa-2"})
EC_1 = ECKey.generate_key("P-256", {"kid": "ec-1"})


@dataclass
class Provider:
    """What it knows, and how often it was asked for what."""

    issuer: str
    keys: list[Key] = field(default_factory=lambda: [RSA_1, EC_1])
    person: dict[str, Any] = field(default_factory=lambda: {"sub": "17", "preferred_username": "anna", "roles": ["radiology"]})
    changed: dict[str, Any] = field(default_factory=dict)  # of the next ID token's claims
    document: dict[str, Any] = field(default_factory=dict)  # of its own description
    asked: list[str] = field(default_factory=list)
    redirects: bool = False
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def oidc(self, **more: Any) -> dict[str, Any]:
        """Return how a site names it."""
        said = {"issuer": self.issuer, "client_id": CLIENT, "audience": AUDIENCE}
        return said | {"roles": {"radiology": "viewer", "it": "operator", "bots": "service"}} | more

    def claims(self, now: float, **more: Any) -> dict[str, Any]:
        """Return what an access token says; a claim that is None is left out."""
        said = {"iss": self.issuer, "aud": AUDIENCE, "sub": "17", "iat": int(now), "exp": int(now) + 300, "preferred_username": "anna"} | more
        return {name: value for name, value in said.items() if value is not None}

    def token(self, now: float, key: Key = RSA_1, algorithm: str = "RS256", header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Sign an access token."""
        return jwt.encode({"alg": algorithm, "kid": key.kid} | (header or {}), self.claims(now, **claims), key, algorithms=[algorithm])

    def answer(self, path: str, form: dict[str, str], authorization: str) -> tuple[int, Any, dict[str, str]]:
        """Answer a request: status, JSON, headers."""
        self.asked.append(path)
        if self.redirects:
            return 302, {}, {"Location": f"{self.issuer}/elsewhere"}
        if path.endswith("/.well-known/openid-configuration"):
            ends = {name: f"{self.issuer}/{name}" for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")}
            return 200, {"issuer": self.issuer, **ends, **self.document}, {}
        if path == "/jwks_uri":
            return 200, {"keys": [key.as_dict(private=False) for key in self.keys] + [{"kty": "future", "kid": "x"}]}, {}
        if path == "/authorization_endpoint":
            code = f"code-{len(self.codes)}"
            self.codes[code] = form
            return 302, {}, {"Location": f"{form['redirect_uri']}?{urlencode({'code': code, 'state': form['state'], 'iss': self.issuer})}"}
        if path == "/token_endpoint":
            return self._token(form, authorization)
        return 404, {}, {}

    def _token(self, form: dict[str, str], authorization: str) -> tuple[int, Any, dict[str, str]]:
        asked = self.codes.pop(form.get("code", ""), None)  # each is good once
        wanted = "Basic " + base64.b64encode(b"dicom-node:s3cret%3A%20of%2Fthe%20client").decode()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest()).rstrip(b"=").decode()
        if asked is None or authorization != wanted or form["redirect_uri"] != asked["redirect_uri"] or challenge != asked["code_challenge"]:
            return 400, {"error": "invalid_grant"}, {}
        now = int(time.time())
        said = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"]} | self.person | self.changed
        return 200, {"id_token": jwt.encode({"alg": "RS256", "kid": "rsa-1"}, said, RSA_1), "access_token": "x", "token_type": "Bearer"}, {}


@contextmanager
def serving() -> Iterator[Provider]:
    """Run one on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(urlsplit(self.path).query)

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

        def _answer(self, said: str) -> None:
            form = {name: values[0] for name, values in parse_qs(said).items()}
            status, body, headers = provider.answer(urlsplit(self.path).path, form, self.headers.get("Authorization", ""))
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(data))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider = Provider(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
