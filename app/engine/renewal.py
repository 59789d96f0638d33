"""One renewal, or first connection, from start to end: everything that changes the credential.

    pending? -> configuration -> key + CSR -> pending (fsync) -> sign -> verify -> pending (fsync)
             -> probe with the new pair -> activate (one rename) -> publish -> revoke the old one later

Each step can fail or be killed, and the next attempt goes on from the last one that is on disk. The
credential in use is not touched before its successor has been proven.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from cryptography import x509

from ..core import chain as chains
from ..core.answer import Configuration, SignedAnswer
from ..core.catalogue import Event
from ..core.credential import Chain, Credential, load_public_key, render_private_key
from ..core.csr import make_csr, parse_subject
from ..core.door import Door
from ..core.generation import Facts, Generation, Mark, Origin, Pending, Signed, why_not_imported
from ..core.policy import CSR_MAX_AGE, PROOF_PATIENCE, PROOFS_BEFORE_DROP, Pace, in_danger, lives
from ..core.text import rfc3339
from ..core.token import Fate, OneTimeToken, fate_after
from ..errors import (
    ConnectorError,
    ConnectorProtocol,
    ConnectorRejected,
    ConnectorUnauthenticated,
    CredentialError,
    CredentialExpired,
    CredentialNotYetValid,
    NoCredential,
    SidecarError,
    StoreDamaged,
    StoreError,
    StoreWriteFailed,
    SubjectRefused,
    UnusableAnswer,
    UnusableURL,
)
from .ports import Clock, Connector, Journal, Keys, Notifier, Publisher, Store, Worker
from .proof import Candidate, Proof, Prover, Verdict
from .revocation import Revocation, Superseded

# For closing connections and publishing files, which the loop tries again.
_AFTERWARDS_LIMIT = timedelta(seconds=30)
_log = logging.getLogger("compass_sidecar.engine.renewal")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Renewed:
    """A renewal or connection that succeeded. `previous` is the fingerprint it replaced."""

    generation: Generation
    previous: str | None
    duration: timedelta


@dataclass(frozen=True, slots=True)
class Plan:
    """What the operator wants of a renewal. A `connector_url` that is set wins over announced ones."""

    connector_url: str | None = None
    revoke_superseded_after: timedelta | None = None


class Renewal:
    """Holds the current generation and what is pending. One thing at a time: `lock`."""

    def __init__(
        self,
        *,
        clock: Clock,
        store: Store,
        connector: Connector,
        keys: Keys,
        publisher: Publisher | None,
        disk: Worker,
        publishing: Worker,
        notifier: Notifier,
        journal: Journal,
        connector_time: Callable[[], datetime | None],
        plan: Plan,
        fit_for_tls: Callable[[Credential], Credential],
    ) -> None:
        """`fit_for_tls` raises MalformedCredential if the TLS library does not load a key and its chain."""
        self._clock = clock
        self._store = store
        self._connector = connector
        self._keys = keys
        self._publisher = publisher
        self._worker = disk
        self._publishing = publishing
        self._notifier = notifier
        self._journal = journal
        self._connector_time = connector_time
        self._plan = plan
        self._fit_for_tls = fit_for_tls
        self._started = clock.mark()
        self._last_request: Mark | None = None
        self.lock = asyncio.Lock()
        self.generation: Generation | None = None
        self.pending: Pending | None = None
        self.announced_url: str | None = None
        self.published = True
        self._unsaved = False
        self._spent_tokens: set[str] = set()
        self._prover = Prover(clock=clock, connector=connector)
        self.revocation = Revocation(self, clock=clock, connector=connector, journal=journal)
        self.superseded = Superseded(
            self,
            clock=clock,
            store=store,
            connector=connector,
            disk=self._disk,
            journal=journal,
            after=plan.revoke_superseded_after,
        )

    # --- start ---------------------------------------------------------------------------------

    async def restore(self) -> None:
        """Take up what the store holds: the current generation, and a renewal that was under way."""
        try:
            self.generation = await self._disk(self._store.load)
            await self._make_fit_for_tls()
        except StoreDamaged as error:
            self._journal.record(Event.STORE_DAMAGED, code=error.code, detail=error.detail)
        self.pending = await self._disk(self._store.pending)
        self._last_request = self._stored_request()
        if self.pending is not None and self.pending.begun_by != self._fingerprint():
            await self.drop_pending("it was begun with another credential")
        generation = self.generation
        if generation is not None and generation.facts.replaced_anchor is not None:
            self._record_anchor(generation.chain, generation.facts.replaced_anchor)
        await self.superseded.restore()
        await self._notifier.restore(self.generation)
        await self.publish()

    async def _make_fit_for_tls(self) -> None:
        """Store a chain anew that version 0.1.0 kept with white space that OpenSSL cannot read."""
        if self.generation is None:
            return
        with suppress(CredentialError, StoreWriteFailed):
            fit = await self._disk(self._fit_for_tls, self.generation.credential)
            if fit != self.generation.credential:
                self.generation = await self._disk(self._store.activate, fit, self.generation.facts)

    def _stored_request(self) -> Mark | None:
        """When the last sign request was sent, as far as the store knows it of this boot."""
        marks = [self.pending.request_mark] if self.pending is not None else []
        if self.generation is not None:
            marks += [self.generation.facts.request_mark, self.generation.facts.signature_mark]
        ours = [each for each in marks if each is not None and each.until(self._started) is not None]
        return max(ours, key=lambda mark: mark.since_boot, default=None)

    def pace(self) -> Pace:
        """How long ago the last signatures were asked for."""
        now, facts = self._clock.mark(), self.generation.facts if self.generation is not None else None
        return Pace(
            request=_since(self._last_request, now),
            signature=_since(facts.signature_mark, now) if facts is not None else None,
            drop=_since(facts.drop_mark, now) if facts is not None else None,
            start=_since(self._started, now) or timedelta(0),
        )

    def _fingerprint(self) -> str | None:
        return self.generation.chain.fingerprint if self.generation is not None else None

    def prepare(self) -> None:
        """Have the next key made while nothing else happens."""
        with suppress(RuntimeError):  # no thread to be had: the attempt that needs a key says so
            self._keys.begin()

    # --- renew ---------------------------------------------------------------------------------

    async def attempt(self, correlation_id: str, *, pause: timedelta = timedelta(0)) -> Generation:
        """Renew, or go on with what is pending; returns the generation now in use.

        `pause` is kept between two sign requests. The caller holds `lock`. Raises ConnectorError,
        StoreError or NoCredential.
        """
        pending = await self._resumable()
        try:
            return await self._go_on(pending or await self._begin(correlation_id), correlation_id)
        except SubjectRefused:
            if pending is not None and pending.origin is Origin.CONNECT:
                raise
        # The subject may have changed at the Connector since it was fetched: once more, afresh.
        await self._clock.sleep(pause)
        return await self._go_on(await self._begin(correlation_id), correlation_id)

    async def _go_on(self, pending: Pending, correlation_id: str) -> Generation:
        if pending.signed is None:
            pending = await self._sign(pending, correlation_id)
        return await self._finish(pending, correlation_id)

    async def _resumable(self) -> Pending | None:
        """What is pending and still of use, on disk."""
        pending = self.pending
        if pending is None:
            return None
        if self._unsaved:
            await self._keep(pending)
        age = self._clock.now() - pending.begun_at
        if pending.signed is None and not timedelta(0) <= age < CSR_MAX_AGE:
            await self.drop_pending("its CSR is too old")
            if pending.origin is Origin.CONNECT:
                raise NoCredential("the first connection was not finished in time; a new token is needed")
            return None
        if pending.signed is None:  # its sign request goes out next
            pending = replace(pending, request_mark=self._clock.mark())
            await self._keep(pending)
        return pending

    async def _begin(self, correlation_id: str) -> Pending:
        """Ask for the CSR information, and make key and CSR; both are on disk before anything is signed."""
        generation = self.generation
        if generation is None:
            raise NoCredential("there is no credential to renew; connect with a one-time token")
        door = self.door(generation, correlation_id)
        configuration = await self._connector.configuration(door)
        self._compare_url(configuration.connector_url)
        if configuration.url_fault is not None:
            self._journal.record(Event.ANNOUNCED_URL_UNUSABLE, detail=configuration.url_fault)
        return await self._request(
            configuration,
            origin=Origin.RENEW,
            sign_url=door.url,
            connector_url=self._plan.connector_url or configuration.connector_url or door.url,
        )

    async def _request(
        self,
        configuration: Configuration,
        *,
        origin: Origin,
        sign_url: str,
        connector_url: str,
        token_digest: str | None = None,
    ) -> Pending:
        try:
            subject = parse_subject(configuration.subject)
        except CredentialError as error:
            raise ConnectorProtocol(error.detail) from error
        key = await self._keys.take()
        csr_pem = await self._disk(make_csr, key, subject)  # not on the event loop: it signs
        pending = Pending(
            origin=origin,
            begun_by=self._fingerprint(),
            begun_at=self._clock.now(),
            sign_url=sign_url,
            connector_url=connector_url,
            director_url=configuration.director_url,
            subject=configuration.subject,
            key_pem=render_private_key(key),
            csr_pem=csr_pem,
            token=configuration.token,
            token_digest=token_digest,
            request_mark=self._clock.mark(),
        )
        await self._keep(pending)
        return pending

    async def _sign(self, pending: Pending, correlation_id: str) -> Pending:
        # The mark on disk is a moment older: that of the process is exact.
        self._last_request = self._clock.mark()
        pending = replace(pending, request_mark=self._last_request)
        try:
            answer = await self._connector.sign(self._sign_door(pending, correlation_id), pending.csr_pem)
        except ConnectorRejected:
            await self.drop_pending("the Connector refused its CSR")
            raise
        except ConnectorUnauthenticated as error:
            if pending.origin is not Origin.CONNECT:
                raise
            await self.drop_pending("its token was used or has expired")
            raise NoCredential(
                "the first connection was interrupted and its second token no longer works; "
                f"a new one-time token is needed ({error.detail})"
            ) from error
        signed = replace(pending, signed=await self._verified(answer, pending))
        await self._keep(signed)
        return signed

    def _sign_door(self, pending: Pending, correlation_id: str) -> Door:
        if pending.origin is Origin.CONNECT:
            return Door(pending.sign_url, correlation_id, token=pending.token)
        if self.generation is None:
            raise NoCredential("there is no credential to renew; connect with a one-time token")
        return self.door(self.generation, correlation_id)

    async def _verified(self, answer: SignedAnswer, pending: Pending) -> Signed:
        now = self._clock.now()
        anchors = self._anchors()
        expected = chains.Expected(
            public_key=load_public_key(pending.csr_pem),
            subject=parse_subject(pending.subject),
            at=answer.date or now,
        )
        try:
            verified = await self._disk(chains.verify, answer, expected)
        except (CredentialExpired, CredentialNotYetValid) as error:
            theirs = rfc3339(answer.date) if answer.date else "not known"
            raise UnusableAnswer(
                f"{error.detail}; the Connector's clock is {theirs}, ours {rfc3339(now)}"
            ) from error
        except CredentialError as error:
            raise UnusableAnswer(error.detail) from error
        chain = await self._loaded(Credential(verified, pending.key_pem))
        self._note_left_out(chain)
        changed = not chains.anchored(chain, anchors)
        if changed and self.generation is not None:
            self._record_anchor(chain, chains.anchor_text(self.generation.chain))
        return Signed(chain, now, anchor_changed=changed and pending.origin is Origin.RENEW)

    async def _loaded(self, credential: Credential) -> Chain:
        """The chain as OpenSSL reads it; an answer that it does not load can never be used."""
        try:
            return (await self._disk(self._fit_for_tls, credential)).chain
        except CredentialError as error:
            await self._give_up("OpenSSL does not load it")
            raise UnusableAnswer(f"the signed certificate {error.detail}") from error

    def _record_anchor(self, chain: Chain, replaced: str) -> None:
        self._journal.record(
            Event.TRUST_ANCHOR_CHANGED,
            issuer=chains.anchor_text(chain),
            previous_issuer=replaced,
            fingerprint=chain.fingerprint,
        )

    def _note_left_out(self, chain: Chain) -> None:
        if chain.left_out:
            self._journal.record(Event.CERTIFICATES_LEFT_OUT, detail=chain.left_out)

    def _anchors(self) -> tuple[x509.Certificate, ...]:
        return self.generation.chain.authorities if self.generation is not None else ()

    # --- prove and activate --------------------------------------------------------------------

    async def _finish(self, pending: Pending, correlation_id: str) -> Generation:
        assert pending.signed is not None  # noqa: S101 - _go_on signs first
        proven_url = await self._prove(pending, correlation_id)
        now = self._clock.now()
        replaced = self.generation if pending.origin is Origin.RENEW else None
        new_anchor = pending.signed.anchor_changed
        facts = Facts(
            origin=pending.origin,
            connector_url=proven_url or pending.connector_url,
            activated_at=now,
            director_url=pending.director_url,
            proven_at=now if proven_url is not None else None,
            replaced_end=replaced.chain.effective_not_after if replaced is not None else None,
            replaced_anchor=chains.anchor_text(replaced.chain) if replaced and new_anchor else None,
            connector_time=self._connector_time(),
            signature_mark=pending.request_mark,
        )
        return await self._activate(Credential(pending.signed.chain, pending.key_pem), facts)

    async def _prove(self, pending: Pending, correlation_id: str) -> str | None:
        """The URL at which the new pair was accepted; None if it has to be used without a proof."""
        good = self._good_generation()
        pair = await self._disk(self._store.pending_pair, pending)
        old = self._store.pair(good) if good is not None else None
        candidate = Candidate(pair, pending.connector_url, self._known_url(), old, self._ends_soon)
        proof = await self._prover.prove(candidate, correlation_id)
        if proof.error is None:
            if proof.url != pending.connector_url:
                self._journal.record(Event.ANNOUNCED_URL_UNUSABLE, url=pending.connector_url)
            return proof.url
        if proof.verdict is Verdict.UNUSABLE:
            await self._give_up("it can never be used")
            raise UnusableAnswer(str(proof.error)) from proof.error
        if proof.verdict is not Verdict.OPEN:
            await self._count_failed_proof(proof.verdict)
        if isinstance(proof.error, ConnectorError) and self._may_be_used_unproven(proof):
            code, detail = proof.error.code, proof.error.detail
            self._journal.record(Event.USED_UNPROVEN, code=code, detail=detail, fingerprint=pair.fingerprint)
            return None
        raise proof.error

    async def _count_failed_proof(self, verdict: Verdict) -> None:
        """Give the answer up after ten minutes of such failures, or if the old pair is accepted and ends."""
        pending, now = self.pending, self._clock.mark()
        assert pending is not None  # noqa: S101 - it has just been
        assert pending.signed is not None  # noqa: S101 - probed
        failures, since = pending.signed.failed_proofs + 1, pending.signed.failed_since
        lasted = since.until(now) if since is not None else None
        since = now if lasted is None else since
        with suppress(StoreError):  # the next start then counts from its own first failure
            await self._keep(
                replace(pending, signed=replace(pending.signed, failed_proofs=failures, failed_since=since))
            )
        if self._good_generation() is None:
            return
        if failures >= PROOFS_BEFORE_DROP and lasted is not None and lasted >= PROOF_PATIENCE:
            await self._give_up("its proof failed for ten minutes, while the old certificate was accepted")
        elif verdict is Verdict.REFUSED and self._ends_soon():
            await self._give_up("it is refused, and the old certificate ends soon")

    async def _give_up(self, why: str) -> None:
        """Drop a signed answer. The next automatic signature waits, longer after each drop in a row."""
        if self.generation is not None:
            drops, mark = self.generation.facts.drops + 1, self._clock.mark()
            facts = replace(self.generation.facts, drops=drops, drop_mark=mark)
            self.generation = replace(self.generation, facts=facts)
        await self.drop_pending(why)

    def _may_be_used_unproven(self, proof: Proof) -> bool:
        """Whether the new pair is the better choice: the old one ends, and this one was not refused."""
        refused = proof.verdict is Verdict.REFUSED or isinstance(proof.error, ConnectorUnauthenticated)
        if refused or self.pending is None:
            return False
        return self._good_generation() is None or self._ends_soon()

    def _good_generation(self) -> Generation | None:
        """The generation in use, unless it has expired or was revoked."""
        generation = self.generation
        if generation is None or generation.facts.revoked_at is not None:
            return None
        return generation if lives(generation.chain, self._clock.now()) else None

    def _ends_soon(self) -> bool:
        """Whether the pair in use is good, but not for long enough to wait for the proof of its successor."""
        good = self._good_generation()
        return good is not None and in_danger(good.chain, self._clock.now())

    async def prove_current(self, correlation_id: str) -> None:
        """Prove later what had to be used unproven. The caller holds `lock`."""
        generation = self.generation
        if generation is None:
            return
        await self._connector.probe(self.door(generation, correlation_id))
        await self.amend(proven_at=self._clock.now())
        self._journal.record(Event.PROVEN, fingerprint=generation.chain.fingerprint)

    def _known_url(self) -> str | None:
        return self.generation.facts.connector_url if self.generation is not None else None

    async def _activate(self, credential: Credential, facts: Facts) -> Generation:
        previous, fingerprint = self.generation, credential.chain.fingerprint
        # Connections that present the same certificate with a shorter chain are closed too.
        kept = frozenset({fingerprint}) - ({previous.chain.fingerprint} if previous is not None else set())
        if previous is not None:
            previous = await self.superseded.schedule(previous, fingerprint)
        generation = await self._disk(self._store.activate, credential, facts)
        self.generation = generation
        self.pending, self._unsaved = None, False
        if previous is not None:
            self.superseded.add(previous)
        # The credential is in use: what fails from here on is no failure of the attempt.
        for work in (partial(self._connector.retire, kept), self.publish):
            try:
                async with asyncio.timeout(_AFTERWARDS_LIMIT.total_seconds()):
                    await work()
            except Exception:  # noqa: BLE001 - see above
                _log.exception("internal-error", extra={"detail": "the new credential is in use"})
        return generation

    async def publish(self) -> None:
        """Bring the published files up to date, and then notify consumers.

        A failure is recorded, and the loop tries again.
        """
        generation = self.generation
        if generation is None:
            return
        try:
            publisher, credential = self._publisher, generation.credential
            if publisher is not None and await _within_limit(self._publishing, publisher.publish, credential):
                self._journal.record(Event.PUBLISHED, fingerprint=generation.chain.fingerprint)
        except BaseException as error:
            before, self.published = self.published, False  # the loop tries again, also what was cut off
            if not isinstance(error, Exception):
                raise
            if before:  # the credential is in use already: no renewal fails here
                failure = (
                    error if isinstance(error, SidecarError) else SidecarError(repr(type(error).__name__))
                )
                self._journal.record(Event.PUBLISH_FAILED, code=failure.code, detail=failure.detail)
        else:
            self.published = True
            self._notifier.announce(generation)

    # --- connect, import -----------------------------------------------------------------------

    async def connect(self, token: OneTimeToken, correlation_id: str) -> Generation:
        """The first connection, or a new one after expiry or revocation. The caller holds `lock`.

        `fate_of` says what a failure means for the token.
        """
        await self._keys.ready()
        try:
            door = Door(token.url, correlation_id, token=token.value)
            configuration = await self._connector.configuration(door)
        except ConnectorError as error:
            if fate_after(error) is Fate.SPENT:
                await self._remember(token)
            raise
        await self._remember(token)
        await self.drop_pending("a new connection replaces it")
        connector_url = self._plan.connector_url or configuration.connector_url
        if connector_url is None:
            fault = configuration.url_fault or "the Connector named no certificate-secured URL"
            raise UnusableURL(f"{fault}, and COMPASS_CONNECTOR_URL is not set")
        self._compare_url(configuration.connector_url)
        pending = await self._request(
            configuration,
            origin=Origin.CONNECT,
            sign_url=token.url,
            connector_url=connector_url,
            token_digest=token.digest,
        )
        return await self._go_on(pending, correlation_id)

    def is_pending(self, token: OneTimeToken) -> bool:
        """Whether the connection that was begun with this token is under way."""
        return self.pending is not None and self.pending.token_digest == token.digest

    def is_spent(self, token: OneTimeToken) -> bool:
        return token.digest in self._spent_tokens or self._store.token_used(token.digest)

    def fate_of(self, token: OneTimeToken, error: SidecarError) -> Fate:
        """What has become of the token when `connect` failed so. With a connection under way it is of use."""
        if self.is_pending(token):
            return Fate.LEFT
        return Fate.SPENT if self.is_spent(token) else fate_after(error)

    async def _remember(self, token: OneTimeToken) -> None:
        self._spent_tokens.add(token.digest)
        try:
            await self._disk(self._store.remember_token, token.digest)
        except StoreError as error:  # the token is used all the same, and its answer matters more
            self._journal.record(Event.TOKEN_NOT_REMEMBERED, code=error.code, detail=error.detail)

    async def adopt(self, credential: Credential) -> bool:
        """Import an operator's pair if it is wanted. The caller holds `lock`.

        True if it is the current one now. Raises CredentialExpired or CredentialNotYetValid for a
        pair that must not replace anything, NoCredential if no URL is known.
        """
        current, now = self.generation, self._clock.now()
        if current is not None:
            if reason := why_not_imported(credential.chain, current.chain):
                self._journal.record(
                    Event.IMPORT_IGNORED, detail=reason, fingerprint=credential.chain.fingerprint
                )
                return False
            try:
                chains.check_dates(credential.chain.certificates, now)
            except CredentialError as error:
                raise type(error)(f"COMPASS_CLIENT_CERTIFICATE_FILE: {error.detail}") from error
        url = self.connector_url()
        if url is None:
            raise NoCredential("COMPASS_CONNECTOR_URL: is needed to renew the imported files")
        await self.drop_pending("an import replaces it")
        self._note_left_out(credential.chain)
        if current is not None and current.chain.fingerprint == credential.chain.fingerprint:
            facts = replace(current.facts, activated_at=now)
        else:
            facts = Facts(
                origin=Origin.IMPORT,
                connector_url=url,
                activated_at=now,
                request_mark=self._last_request,
            )
        await self._activate(credential, facts)
        return True

    def anchor_changed(self) -> bool:
        """Whether the credential in use, or the one that waits for its proof, has another CA than before."""
        signed = self.pending.signed if self.pending is not None else None
        held = self.generation is not None and self.generation.facts.replaced_anchor is not None
        return held or (signed is not None and signed.anchor_changed)

    def revoking_fails(self) -> bool:
        """Whether a certificate that is to be revoked could not be yet."""
        return self.revocation.wait() is not None or self.superseded.failing()

    # --- small parts ---------------------------------------------------------------------------

    def connector_url(self) -> str | None:
        """Where the next call with the client certificate goes."""
        return self._plan.connector_url or self._known_url()

    async def amend(self, **changes: Any) -> None:
        """Change facts of the generation in use. A StoreError leaves the change in memory."""
        assert self.generation is not None  # noqa: S101 - of one that is in use
        facts = replace(self.generation.facts, **changes)
        self.generation = replace(self.generation, facts=facts)
        await self._disk(self._store.amend, self.generation, facts)

    def door(self, generation: Generation, correlation_id: str) -> Door:
        pair = self._store.pair(generation)
        return Door(self._plan.connector_url or generation.facts.connector_url, correlation_id, pair=pair)

    def _compare_url(self, announced: str | None) -> None:
        wanted = self._plan.connector_url
        other = announced if wanted is not None and announced not in {None, wanted} else None
        if other is not None and other != self.announced_url:
            self._journal.record(Event.CONNECTOR_URL_DIFFERS, announced=other, used=wanted)
        self.announced_url = other

    async def _keep(self, pending: Pending) -> None:
        """Put it on disk; if that fails it stays in memory, and the next attempt begins with this."""
        self.pending, self._unsaved = pending, True
        await self._disk(self._store.save_pending, pending)
        self._unsaved = False

    async def drop_pending(self, why: str) -> None:
        """Forget what is pending. What stays on disk is bound to a credential that is not current."""
        had, self.pending, self._unsaved = self.pending, None, False
        if had is None:
            return
        self._journal.record(Event.PENDING_DROPPED, detail=why)
        if self.generation is not None:
            with suppress(StoreError):  # a restart loses the pace then
                await self.amend(request_mark=self._last_request)
        try:
            await self._disk(self._store.drop_pending)
        except StoreError as error:
            self._journal.record(Event.PENDING_NOT_REMOVED, code=error.code, detail=error.detail)

    async def _disk(self, call: Callable[..., T], *args: object) -> T:
        """A slow disk must not hold up the event loop, and one that hangs no attempt."""
        return await _within_limit(self._worker, call, *args)


def _since(mark: Mark | None, now: Mark) -> timedelta | None:
    return mark.until(now) if mark is not None else None


async def _within_limit(worker: Worker, call: Callable[..., T], *args: object) -> T:
    try:
        return await worker.run(call, *args)
    except TimeoutError as error:
        raise StoreWriteFailed("the disk did not answer in time") from error
