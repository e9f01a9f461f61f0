"""Who may use the node by HTTP: people and programs, as the ledger knows them."""

import re
from dataclasses import dataclass

PERSON_ROLES = ("service", "viewer", "operator", "admin")  # each of the last three may what those before it may
SCOPES = ("dicomweb.read", "dicomweb.write", "worklist.read", "worklist.write", "api.read", "api.act")  # what a program may be allowed

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_RESERVED = ("local",)  # the journal's word for whoever sits at this machine


def is_person_name(name: str) -> bool:
    """Say whether a person of this node's may be called so: never with "@", which the identity provider's people have."""
    return bool(_NAME.fullmatch(name)) and name not in _RESERVED


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A person or a program that the ledger knows."""

    name: str
    role: str  # one of PERSON_ROLES
    disabled: bool
    has_password: bool
    tokens: int  # that are valid
    created_at: float
    seen_at: float | None = None  # when it last logged in, or showed a token


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """Who shows a token. scopes: what that token allows."""

    name: str
    role: str
    scopes: frozenset[str] = frozenset()
