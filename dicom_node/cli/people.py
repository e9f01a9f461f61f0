"""The verb by which a site says who may use the node by HTTP."""

import sys
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_node.cli.page import ConfigOption, JsonOption, StorageOption, ago, moment, person, plain, site_of, table, write
from dicom_node.domain import Rejected

if TYPE_CHECKING:
    from dicom_node.store import Store

_DAY_S = 86400.0


class Act(StrEnum):
    """What is done about somebody."""

    ADD = "add"  # a person, with a password; or a service, without
    ROLE = "role"
    PASSWORD = "password"  # noqa: S105 — a word
    DISABLE = "disable"
    ENABLE = "enable"
    LOGOUT = "logout"  # everywhere; also one whom the identity provider named
    TOKEN = "token"  # noqa: S105 — a word
    REVOKE = "revoke"


def people(
    act: Annotated[Act | None, typer.Argument(help="What to do; nothing: list them.")] = None,
    name: Annotated[str, typer.Argument(help="Whose name.")] = "",
    role: Annotated[str, typer.Option(help="viewer, operator or admin; service: a program, which has tokens.")] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="Of a token: dicomweb.read, dicomweb.write, worklist.read, worklist.write, api.read, api.act; may be given several times."),
    ] = None,
    days: Annotated[float, typer.Option(help="Of a token: how long it is valid.", min=0.01, max=3650)] = 365.0,
    config: ConfigOption = None,
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """List who may use the node by HTTP, or add a person or service, change its role or password, make a token, log out, disable.

    A password is asked for, or read from the standard input: never an argument, which every user of the machine could see.
    """
    from dicom_node.store import Store

    store = Store.of(site_of(config, storage).config.node)
    try:
        if act is None:
            _list(store, as_json)
        elif not name:
            raise Rejected(f"nobody to {act} was named", hint=f"dicom-node people {act} NAME")
        elif act is Act.TOKEN:
            expires_at = time.time() + days * _DAY_S
            made = store.people.token(name, scope or (), expires_at=expires_at, who=person(), now=time.time())
            typer.echo(f"{name}'s token, which is shown this once, is valid until {moment(expires_at)}:", err=True)
            typer.echo(made)
        else:
            typer.echo(_done(store, act, name, role))
    finally:
        store.close()


def _done(store: "Store", act: Act, name: str, role: str) -> str:
    who, now = person(), time.time()
    if act is Act.ADD:
        store.people.add(name, role, password="" if role == "service" else _password(), who=who, now=now)
        return f"{name} is added as {role}"
    if act is Act.ROLE:
        store.people.set_role(name, role, who=who, now=now)
        return f"{name} is {role} now"
    if act is Act.PASSWORD:
        store.people.set_password(name, _password(), who=who, now=now)
        return f"{name} has another password, and is logged out everywhere"
    if act is Act.LOGOUT:
        return f"{store.sessions.end_all(name, who=who, now=now)} sessions of {name} are ended"
    if act is Act.REVOKE:
        return f"{store.people.revoke(name, who=who, now=now)} tokens of {name} are revoked"
    store.people.set_disabled(name, act is Act.DISABLE, who=who, now=now)
    return f"{name} is {act}d"


def _list(store: "Store", as_json: bool) -> None:
    now = time.time()
    found = store.people.list(now=now)
    if as_json:
        write([plain(one) for one in found])
        return
    rows = [(one.name, one.role, "disabled" if one.disabled else "", one.tokens, moment(one.created_at), ago(one.seen_at, now)) for one in found]
    table("people", ("name", "role", "", "#tokens", "added", "seen"), rows, empty="nobody; on loopback everybody at this machine may do everything")


def _password() -> str:
    """Ask for a password twice, or read the first line that a script gives; return its hash."""
    from dicom_node.guard.passwords import hashed

    if sys.stdin.isatty():
        return hashed(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return hashed(sys.stdin.readline().rstrip("\r\n"))


VERBS = {"people": people}
