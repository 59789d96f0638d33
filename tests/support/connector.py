"""A Connector without a network: a real CA, and a script of what goes wrong."""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from datetime import datetime, timedelta

from compass_sidecar.core.answer import Configuration, SignedAnswer
from compass_sidecar.core.credential import Chain
from compass_sidecar.core.door import Door
from tests.support.authority import CLIENT_ID, LIFETIME, Authority

URL = "https://connector.example/connector/graphql"
TOKEN_URL = "https://token.connector.example/connector/graphql"
SUBJECT = f"O=Org,OU=OrgUnit,L=locality,ST=province,C=DE,CN={CLIENT_ID}"


class ScriptedConnector:
    """`script["sign"].append(error)` makes the next call fail so; `always["probe"] = error` each one."""

    def __init__(self, authority: Authority, now: Callable[[], datetime]) -> None:
        self.authority = authority
        self.now = now
        self.lifetime = LIFETIME
        self.subject = SUBJECT
        self.connector_url: str | None = URL
        self.url_fault: str | None = None
        self.second_token = "token-b"
        self.skew = timedelta(0)
        self.calls: Counter[str] = Counter()
        self.doors: defaultdict[str, list[Door]] = defaultdict(list)
        self.csrs: list[bytes] = []
        self.script: defaultdict[str, deque[Exception | None]] = defaultdict(deque)
        self.always: dict[str, Exception] = {}
        # What a probe raises, by the pair and the URL; `script` and `always` come first.
        self.refuse: Callable[[Door], Exception | None] = lambda door: None
        self.answer: Callable[[SignedAnswer], SignedAnswer] = lambda answer: answer
        self.kept: frozenset[str] = frozenset()
        self.hanging: set[str] = set()  # operations that never answer
        self.hung = asyncio.Event()

    async def _hang(self, operation: str) -> None:
        if operation in self.hanging:
            self.hung.set()
            await asyncio.Event().wait()

    def _enter(self, operation: str, door: Door) -> None:
        self.calls[operation] += 1
        self.doors[operation].append(door)
        error = self.script[operation].popleft() if self.script[operation] else self.always.get(operation)
        if error is not None:
            raise error

    async def configuration(self, door: Door) -> Configuration:
        self._enter("configuration", door)
        await self._hang("configuration")
        token = self.second_token if door.token is not None else None
        return Configuration(
            self.subject, self.connector_url, "https://director.example", self.now(), token, self.url_fault
        )

    async def sign(self, door: Door, csr_pem: bytes) -> SignedAnswer:
        self.csrs.append(csr_pem)
        self._enter("sign", door)
        await self._hang("sign")
        date = self.now() + self.skew
        leaf = self.authority.sign(csr_pem, not_before=date.replace(microsecond=0), lifetime=self.lifetime)
        chain = Chain.of([leaf, *self.authority.chain])
        ca_pem = chain.ca_pem or b""
        leaf_pem = chain.pem.removesuffix(ca_pem)
        return self.answer(SignedAnswer(leaf_pem, chain.pem, ca_pem, date))

    async def probe(self, door: Door) -> datetime | None:
        self._enter("probe", door)
        if (error := self.refuse(door)) is not None:
            raise error
        await self._hang("probe")
        return self.now()

    async def revoke(self, door: Door) -> None:
        self._enter("revoke", door)
        await self._hang("revoke")

    async def retire(self, keep: frozenset[str]) -> None:
        self.kept = keep
