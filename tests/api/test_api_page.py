"""The page as the server writes it: guarded, escaped, and with words for everything that can be told."""

import base64
import hashlib
import re
import shlex
from dataclasses import replace
from datetime import timedelta
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from compass_sidecar import errors
from compass_sidecar.api.guard import Access
from compass_sidecar.api.page import page_answer, span
from compass_sidecar.api.schemas import StatusAnswer
from compass_sidecar.core.catalogue import CODES, EVENTS, REASONS
from compass_sidecar.core.status import LastError, Progress, State
from tests.api.fakes import FakeSidecar, generation
from tests.api.serving import TOKEN, local_client
from tests.support.authority import NOW

APP = Path(__file__).parents[2] / "app"


class Outline(HTMLParser):
    """The tags, the ids and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def ids(self) -> list[str | None]:
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]


async def page_of(sidecar: FakeSidecar, access: Access | None = None, **headers: str) -> str:
    async with local_client(sidecar, access) as client:
        reply = await client.get("/", headers=headers)
    assert reply.status_code == 200
    return reply.text


def busy_sidecar() -> FakeSidecar:
    """One of which there is a lot to tell."""
    sidecar = FakeSidecar(generation())
    error = LastError("connector-timeout", "too slow", True, sidecar.clock - timedelta(seconds=5))
    sidecar.status = replace(
        sidecar.status,
        due_at=NOW + timedelta(days=55),
        next_attempt_at=sidecar.clock + timedelta(minutes=3),
        progress=Progress(sidecar.clock, NOW, 3, error, False),
        connector_url="https://c.example.org",
        announced_url="https://other.example.org",
        clock_skew=timedelta(minutes=-5),
        warnings=("connector-url-differs",),
        events=tuple({"at": "2026-11-24T12:00:00Z", "event": event} for event in EVENTS),
    )
    return sidecar


@pytest.mark.anyio
async def test_the_policy_lets_in_what_is_in_the_page_and_nothing_else() -> None:
    async with local_client(busy_sidecar()) as client:
        reply = await client.get("/")
    policy = dict(each.strip().split(" ", 1) for each in reply.headers["content-security-policy"].split(";"))
    for kind in ("script", "style"):
        (inline,) = re.findall(rf"<{kind}>(.*?)</{kind}>", reply.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert policy.pop(f"{kind}-src") == f"'sha256-{digest}'"
    assert policy == {
        "default-src": "'none'",
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["cache-control"] == "no-store"
    outline = Outline(reply.text)
    for tag, attributes in outline.tags:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag
        assert tag in {"a", "link"} or "href" not in attributes
        assert "src" not in attributes
    assert len(outline.ids) == len(set(outline.ids))


@pytest.mark.anyio
async def test_the_page_is_guarded_like_the_status() -> None:
    async with local_client(busy_sidecar()) as client:
        rebound = await client.get("/", headers={"Host": "evil.example.org"})
        foreign = await client.get("/", headers={"Sec-Fetch-Site": "cross-site"})
    assert (rebound.status_code, foreign.status_code) == (421, 403)


@pytest.mark.anyio
async def test_the_page_tells_that_there_is_a_token_and_not_which() -> None:
    without = await page_of(busy_sidecar())
    page = await page_of(busy_sidecar(), Access(api_token=TOKEN))
    assert "data-token" not in without.partition("<script>")[0]
    assert '<form id="renew" class="scripted" data-token>' in page
    assert TOKEN not in page


def test_a_command_that_is_copied_cannot_carry_another() -> None:
    """Over the Unix socket `Host` may be anything."""
    sidecar, host = busy_sidecar(), "x' ; reboot ;'"
    answer = StatusAnswer.of(sidecar.status, sidecar.clock)
    page = page_answer(answer, sidecar.clock, host=host, asks_token=False).body.decode()
    commands = re.findall(r'<code id="curl-[a-z]+">(.*?)</code>', page)
    assert [shlex.split(unescape(command))[-1] for command in commands] == [
        f"http://{host}/status",
        f"http://{host}/renew",
        f"http://{host}/certificate/chain.pem",
    ]


@pytest.mark.anyio
async def test_a_busy_page_names_what_differs() -> None:
    text = Outline(await page_of(busy_sidecar())).text
    assert "the Connector's clock is 5 minutes behind ours" in text
    assert "The next attempt is made in 3 minutes, on " in text
    assert "The last attempt failed 5 seconds ago: The Connector took too long." in text
    assert "Too slow." in text
    assert "https://other.example.org" in text
    for reason in ("renewal-failing", "clock-skew", "connector-url-differs"):
        assert REASONS[reason].meaning in text
        assert REASONS[reason].remedy in text
    for event in list(EVENTS)[-20:]:
        assert EVENTS[event].words in text


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("after", "place"),
    [(timedelta(0), "0.00"), (timedelta(days=45), "50.00"), (timedelta(days=400), "100.00")],
)
async def test_now_is_marked_where_it_is(after: timedelta, place: str) -> None:
    sidecar = busy_sidecar()
    sidecar.clock = NOW + after
    page = await page_of(sidecar)
    assert f'<circle class="knob" cx="{place}%"' in page
    assert '<rect class="window" x="61.11%" y="24" width="38.89%"' in page


def test_there_is_a_remedy_for_every_failure_of_an_attempt() -> None:
    # Not by subclasses: which modules with errors of their own were imported is up to the other tests.
    classes = [each for each in vars(errors).values() if isinstance(each, type)]
    codes = {each.code for each in classes if issubclass(each, errors.SidecarError)}
    no_attempt = {"bad-settings", "bad-request", "busy", "not-current", "renewed-recently"}
    no_attempt |= {"too-many-waiters", "notification-failed", "store-locked"}
    assert {code for code, each in CODES.items() if each.remedy} == codes - no_attempt


@pytest.mark.parametrize("state", list(State))
def test_every_state_is_one_of_the_styles(state: State) -> None:
    page = (APP / "api" / "templates" / "page.css").read_text()
    assert state is State.UNCONNECTED or f"body[data-state={state.value}]" in page


@pytest.mark.anyio
async def test_what_is_not_ours_is_escaped() -> None:
    evil = "<img src=x onerror=alert(1)>"
    sidecar = busy_sidecar()
    entry = {"at": evil, "event": evil, "detail": evil, "code": evil}
    error = LastError("connector-protocol", evil, False, sidecar.clock)
    sidecar.status = replace(
        sidecar.status,
        connector_url=evil,
        warnings=(evil,),
        progress=replace(sidecar.status.progress, last_error=error),
        events=(entry, {"not_after": evil, "fingerprint": evil}, {"event": "published", "url": evil}),
    )
    page = await page_of(sidecar)
    assert "<img" not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") >= 7


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "1 second"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (3660, "1 hour and 1 minute"),
        (90000, "1 day and 1 hour"),
        (7 * 86400, "7 days"),
    ],
)
def test_a_span_is_as_precise_as_a_person_wants_it(seconds: int, words: str) -> None:
    assert span(timedelta(seconds=seconds)) == words
