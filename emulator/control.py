"""The control endpoint: plain HTTP and JSON on loopback, for tests and people.

It has no authentication, since there is nothing real behind it. A browser's request is refused by its
`Origin`, so that no web page can use a developer's emulator.
"""

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from importlib.resources import files
from typing import Any, Protocol

from . import http
from .clock import Clock, parse_duration, parse_offset
from .connection import Connection
from .director import TokenForms
from .http import JSON, Answer, HTTPConversation, Request

Body = dict[str, Any]


class Controlled(Protocol):
    """What the endpoint can do; `Emulator` does it."""

    def state(self) -> Body:
        """Everything worth knowing, as JSON."""
        ...

    def token(self, *, ttl: timedelta | None = None, consumer_type: str | None = None) -> TokenForms:
        """A new one-time token of a new system auth."""
        ...

    def fault(self, spec: str) -> None:
        """Activates a fault."""
        ...

    def set_chaos(self, rate: float, seed: int | None = None) -> None:
        """Random faults, repeatable with a seed."""
        ...

    def clear_faults(self) -> None:
        """Deactivates all faults."""
        ...

    def revoke(self, fingerprint: str) -> None:
        """Revokes a certificate."""
        ...

    def forget(self, client_id: str) -> bool:
        """Deletes a system auth."""
        ...

    def set_clock_offset(self, offset: timedelta) -> None:
        """Moves the Connector's clock."""
        ...

    def set_lifetime(self, lifetime: timedelta) -> None:
        """For certificates signed from now on."""
        ...

    def set_subject(self, subject: str) -> None:
        """Changes the subject's constants."""
        ...

    async def replace_client_ca(self, *, keep_connections: bool = False) -> None:
        """Makes and trusts a new client CA."""
        ...

    async def outage(self, seconds: float) -> None:
        """Closes both listeners for a while."""
        ...

    def reset_counters(self) -> None:
        """Sets all counters to zero."""
        ...


class Control:
    """Serves the connections of the control port."""

    def __init__(self, emulator: Controlled) -> None:
        self._emulator = emulator
        self._routes: dict[str, dict[str, Callable[[Body], Awaitable[Body | Answer]]]] = {
            "/": {"GET": self._state},
            "/healthz": {"GET": self._healthz},
            "/tokens": {"POST": self._tokens},
            "/faults": {"POST": self._fault, "DELETE": self._clear_faults},
            "/chaos": {"POST": self._chaos},
            "/revoke": {"POST": self._revoke},
            "/forget": {"POST": self._forget},
            "/clock": {"POST": self._clock},
            "/client-ca": {"POST": self._client_ca},
            "/lifetime": {"POST": self._lifetime},
            "/subject": {"POST": self._subject},
            "/outage": {"POST": self._outage},
            "/reset-counters": {"POST": self._reset_counters},
            "/openapi.yaml": {"GET": self._openapi},
        }

    async def serve(self, connection: Connection) -> None:
        """A whole connection."""
        conversation = HTTPConversation(connection, Clock())
        while (request := await conversation.next_request()) is not None:
            wire = conversation.render(await self._answer(request), method=request.method)
            await connection.send(wire.head + wire.body)
            if not conversation.keeps_open():
                break
        await connection.finish()

    async def _answer(self, request: Request) -> Answer:
        methods = self._routes.get(request.path)
        if "origin" in request.headers:
            return _error(403, "the control endpoint is not for web pages")
        if methods is None:
            return _error(404, f"no such path; there are {', '.join(sorted(self._routes))}")
        method = "GET" if request.method == "HEAD" else request.method
        if method not in methods:
            return _error(405, f"only {', '.join(methods)}").with_header("Allow", ", ".join(methods))
        try:
            given = await methods[method](_body(request))
            return given if isinstance(given, Answer) else Answer(200, http.as_go_json(given), JSON)
        except KeyError as error:
            return _error(400, f"the body lacks {error.args[0]!r}")
        except ValueError as error:
            return _error(400, str(error))

    async def _state(self, _body: Body) -> Body:
        return self._emulator.state()

    async def _healthz(self, _body: Body) -> Body:
        return {"status": "ok"}

    async def _tokens(self, body: Body) -> Body:
        ttl = parse_duration(_text(body, "ttl")) if "ttl" in body else None
        kind = _text(body, "consumer_type") if "consumer_type" in body else None
        return dict(self._emulator.token(ttl=ttl, consumer_type=kind).as_dict())

    async def _fault(self, body: Body) -> Body:
        self._emulator.fault(_text(body, "fault"))
        return {"faults": self._emulator.state()["faults"]}

    async def _clear_faults(self, _body: Body) -> Body:
        self._emulator.clear_faults()
        return {"faults": []}

    async def _chaos(self, body: Body) -> Body:
        rate, seed = body["rate"], body.get("seed")
        if not isinstance(rate, (int, float)):
            raise ValueError("rate is a number from 0 to 1")  # noqa: TRY004 (one way to answer 400)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise ValueError("seed is a whole number")
        self._emulator.set_chaos(float(rate), seed)
        return {"rate": rate, "seed": self._emulator.state()["seed"]}

    async def _revoke(self, body: Body) -> Body:
        self._emulator.revoke(_text(body, "fingerprint"))
        return {"revoked": True}

    async def _forget(self, body: Body) -> Body:
        return {"forgotten": self._emulator.forget(_text(body, "client_id"))}

    async def _clock(self, body: Body) -> Body:
        offset = parse_offset(_text(body, "offset"))
        self._emulator.set_clock_offset(offset)
        return {"offset_seconds": offset.total_seconds()}

    async def _client_ca(self, body: Body) -> Body:
        keep = body.get("keep_connections", False)
        if not isinstance(keep, bool):
            raise ValueError("keep_connections is true or false")  # noqa: TRY004 (one way to answer 400)
        await self._emulator.replace_client_ca(keep_connections=keep)
        return {"replaced": True}

    async def _lifetime(self, body: Body) -> Body:
        lifetime = parse_duration(_text(body, "lifetime"))
        self._emulator.set_lifetime(lifetime)
        return {"lifetime_seconds": lifetime.total_seconds()}

    async def _subject(self, body: Body) -> Body:
        self._emulator.set_subject(_text(body, "subject"))
        return {"subject": body["subject"]}

    async def _outage(self, body: Body) -> Body:
        seconds = parse_duration(_text(body, "seconds")).total_seconds()
        await self._emulator.outage(seconds)
        return {"seconds": seconds}

    async def _reset_counters(self, _body: Body) -> Body:
        self._emulator.reset_counters()
        return {"reset": True}

    async def _openapi(self, _body: Body) -> Answer:
        return Answer(200, files(__package__).joinpath("openapi.yaml").read_bytes(), "application/yaml")


def _body(request: Request) -> Body:
    """The JSON object of a request, whatever its content type: this is for curl."""
    content = json.loads(request.body or b"{}")
    if not isinstance(content, dict):
        raise ValueError("the body is not a JSON object")  # noqa: TRY004 (one way to answer 400)
    return content


def _text(body: Body, name: str) -> str:
    """A field as text; numbers are welcome where a duration is meant."""
    value = body[name]
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"{name} is not a text")  # noqa: TRY004 (one way to answer 400)
    return str(value)


def _error(status: int, message: str) -> Answer:
    return Answer(status, http.as_go_json({"error": message}), JSON)
