"""A Connector that keeps the true time, whatever clock the sidecar has."""

from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from compass_sidecar.core.answer import SignedAnswer
from compass_sidecar.core.credential import Chain, parse_certificates
from compass_sidecar.core.door import Door
from compass_sidecar.errors import ConnectorUnauthenticated
from tests.support.connector import ScriptedConnector
from tests.support.house import House

Connector = TypeVar("Connector", bound="TrueConnector")


class TrueConnector(ScriptedConnector):
    """Refuses a client certificate before and after its time, as the real one's TLS does."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.beginning = house.clock.now()
        self.chains: dict[str, Chain] = {}
        self.refused: str | None = None
        self.said: datetime | None = None
        super().__init__(house.authority, self.true_now)
        self.lifetime = house.lifetime

    def true_now(self) -> datetime:
        return self.beginning + self.house.clock.elapsed()

    def know(self, chain: Chain) -> None:
        self.chains[chain.fingerprint] = chain

    def date(self) -> datetime | None:
        """What the next answer says of the time."""
        return self.true_now().replace(microsecond=0)

    def _enter(self, operation: str, door: Door) -> None:
        self.said = self.date()
        if self.said is not None:
            self.house.connector_clock.note(self.said)
        super()._enter(operation, door)
        presented = door.pair.fingerprint if door.pair is not None else None
        if operation == "probe" and self.refused == "":
            self.refused = presented
        if presented is not None and presented == self.refused:
            raise ConnectorUnauthenticated("its CA is unknown")
        chain = self.chains[presented] if presented is not None else None
        if chain is not None and not chain.not_before <= self.true_now() < chain.effective_not_after:
            raise ConnectorUnauthenticated("not yet valid, or expired")

    async def sign(self, door: Door, csr_pem: bytes) -> SignedAnswer:
        answer = await super().sign(door, csr_pem)
        self.know(Chain.of(parse_certificates(answer.chain_pem)))
        return replace(answer, date=self.said)

    def refuse_the_next_pair(self) -> None:
        """The one that is proven next, and for ever."""
        self.refused = ""

    def accepts(self, chain: Chain) -> bool:
        return chain.not_before <= self.true_now() < chain.effective_not_after


def with_true_time(house: House) -> TrueConnector:
    """Before anything is held: the clock of this house tells the true time now."""
    return installed(TrueConnector(house))


def installed(connector: Connector) -> Connector:
    """Before anything is held: the house is opened anew with this Connector."""
    connector.house.connector = connector
    connector.house.close()
    connector.house.open()
    return connector
