"""The Connector in the simulation: a real CA and real chains, and every way in which it may go wrong."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from compass_sidecar.core.answer import Configuration, SignedAnswer
from compass_sidecar.core.credential import Chain
from compass_sidecar.core.door import Door
from compass_sidecar.errors import ConnectorTimeout, ConnectorUnauthenticated, UnusableURL
from tests.support.authority import Authority, name
from tests.support.connector import SUBJECT, TOKEN_URL, URL

from .keys import KEYS, rsa_key
from .process import Life
from .world import CALL_LIMIT, CONNECTOR_ERRORS, EPOCH, World

UNUSABLE_URL = "https://xn--a/connector/graphql"
FLAWS = ("another key", "another subject", "another CA", "ended", "a chain that does not hold together")
_CENTURY = timedelta(days=36_500)
T = TypeVar("T")


@dataclass
class Issued:
    """A certificate as the Connector knows it."""

    number: int
    chain: Chain
    good: bool  # made as asked for; the others must never come into use
    accepted_from: timedelta
    revoked: bool = False


@dataclass
class Signature:
    """A `sign` request that was sent."""

    at: timedelta
    automatic: bool
    csr: bytes = field(repr=False)


class SimulatedConnector:
    """The side that survives the sidecar's crashes. `automatic()` is whether no operator asked for it."""

    def __init__(self, world: World, note: Callable[[datetime], None]) -> None:
        self.world = world
        self.note = note
        self.automatic: Callable[[], bool] = lambda: True
        self.on_sign: Callable[[Signature], None] = lambda _: None
        dates = {"not_before": EPOCH - timedelta(days=400), "lifetime": _CENTURY}
        # An RSA signature is the same each time; an EC one is not, and identifies another certificate.
        self.authority = Authority.create(key=rsa_key(KEYS), **dates)  # type: ignore[arg-type]
        self.other_authority = Authority.create("Another CA", key=rsa_key(KEYS + 1), **dates)  # type: ignore[arg-type]
        self.issued: dict[str, Issued] = {}
        self.tokens: set[str] = set()
        self.announced: str | None = URL
        self.signatures: list[Signature] = []
        self.life: Life | None = None

    # --- operators -----------------------------------------------------------------------------

    def new_token(self) -> str:
        token = f"token-{self.world.chance.getrandbits(64):016x}"
        self.tokens.add(token)
        return token

    def issue_by_hand(self, key: int) -> Chain:
        """What an operator gets signed elsewhere, for a mounted pair."""
        return self._issue(self.authority, rsa_key(key).public_key(), None, good=True)

    # --- the port ------------------------------------------------------------------------------

    async def configuration(self, door: Door) -> Configuration:
        def act() -> Configuration:
            self._identify(door)
            token = None
            if door.token is not None:
                self.tokens.discard(door.token)
                token = self.new_token()
            date = self._date()
            return Configuration(SUBJECT, self.announced, "https://director.example", date, token, None)

        return await self._call("configuration", door, act)

    async def sign(self, door: Door, csr_pem: bytes) -> SignedAnswer:
        signature = Signature(self.world.elapsed(), door.token is None and self.automatic(), csr_pem)
        self.signatures.append(signature)
        self.on_sign(signature)

        def act() -> SignedAnswer:
            self._identify(door)
            if door.token is not None:
                self.tokens.discard(door.token)
            return self._answer(csr_pem)

        return await self._call("sign", door, act)

    async def probe(self, door: Door) -> datetime | None:
        def act() -> datetime | None:
            self._identify(door)
            return self._date()

        return await self._call("probe", door, act)

    async def revoke(self, door: Door) -> None:
        def act() -> None:
            self._identify(door)
            assert door.pair is not None
            self.issued[door.pair.fingerprint].revoked = True
            self._date()

        return await self._call("revoke", door, act)

    async def retire(self, keep: frozenset[str]) -> None:
        """There are no connections to close."""

    # --- inside --------------------------------------------------------------------------------

    async def _call(self, operation: str, door: Door, act: Callable[[], T]) -> T:
        assert self.life is not None
        if door.url == UNUSABLE_URL:
            raise UnusableURL("the URL can never be called")
        return await self.life.call(
            operation,
            act,
            errors=CONNECTOR_ERRORS,
            limit=CALL_LIMIT,
            late=lambda: ConnectorTimeout("no full answer within 40 s"),
        )

    def _identify(self, door: Door) -> None:
        if door.token is not None:
            if door.token not in self.tokens or door.url != TOKEN_URL:
                raise ConnectorUnauthenticated("HTTP 400 with an empty body")
            return
        issued = self.issued.get(door.pair.fingerprint) if door.pair is not None else None
        now = self.world.their_time()
        if (
            issued is None
            or issued.revoked
            or self.world.elapsed() < issued.accepted_from
            or not issued.chain.not_before - timedelta(seconds=1) <= now < issued.chain.effective_not_after
        ):
            raise ConnectorUnauthenticated("HTTP 400 with an empty body")

    def _date(self) -> datetime | None:
        """The answer's `Date`; the engine's clock hears of it, as through the adapter."""
        if self.world.date_error is None:
            return None
        try:
            date = (self.world.their_time() + self.world.date_error).replace(microsecond=0)
        except OverflowError:
            date = datetime.max.replace(microsecond=0, tzinfo=EPOCH.tzinfo)
        self.note(date)
        return date

    def _answer(self, csr_pem: bytes) -> SignedAnswer:
        csr = x509.load_pem_x509_csr(csr_pem)
        key = csr.public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        chance, storm = self.world.chance, self.world.storm
        flaw = chance.choice(FLAWS) if self.world.happens(storm / 4) else "none"
        if flaw == "another key":
            key = rsa_key(KEYS + 1).public_key()
        authority = self.other_authority if flaw == "another CA" else self.authority
        subject = name("somebody else") if flaw == "another subject" else csr.subject
        good = flaw in {"none", "another CA"}
        chain = self._issue(authority, key, subject, good=good, ended=flaw == "ended")
        self.world.say(f"signed {chain.fingerprint[:8]}, flaw: {flaw}")
        ca_pem = chain.ca_pem or b""
        answer = SignedAnswer(chain.pem.removesuffix(ca_pem), chain.pem, ca_pem, self._date())
        if flaw == "a chain that does not hold together":
            return replace(
                answer, ca_pem=self.other_authority.pem, chain_pem=answer.leaf_pem + self.other_authority.pem
            )
        return answer

    def _issue(
        self,
        authority: Authority,
        key: rsa.RSAPublicKey,
        subject: x509.Name | None,
        *,
        good: bool,
        ended: bool = False,
    ) -> Chain:
        world = self.world
        not_before = world.their_time().replace(microsecond=0)
        lifetime = timedelta(seconds=1) if ended else world.lifetime
        begin = not_before - (timedelta(days=1) if ended else timedelta(0))
        leaf = authority.issue(key=key, subject=subject, not_before=begin, lifetime=lifetime)
        chain = Chain.of([leaf, *authority.chain])
        # kyma#7110: what was just issued may be refused for a moment.
        refused = (
            world.between(timedelta(0), world.lifetime / 50) if world.happens(world.storm) else timedelta(0)
        )
        self.issued[chain.fingerprint] = Issued(len(self.issued), chain, good, world.elapsed() + refused)
        return chain
