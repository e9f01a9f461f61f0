"""What the identity provider says: its keys, whose token this is, and who logs in by a browser (OpenID Connect Core 1.0, RFC 7636, RFC 9068)."""

import base64
import hashlib
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import structlog
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey, import_key

from dicom_node.config import Oidc
from dicom_node.domain import SCOPES, Rejected, Transient
from dicom_node.guard.access import first_line
from dicom_node.web.access.fetch import Fetcher
from dicom_node.web.access.roles import Person, Role

log = structlog.get_logger()

_FRESH_S = 3600.0  # how long documents are believed
_AGAIN_S = 30.0  # how often an unknown key, or a failure, makes us ask again
_RSA_BITS = 2048
_KINDS = {"RS": RSAKey, "PS": RSAKey, "ES": ECKey, "Ed": OKPKey}  # by how an algorithm begins; never a shared secret
_NAME_CHARACTERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A log-in under way: what must come back, and what only this browser knows."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def new(cls) -> "Flow":
        """Begin one."""
        return cls(state=secrets.token_urlsafe(32), nonce=secrets.token_urlsafe(32), verifier=secrets.token_urlsafe(48))


class Provider:
    """The identity provider of the house."""

    def __init__(self, oidc: Oidc, clock: Callable[[], float]) -> None:
        self._oidc, self._clock = oidc, clock
        self._fetcher = Fetcher(oidc.authorities)
        self._document: dict[str, Any] = {}
        self._keys: tuple[Mapping[str, Any], ...] = ()
        self._fetched_at = self._tried_at = float("-inf")
        self._lock = threading.Lock()

    def reach(self) -> int:
        """Fetch the provider's documents and say how many keys it has.

        Raises
        ------
        Transient: they cannot be had.
        """
        self._documents()
        return len(self._keys)

    # ------------------------------------------------------------------------------------------------------- programs

    def bearer(self, token: str) -> Person | None:
        """Return who shows a token of the provider's; None when it is not one, is for somebody else, or has expired.

        Raises
        ------
        Transient: the provider's keys cannot be had.
        """
        if not self._oidc.audience or token.count(".") != 2:
            return None
        claims = self._claims(token, self._oidc.audience)
        if claims is None:
            return None
        named = _words(claims.get("scope", claims.get("scp"))) & set(SCOPES)
        role = role_of(claims, self._oidc)
        if role is None or role is Role.SERVICE:
            return Person(name=name_of(claims, self._oidc), role=Role.SERVICE, scopes=named)
        return Person(name=name_of(claims, self._oidc), role=role, scopes=named or None)

    # ------------------------------------------------------------------------------------------------------- browsers

    def where_to(self, flow: Flow, redirect_uri: str) -> str:
        """Return the address to which a browser is sent to log in.

        Raises
        ------
        Transient: the provider is not reached.
        """
        asked = {
            "response_type": "code",
            "client_id": self._oidc.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self._oidc.request),
            "state": flow.state,
            "nonce": flow.nonce,
            "code_challenge": base64.urlsafe_b64encode(hashlib.sha256(flow.verifier.encode()).digest()).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        address = str(self._documents().get("authorization_endpoint", ""))
        if urlsplit(address).scheme not in ("https", "http"):
            raise Transient("the identity provider names no place to log in", hint="Look at its configuration.")
        return f"{address}{'&' if '?' in address else '?'}{urlencode(asked)}"

    def finish(self, code: str, flow: Flow, redirect_uri: str) -> Person:
        """Return who has logged in, by the code that the browser brought back.

        Raises
        ------
        Rejected: the provider's answer is not about this log-in, or the person has no role here.
        Transient: the provider is not reached.
        """
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri, "code_verifier": flow.verifier}
        secret = first_line(self._oidc.client_secret_file).decode(errors="replace") if self._oidc.client_secret_file else ""
        basic = "client_secret_basic" in self._documents().get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if not (secret and basic):
            form |= {"client_id": self._oidc.client_id} | ({"client_secret": secret} if secret else {})
        client = (self._oidc.client_id, secret) if secret and basic else None
        answer = self._fetcher.post(str(self._documents().get("token_endpoint", "")), form, client)
        claims = self._claims(str(answer.get("id_token", "")), self._oidc.client_id)
        ours = claims is not None and secrets.compare_digest(str(claims.get("nonce", "")).encode(), flow.nonce.encode())
        if claims is None or not ours or claims.get("azp", self._oidc.client_id) != self._oidc.client_id:
            raise Rejected("the identity provider's answer is not about this log-in", hint="Log in again.")
        role = role_of(claims, self._oidc)
        if role is None or role is Role.SERVICE:
            raise Rejected("you have no role here", hint="web.oidc.roles says which groups of the identity provider have one.")
        return Person(name=name_of(claims, self._oidc), role=role)

    # --------------------------------------------------------------------------------------------------------- tokens

    def _claims(self, token: str, audience: str) -> dict[str, Any] | None:
        """Return what a token says if all of it may be believed: signature, issuer, audience, times."""
        try:
            header = jws.extract_compact(token.encode("ascii")).protected
            algorithm, kid = header.get("alg"), header.get("kid")
            if algorithm not in self._oidc.algorithms or header.get("b64") is False:
                return None
            for key in self._fitting(str(algorithm), kid if isinstance(kid, str) else None):
                if (claims := _signed(token, key, str(algorithm))) is not None:
                    self._registry(audience).validate(claims)
                    return claims
        except (JoseError, ValueError):  # of UnicodeEncodeError, too
            return None
        return None

    def _registry(self, audience: str) -> jwt.JWTClaimsRegistry:
        return jwt.JWTClaimsRegistry(
            now=int(self._clock()),
            leeway=self._oidc.skew_s,
            iss={"essential": True, "value": self._oidc.issuer},
            aud={"essential": True, "value": audience},
            sub={"essential": True},
            exp={"essential": True},
        )

    def _fitting(self, algorithm: str, kid: str | None) -> list[Key]:
        """Return the keys by which a token may be signed; one that is not known makes the provider be asked, but not often."""
        self._documents()
        known = [key for key in self._keys if kid is None or key.get("kid") == kid]
        if not known and self._renew(every_s=_AGAIN_S):
            known = [key for key in self._keys if kid is None or key.get("kid") == kid]
        return [made for one in known if (made := _key(one, algorithm)) is not None]

    def _documents(self) -> dict[str, Any]:
        if not 0 <= self._clock() - self._fetched_at <= _FRESH_S:  # below 0: the clock was put back
            self._renew(every_s=_AGAIN_S if self._document else 0.0)
        return self._document

    def _renew(self, *, every_s: float) -> bool:
        """Fetch the provider's documents; what was known stays where that fails."""
        known = bool(self._document)
        if not self._lock.acquire(blocking=False):  # nobody waits for who asks: requests by the dozen would hold every thread of the web
            if known:
                return False
            raise Transient("the identity provider is being asked just now", hint="Try again in a moment.")
        try:
            now = self._clock()
            if 0 <= now - self._tried_at <= every_s:
                return False
            self._tried_at = now
            self._document, self._keys = self._fetched()
            self._fetched_at = now
        except Transient as error:
            if not known:
                self._tried_at = float("-inf")
                raise
            log.warning("web.keys_not_renewed", reason=str(error))
            return False
        finally:
            self._lock.release()
        return True

    def _fetched(self) -> tuple[dict[str, Any], tuple[Mapping[str, Any], ...]]:
        document = self._fetcher.get(f"{self._oidc.issuer.rstrip('/')}/.well-known/openid-configuration")
        if document.get("issuer") != self._oidc.issuer:  # OpenID Connect Discovery 1.0, 4.3
            raise Transient("the identity provider calls itself otherwise than web.oidc.issuer", hint="Write it as its own document does.")
        keys = self._fetcher.get(str(document.get("jwks_uri", ""))).get("keys", [])
        return document, tuple(key for key in keys if isinstance(key, dict)) if isinstance(keys, list) else ()


def role_of(claims: Mapping[str, Any], oidc: Oidc) -> Role | None:
    """Return the highest role that a token's claims have here, None when they have none."""
    found: Any = claims
    for part in [oidc.roles_claim] if oidc.roles_claim in claims else oidc.roles_claim.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return max((Role[oidc.roles[name].upper()] for name in _words(found) if name in oidc.roles), default=None)


def name_of(claims: Mapping[str, Any], oidc: Oidc) -> str:
    """Return what the journal calls somebody of the provider's: always with "@", which nobody of this node's has."""
    said = claims.get(oidc.name_claim)
    name = said if isinstance(said, str) and said else str(claims.get("sub", ""))
    plain = "".join(character for character in name if character.isprintable())[:_NAME_CHARACTERS]
    return plain if "@" in plain else f"{plain}@{urlsplit(oidc.issuer).hostname}"


def _words(claim: Any) -> frozenset[str]:
    if isinstance(claim, str):
        return frozenset(claim.split())
    return frozenset(one for one in claim if isinstance(one, str)) if isinstance(claim, list) else frozenset()


def _key(said: Mapping[str, Any], algorithm: str) -> Key | None:
    """Make a key of what the provider publishes, if it may verify this algorithm."""
    if said.get("use", "sig") != "sig" or said.get("alg", algorithm) != algorithm:
        return None
    try:
        key = import_key({name: said[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in said})
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    if not isinstance(key, _KINDS[algorithm[:2]]):
        return None
    return None if isinstance(key, RSAKey) and key.raw_value.key_size < _RSA_BITS else key


def _signed(token: str, key: Key, algorithm: str) -> dict[str, Any] | None:
    try:
        return dict(jwt.decode(token, key, algorithms=[algorithm]).claims)
    except JoseError:
        return None
