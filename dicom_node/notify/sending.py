"""How it leaves: a post with a signature (HMAC-SHA256), mail over TLS, or HL7 v2 over MLLP. One attempt each; who calls tries again."""

import hmac
import smtplib
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from email.utils import formatdate
from hashlib import sha256
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from dicom_node.config import Mail, NodeConfig, Notify
from dicom_node.domain import ConfigError, Message, PeerUnavailable, Rejected
from dicom_node.guard.access import first_line
from dicom_node.notify.decisions import message
from dicom_node.notify.results import Whose, refusal, result
from dicom_node.notify.wording import mailed, posted, said
from dicom_node.wire.mllp import Unframed, exchange

SIGNATURE = "Dicom-Node-Signature"  # t=SECONDS,v1=HEX: HMAC-SHA256 of "SECONDS." and the body
_TAKEN = range(200, 300)
_READ_BYTES = 65536
_TEST = Whose(header={"PatientID": "TEST", "PatientName": "TEST^TEST"}, is_test=True)  # nobody


def send(one: Message, to: Notify, config: NodeConfig, *, now: float, patient: Mapping[str, str] | None = None, whose: Whose | None = None) -> None:
    """Tell a recipient one message. patient: where the site wants that told; whose: of a result by HL7 v2.

    Raises
    ------
    PeerUnavailable: it cannot be reached, or does not answer.
    Rejected: it does not take it.
    ConfigError: a file of the site cannot be used.
    """
    facts = said(one, config.node.ae_title, patient)
    if to.is_hl7:
        _result(one, to, config, whose, now)
    elif to.is_mail:
        _mail(one, to, config.mail, facts, now)
    else:
        _post(one, to, posted(facts), now)


def send_test(name: str, config: NodeConfig, now: float) -> str:
    """Send a recipient a message that is none, and return to whom it went.

    Raises
    ------
    ConfigError: there is no such recipient, or a file of the site cannot be used.
    PeerUnavailable: it cannot be reached, or does not answer.
    Rejected: it does not take it.
    """
    to = next((one for one in config.notify if one.name == name), None)
    if to is None:
        raise ConfigError(f"'{name}' is none of [[notify]]", hint=f"Known: {', '.join(one.name for one in config.notify) or 'none'}.")
    facts = {"what": "happened", "says": "this is a test: nothing is wrong", "at": now}
    send(message(name, "test", f"test {now!r}", facts, now), to, config, now=now, whose=_TEST)
    return to.to if to.is_mail else urlsplit(to.to).netloc


def signature(secret: bytes, body: bytes, at: int) -> str:
    """Return the header by which the other side knows who posts, and when."""
    return f"t={at},v1={hmac.new(secret, f'{at}.'.encode() + body, sha256).hexdigest()}"


def _post(one: Message, to: Notify, body: bytes, now: float) -> None:
    address = urlsplit(to.to)
    headers = {"Content-Type": "application/json", "User-Agent": "dicom-node", "Idempotency-Key": one.key}
    if to.secret_file is not None:
        headers[SIGNATURE] = signature(first_line(to.secret_file), body, int(now))
    line = _line(to, address)
    try:
        line.request("POST", (address.path or "/") + (f"?{address.query}" if address.query else ""), body, headers)
        answer = line.getresponse()
        answer.read(_READ_BYTES)
    except (OSError, HTTPException, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise PeerUnavailable(f"{address.netloc} does not answer a post: {why}", hint="Look at the address and the other side.") from error
    finally:
        line.close()
    if answer.status not in _TAKEN:
        raise Rejected(f"{address.netloc} answered a post with {answer.status}", hint="Look at the other side's log.")


def _line(to: Notify, address: Any) -> HTTPConnection:
    if address.scheme == "https":
        return HTTPSConnection(address.hostname, address.port, timeout=to.timeout_s, context=_context(to))
    return HTTPConnection(address.hostname, address.port, timeout=to.timeout_s)


def _context(to: Notify) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(to.authorities) if to.authorities else None)
    except OSError as error:
        raise ConfigError(f"{to.authorities} holds no certificates that can be read", hint="Name a PEM file in `authorities`.") from error


def _result(one: Message, to: Notify, config: NodeConfig, whose: Whose | None, now: float) -> None:
    if whose is None:
        raise Rejected("the study is not here any more: nobody could say whose result it is", hint="Look at node.retain_days.")
    address = urlsplit(to.to)
    context = _context(to) if address.scheme == "mllps" else None
    said_ = result(one, whose, node=config.node.ae_title, application=to.application, facility=to.facility, now=now)
    try:
        answered = exchange(address.hostname or "", address.port or 0, said_, timeout_s=to.timeout_s, context=context)
    except (OSError, Unframed) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise PeerUnavailable(f"{address.netloc} does not answer a result: {why}", hint="Look at the address and the other side.") from error
    if answered is None:
        raise PeerUnavailable(f"{address.netloc} ended without an answer to a result", hint="Look at the other side's log.")
    if why := refusal(answered, one):
        raise Rejected(f"{address.netloc} {why} to a result", hint="Look at the other side's log.")


def _mail(one: Message, to: Notify, mail: Mail, facts: Mapping[str, Any], now: float) -> None:
    subject, text = mailed(facts, to.subject, to.body)
    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = mail.sender, to.to, subject
    letter["Date"], letter["Message-ID"] = formatdate(now), f"<{one.key}@dicom-node.invalid>"
    letter["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's holiday answers it
    letter.set_content(text)
    try:
        with _server(mail) as server:
            if mail.user:
                server.login(mail.user, first_line(mail.password_file).decode() if mail.password_file else "")
            server.send_message(letter)
    except (smtplib.SMTPConnectError, smtplib.SMTPServerDisconnected, smtplib.SMTPHeloError) as error:
        raise _unreached(mail, error) from error
    except smtplib.SMTPException as error:
        code = getattr(error, "smtp_code", "")
        said_ = f"{mail.host} does not take mail: {type(error).__name__} {code}".rstrip()
        raise Rejected(said_, hint="Look at [mail] and the server's log.") from error
    except OSError as error:
        raise _unreached(mail, error) from error


def _server(mail: Mail) -> smtplib.SMTP:
    context = ssl.create_default_context(cafile=str(mail.authorities) if mail.authorities else None)
    if mail.security == "tls":
        return smtplib.SMTP_SSL(mail.host, mail.port, local_hostname="localhost", timeout=mail.timeout_s, context=context)
    server = smtplib.SMTP(mail.host, mail.port, local_hostname="localhost", timeout=mail.timeout_s)
    if mail.security == "starttls":
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
    return server


def _unreached(mail: Mail, error: Exception) -> PeerUnavailable:
    why = getattr(error, "strerror", None) or type(error).__name__
    return PeerUnavailable(f"{mail.host}:{mail.port} takes no mail: {why}", hint="Look at [mail] and the server.")
