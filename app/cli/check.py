"""`compass-sidecar check`: what is right and what is wrong, one finding each, without changing anything.

A second composition root: like `main` it puts settings and adapters together, but it starts nothing, takes
no lock and writes nothing, so that it may run beside a sidecar, or where none can start. The call that it
makes is the sidecar's own, through the same adapter: what it says of a failure is what `/status` says.
"""

import asyncio
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

from ..adapters import files, loop
from ..adapters.anchors import Anchors
from ..adapters.clock import Clock
from ..adapters.connector import Connector, Observation
from ..adapters.credential_files import CredentialFiles
from ..adapters.diagnosis import Step
from ..adapters.filestore import Store
from ..adapters.inputs import OperatorInputs
from ..adapters.journal import Entry, Journal
from ..adapters.reader import Reader
from ..adapters.tls import pair_in_memory
from ..core.chain import EARLY_TOLERANCE
from ..core.credential import Chain, Credential
from ..core.door import ClientPair, Door
from ..core.generation import why_not_imported
from ..core.policy import SKEW_LIMIT, left, nearly_over
from ..core.text import format_duration, rfc3339
from ..core.token import OneTimeToken
from ..core.url import URL, parse_https, parse_proxy
from ..errors import ConnectorUnauthenticated, ConnectorUntrusted, CredentialError, SidecarError, StoreDamaged
from ..settings import Settings, find_store_dir
from .findings import Finding, Outcome, Report, examine_published, examine_store

_RENEW = "`compass-sidecar renew` tries again"
_RECONNECT = "request a one-time token in Compass, then `compass-sidecar connect --token-file FILE`"
_CONNECT = f"a configured token that was not used is tried again, otherwise {_RECONNECT}"


@dataclass(frozen=True, slots=True)
class _Held:
    """What the next call would present: a credential in the store, or one in files to be imported."""

    credential: Credential
    url: str | None
    usable: bool
    pair: ClientPair | None = None


def examine(environ: Mapping[str, str], report: Report) -> None:
    """Tell `report` of every finding, in order. Raises SettingsError, and then knows nothing more."""
    settings = Settings.from_environment(
        environ, read=Reader("settings").read, default_store_dir=find_store_dir()
    )
    loop.run(_Examination(settings, report).run())


class _Examination:
    def __init__(self, settings: Settings, report: Report) -> None:
        self._settings = settings
        self._report = report
        self._clock = Clock()
        self._anchors = Anchors("COMPASS_CONNECTOR_CA_FILE", settings.connector_ca_file)
        self._seen: list[Observation] = []

    async def run(self) -> None:
        self._ok("configuration", _summary(self._settings))
        examine_store(self._settings.store_dir, self._report)
        if self._settings.publish_dir is not None:
            examine_published(self._settings.publish_dir, self._report)
        held, url = await self._credential()
        await self._way(url, held)
        self._examine_clock(held)
        self._last_renewal(held)

    # --- what is here ----------------------------------------------------------------------------

    async def _credential(self) -> tuple[_Held | None, str | None]:
        """What a sidecar would present now, and to which URL; findings about the store and the inputs."""
        stored, problem = self._stored()
        imported = await self._imported(stored)
        if problem is not None:
            self._report(Finding("credential", Outcome.WARNING if imported else Outcome.FAILED, problem))
        held = imported or stored
        if held is not None:
            return held, held.url
        token = await self._token() if problem is None else None
        return None, token.url if token is not None else self._settings.connector_url

    def _stored(self) -> tuple[_Held | None, str | None]:
        directory = self._settings.store_dir
        if os.path.lexists(directory) and not os.access(directory, os.R_OK | os.X_OK, effective_ids=True):
            return None, f"{directory} cannot be read by uid {os.geteuid()}: run this as the sidecar's user"
        try:
            generation = Store.peek(directory)
        except SidecarError as error:
            rest = "a start goes on with an older one, if a good one is left"
            return None, f"the current generation in {directory} cannot be used: {error.detail}; {rest}"
        if generation is None:
            return None, None
        revoked_at = generation.facts.revoked_at
        usable = self._judge("credential", "in the store", generation.chain, revoked_at=revoked_at)
        pair = Store(directory, now=self._clock.now, warn=_pass_over).pair(generation)
        url = self._settings.connector_url or generation.facts.connector_url
        return _Held(generation.credential, url, usable, pair), None

    async def _imported(self, stored: _Held | None) -> _Held | None:
        """The operator's pair, if a start would take it over."""
        certificate_file, key_file = self._settings.client_certificate_file, self._settings.client_key_file
        if certificate_file is None:
            return None
        phrase = self._settings.client_key_passphrase
        passphrase = phrase.get_secret_value().encode() if phrase is not None else None
        pair = CredentialFiles(certificate_file, key_file, passphrase, now=self._clock.now)
        try:
            credential = await Reader("credential files").run(pair.read)
        except (CredentialError, OSError) as error:
            unread = f"{certificate_file} cannot be read: "
            why = error.detail if isinstance(error, CredentialError) else unread + files.reason(error)
            outcome = Outcome.WARNING if stored is not None else Outcome.FAILED
            self._report(Finding("import", outcome, f"{why}; correct the files, or unset the variables"))
            return None
        if stored is not None and (reason := why_not_imported(credential.chain, stored.credential.chain)):
            self._ok("import", f"{certificate_file} is not taken over: {reason}")
            return None
        good = self._judge("import", f"{certificate_file}", credential.chain)
        return _Held(credential, self._settings.connector_url, good) if good or stored is None else None

    def _judge(self, name: str, where: str, chain: Chain, *, revoked_at: datetime | None = None) -> bool:
        """Whether it can be used, and a finding that says so."""
        now, end = self._clock.now(), chain.effective_not_after
        subject = chain.subject
        outcome = Outcome.FAILED
        if revoked_at is not None:
            detail = f"was revoked at {rfc3339(revoked_at)}; {_RECONNECT}"
        elif now >= end:
            ago = format_duration(now - end)
            detail = f"expired at {rfc3339(end)}, {ago} ago by our clock; if that is right, {_RECONNECT}"
        elif chain.not_before - now > EARLY_TOLERANCE:
            ahead = format_duration(chain.not_before - now)
            detail = (
                f"is not valid before {rfc3339(chain.not_before)}, in {ahead} by our clock; is that right?"
            )
        else:
            outcome = Outcome.WARNING if nearly_over(chain, now) else Outcome.OK
            detail = f"valid until {rfc3339(end)}, for another {format_duration(left(chain, now))}"
        self._report(Finding(name, outcome, f"{where}: {detail} ({subject})"))
        return outcome is not Outcome.FAILED

    async def _token(self) -> OneTimeToken | None:
        settings = self._settings
        inputs = OperatorInputs(
            clock=self._clock,
            files=None,
            anchors=self._anchors,
            token=settings.token.get_secret_value() if settings.token is not None else None,
            token_file=settings.token_file,
            token_url=settings.token_connector_url,
            token_used=lambda _digest: False,
        )
        try:
            token = await inputs.token()
        except SidecarError as error:
            self._failed("credential", f"there is none yet, and of the one-time token: {error.detail}")
            return None
        if token is None:
            missing = inputs.awaited or f"no one-time token to get one with: {_RECONNECT}"
            self._failed("credential", f"there is none, and {missing}")
            return None
        self._ok("credential", "none yet; the start will connect with the one-time token, if that is unused")
        return token

    # --- the way to the Connector ------------------------------------------------------------------

    async def _way(self, url: str | None, held: _Held | None) -> None:
        if url is None:
            self._no_way("is not known: set COMPASS_CONNECTOR_URL, or hand over a one-time token")
            return
        try:
            target = parse_https(url)
        except ValueError as fault:
            self._no_way(f"{fault}: set COMPASS_CONNECTOR_URL")
            return
        proxy, through = None, self._settings.proxy_for(url)
        with suppress(ValueError):  # the call says what is wrong with it
            proxy = parse_proxy(through) if through else None
        host = (proxy or target).host
        addresses = await self._resolve(host)
        error = await self._call(url, held)
        step = self._seen[-1].step
        known = ", ".join(addresses[:3]) if addresses != [host] else "an address, not a name"
        good = {
            "name resolution": f"{host} is {known}",
            "proxy": f"{proxy.where} lets us through" if proxy else self._no_proxy(target),
            "connection": f"to {target.where}",
            "TLS": f"the server certificate verifies with {self._trust()}",
            "Connector": f"accepts our certificate (asked in {self._seen[-1].seconds:.1f} s)",
        }
        broken = _broken(error, step, resolved=bool(addresses), proxied=through is not None)
        for rung in _RUNGS:
            if rung == broken and error is not None:
                self._tell_break(rung, error, held)
                break
            if rung == "connection" and step is Step.CONNECT:
                self._unchecked(rung, "no call was made")
            else:
                self._ok(rung, good[rung])
        for rung in _RUNGS[_RUNGS.index(broken) + 1 :] if broken else ():
            self._unchecked(rung, f"{broken} must be right first")

    def _tell_break(self, rung: str, error: SidecarError, held: _Held | None) -> None:
        if rung == "Connector" and held is None and isinstance(error, ConnectorUnauthenticated):
            self._unchecked(rung, "it answers, but there is no credential to show it yet")
        elif isinstance(error, ConnectorUnauthenticated) and "one-time token helps" not in error.detail:
            self._failed(rung, f"{error.detail}; if it lasts, {_RECONNECT}")
        else:
            self._failed(rung, error.detail)

    async def _resolve(self, host: str) -> list[str]:
        """The addresses of the name, none if it cannot be resolved."""
        try:
            async with asyncio.timeout(self._settings.connector_timeout.total_seconds()):
                found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError):
            return []
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    async def _call(self, url: str, held: _Held | None) -> SidecarError | None:
        """The probe, which passes everything on the way and changes nothing at the other end."""
        connector = Connector(
            anchors=self._anchors,
            proxy_for=self._settings.proxy_for,
            timeout=self._settings.connector_timeout,
            observe=self._seen.append,
            now=self._clock.now,
        )
        try:
            with _pair_of(held) as pair:
                await connector.confirm(Door(url, str(uuid4()), pair=pair))
        except SidecarError as error:
            return error
        finally:
            await connector.aclose()
        return None

    def _no_way(self, fault: str) -> None:
        for rung in _RUNGS[:-1]:
            self._unchecked(rung, "no URL of a Connector is known")
        self._failed("Connector", f"its URL {fault}")

    def _no_proxy(self, target: URL) -> str:
        if self._settings.https_proxy is None:
            return "none is set"
        return f"none is used: NO_PROXY exempts {target.host}"

    def _trust(self) -> str:
        ca_file = self._settings.connector_ca_file
        return f"COMPASS_CONNECTOR_CA_FILE ({ca_file})" if ca_file else "the system's trust store"

    # --- time, and what has been ---------------------------------------------------------------------

    def _examine_clock(self, held: _Held | None) -> None:
        now, begins = self._clock.now(), held.credential.chain.not_before if held is not None else None
        dated = next(((each.date, each.at) for each in self._seen if each.date is not None), None)
        if dated is None and begins is not None and begins - now > EARLY_TOLERANCE:
            self._failed(
                "clock", f"ours says {rfc3339(now)}, before the certificate was issued: set it (NTP)"
            )
        elif dated is None:
            self._unchecked("clock", f"there was no answer to compare with; ours says {rfc3339(now)}")
        elif abs(skew := dated[0] - dated[1]) > SKEW_LIMIT:
            side = "behind" if skew > timedelta(0) else "ahead of"
            self._failed(
                "clock",
                f"ours is {format_duration(abs(skew))} {side} the Connector's (ours {rfc3339(dated[1])}, its"
                f" {rfc3339(dated[0])}): set the clock of this machine (NTP)",
            )
        else:
            self._ok("clock", f"ours and the Connector's agree: {rfc3339(now)}")

    def _last_renewal(self, held: _Held | None) -> None:
        """How the last attempt ended: only a signature shows that a subject is refused."""
        events = Journal(self._settings.store_dir, warn=_pass_over).tail(200)
        last = next((each for each in reversed(events) if _tells(each, held)), None)
        if last is None:
            self._ok("last renewal", "none has been made yet")
        elif last["event"] == "attempt-failed":
            reason = f"failed at {last.get('at')}: {last.get('code')}: {last.get('detail')}"
            can_renew = held is not None and held.usable
            self._failed("last renewal", f"{reason}; {_RENEW if can_renew else _CONNECT}")
        else:
            self._ok("last renewal", f"{last['event']} at {last.get('at')}")

    # --- reporting -----------------------------------------------------------------------------------

    def _ok(self, name: str, detail: str) -> None:
        self._report(Finding(name, Outcome.OK, detail))

    def _failed(self, name: str, detail: str) -> None:
        self._report(Finding(name, Outcome.FAILED, detail))

    def _unchecked(self, name: str, detail: str) -> None:
        self._report(Finding(name, Outcome.UNCHECKED, f"not checked: {detail}"))


_RUNGS = ("name resolution", "proxy", "connection", "TLS", "Connector")


def _tells(event: Entry, held: _Held | None) -> bool:
    """Whether an attempt that counts ended like this: a refused token says nothing of what is held."""
    if event.get("event") == "attempt-failed":
        return held is None or event.get("wanted") != "connected"
    return event.get("event") in ("renewed", "connected", "imported")


def _broken(error: SidecarError | None, step: Step, *, resolved: bool, proxied: bool) -> str | None:
    """The rung at which the call ended."""
    if error is None:
        return None
    if isinstance(error, ConnectorUntrusted):
        return "proxy" if step is Step.PROXY else "TLS"
    # In TLS 1.2 a refusal of our certificate is part of the handshake.
    if isinstance(error, ConnectorUnauthenticated | StoreDamaged):
        return "Connector"
    if step is Step.CONNECT and not resolved:
        return "name resolution"
    rungs = {Step.CONNECT: "proxy" if proxied else "connection", Step.PROXY: "proxy", Step.TLS: "TLS"}
    return rungs.get(step, "Connector")


# --- small parts -----------------------------------------------------------------------------------


@contextmanager
def _pair_of(held: _Held | None) -> Iterator[ClientPair | None]:
    """The pair as files for `ssl`; what is still to be imported goes into memory, not onto a disk."""
    if held is None or held.pair is not None:
        yield held.pair if held is not None else None
        return
    with pair_in_memory(held.credential) as pair:
        yield pair


def _summary(settings: Settings) -> str:
    url = settings.connector_url or "the URL that it names when we connect"
    return f"valid; Connector: {url}"


def _pass_over(_code: str, _detail: str) -> None:
    """What is only worth a warning there is none here."""
