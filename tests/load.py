"""A crowd around a real sidecar: callers, idle and slow clients, waiters.

    python -m tests.load renew --callers 1000
    python -m tests.load crowd --idle 2000 --slow 200 --seconds 60
    python -m tests.load waiters --waiters 1000 --renewals 100
    python -m tests.load fields --clients 80 --fields 15000 --listener health
    python -m tests.load ahead --clients 200 --requests 900 --listener api

Each prints its figures, and ends with status 1 if a promise was broken: one renewal makes one signature
however many ask for it; probes are answered whoever else is connected; nobody who waits is forgotten, and
memory and descriptors level off; no client makes the process take more than 160 MiB.
"""

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.process_figures import Figures
from tests.support.processes import EmulatorProcess, SidecarProcess, free_port

PATIENCE = 60.0  # seconds for any one answer: a hang is found, slowness is only told
_AT_ONCE = 250  # connections that are opened at the same time
_MEMORY_GROWTH, _MORE_DESCRIPTORS = 1.2, 16
_MOST_MEMORY = 160 * 1024  # KiB


@dataclass
class Answer:
    status: int
    head: str
    body: bytes

    def header(self, name: str) -> str:
        lines = (line.partition(": ") for line in self.head.split("\r\n"))
        return next(value for key, _, value in lines if key.lower() == name)


class Line:
    """A connection that says what it is told, byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> "Line":
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**20))

    async def ask(self, method: str, path: str, **headers: str) -> Answer:
        fields = {"Host": "localhost", "Content-Length": "0", **headers}
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        self.writer.write("\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode())
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            answer = Answer(int(head.split()[1]), head, b"")
            if answer.status not in (204, 304):
                answer.body = await self.reader.readexactly(int(answer.header("content-length")))
            return answer

    def close(self) -> None:
        self.writer.close()


async def opened(port: int, number: int) -> list[Line]:
    lines: list[Line] = []
    while len(lines) < number:
        wanted = min(_AT_ONCE, number - len(lines))
        lines += await asyncio.gather(*(Line.open(port) for _ in range(wanted)))
    return lines


async def renew(sidecar: SidecarProcess, emulator: EmulatorProcess, options: argparse.Namespace) -> list[str]:
    """All ask while one renewal runs."""
    signatures, before = emulator.signatures(), sidecar.fingerprint()
    lines = await opened(sidecar.port, options.callers)
    began = time.monotonic()
    answers = await asyncio.gather(*(line.ask("POST", "/renew") for line in lines))
    seconds = time.monotonic() - began
    for line in lines:
        line.close()
    kinds = {(answer.status, answer.body) for answer in answers}
    made = emulator.signatures() - signatures
    print(f"{options.callers} callers, {len(kinds)} different answers, {made} signatures, {seconds:.1f} s")
    broken = []
    if len(kinds) != 1 or {status for status, _ in kinds} != {200}:
        broken.append(f"not everybody got the same answer: {sorted(status for status, _ in kinds)}")
    elif json.loads(answers[0].body)["previous_fingerprint_sha256"] != before:
        broken.append("the answer is not about this renewal")
    return broken if made == 1 else [*broken, f"{made} signatures were asked for"]


async def crowd(sidecar: SidecarProcess, _: EmulatorProcess, options: argparse.Namespace) -> list[str]:
    """Whoever is cut off comes back, so that the crowd stays."""
    end = time.monotonic() + options.seconds
    comings = [0]

    async def stay(slowly: Callable[[Line], Awaitable[None]]) -> None:
        while time.monotonic() < end:
            line = await Line.open(sidecar.port)
            comings[0] += 1
            with suppress(OSError):
                async with asyncio.timeout(max(end - time.monotonic(), 0.0)):
                    await slowly(line)
            line.close()

    async def idle(line: Line) -> None:
        await line.reader.read(1)

    async def slow(line: Line) -> None:
        line.writer.write(b"GET /certificate HTTP/1.1\r\nHost: localhost\r\n")
        while not line.reader.at_eof():
            line.writer.write(b"X")
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await line.reader.read(1)

    everybody = [asyncio.create_task(stay(idle)) for _ in range(options.idle)]
    everybody += [asyncio.create_task(stay(slow)) for _ in range(options.slow)]
    times: list[float] = []
    broken: list[str] = []
    most = Figures.of(sidecar.process.pid)
    while time.monotonic() < end:
        for path in ("/livez", "/readyz", "/certificate/chain.pem"):
            began = time.monotonic()
            broken += await probe(sidecar.port, path)
            times.append(time.monotonic() - began)
        most = max(most, Figures.of(sidecar.process.pid), key=lambda figures: figures.descriptors)
        await asyncio.sleep(0.1)
    await asyncio.gather(*everybody, return_exceptions=True)
    times.sort()
    print(
        f"{options.idle} idle and {options.slow} slow clients for {options.seconds:g} s, "
        f"who came {comings[0]} times; {len(times)} probes, median {1000 * times[len(times) // 2]:.1f} ms, "
        f"slowest {1000 * times[-1]:.1f} ms; at most {most}"
    )
    if most.descriptors < options.idle + options.slow:
        broken.append("they were never all there")
    return broken


async def probe(port: int, path: str) -> list[str]:
    """What was wrong with the answer, if something was."""
    line = await Line.open(port)
    try:
        answer = await line.ask("GET", path)
    except (OSError, asyncio.IncompleteReadError) as error:
        return [f"{path} was not answered: {error!r}"]
    finally:
        line.close()
    return [] if answer.status == 200 else [f"{path} was answered {answer.status}"]


async def waiters(sidecar: SidecarProcess, _: EmulatorProcess, options: argparse.Namespace) -> list[str]:
    """Each waits for the next certificate, again and again."""
    current, arrived = sidecar.fingerprint(), asyncio.Condition()
    have: dict[int, str] = {}

    async def follow(number: int, line: Line) -> None:
        tag = (await line.ask("GET", "/certificate")).header("etag")
        while True:
            answer = await line.ask("GET", "/certificate?wait=50s", If_None_Match=tag)
            if answer.status == 200:
                tag = answer.header("etag")
                async with arrived:
                    have[number] = json.loads(answer.body)["fingerprint_sha256"]
                    arrived.notify_all()

    lines = await opened(sidecar.port, options.waiters)
    tasks = [asyncio.create_task(follow(number, line)) for number, line in enumerate(lines)]
    caller = await Line.open(sidecar.port)
    figures: list[Figures] = []
    began = time.monotonic()
    for _ in range(options.renewals):
        await asyncio.sleep(0.2)  # for those who have just been answered to wait again
        answer = await caller.ask("POST", "/renew")
        current = json.loads(answer.body)["certificate"]["fingerprint_sha256"]
        async with asyncio.timeout(PATIENCE), arrived:
            await arrived.wait_for(lambda: list(have.values()).count(current) == options.waiters)  # noqa: B023
        figures.append(Figures.of(sidecar.process.pid))
    seconds = time.monotonic() - began
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    broken = [
        f"a waiter was lost: {each!r}" for each in ended if not isinstance(each, asyncio.CancelledError)
    ]
    warm, last = figures[len(figures) // 10], figures[-1]
    print(
        f"{options.waiters} waiters, {options.renewals} renewals, {seconds:.1f} s; "
        f"after {len(figures) // 10 + 1}: {warm}; at the end: {last}"
    )
    if last.memory > warm.memory * _MEMORY_GROWTH or last.descriptors > warm.descriptors + _MORE_DESCRIPTORS:
        broken.append("memory or descriptors do not level off")
    return broken


async def fields(sidecar: SidecarProcess, _: EmulatorProcess, options: argparse.Namespace) -> list[str]:
    """Heads of many tiny fields, which take far more memory as objects than as bytes."""
    head = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"a:\r\n" * options.fields
    port = port_of(sidecar, options.listener)
    lines = await opened(port, options.clients)
    for line in lines:
        line.writer.write(head)
    statuses = Counter([await first_status(line) for line in lines])
    broken = await probe(port, "/livez")
    for line in lines:
        line.close()
    if statuses != {"431": options.clients}:
        broken.append(f"not every head was refused: {dict(statuses)}")
    sent = f"{options.clients} heads of {options.fields} fields, answered {dict(statuses)}"
    return [*broken, *memory(sidecar, options.listener, sent)]


async def ahead(sidecar: SidecarProcess, _: EmulatorProcess, options: argparse.Namespace) -> list[str]:
    """Many requests in one packet, behind one that takes its time where the listener has such."""
    first = {"api": "/certificate?wait=3s", "health": "/metrics"}[options.listener]
    paths = [first, *["/livez"] * options.requests]
    tag = (await (await Line.open(sidecar.port)).ask("GET", "/certificate")).header("etag")
    head = f" HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: {tag}\r\n\r\n"
    packet = "".join(f"GET {path}{head}" for path in paths).encode()
    lines = await opened(port_of(sidecar, options.listener), options.clients)
    for line in lines:
        line.writer.write(packet)
    broken = await probe(sidecar.port, "/livez")
    some = lines[:: max(len(lines) // 20, 1)]
    served = Counter(await asyncio.gather(*(served_in_order(line, len(paths)) for line in some)))
    for line in lines:
        line.close()
    if not served[len(paths)] or set(served) - {0, len(paths)}:
        broken.append(f"clients got some of {len(paths)} answers: {dict(served)}")
    sent = (
        f"{options.clients} clients with {len(paths)} requests at once; {served[len(paths)]} of {len(some)}"
    )
    return [*broken, *memory(sidecar, options.listener, f"{sent} that read on got all answers")]


def port_of(sidecar: SidecarProcess, listener: str) -> int:
    return int(sidecar.environment["COMPASS_PORT" if listener == "api" else "COMPASS_HEALTH_PORT"])


async def first_status(line: Line) -> str:
    async with asyncio.timeout(PATIENCE):
        with suppress(OSError):
            return (await line.reader.readline())[9:12].decode()
    return "reset"


async def served_in_order(line: Line, number: int) -> int:
    """How many requests of those sent are answered; 0 where the connection is refused."""
    for count in range(number):
        try:
            async with asyncio.timeout(PATIENCE):
                head = (await line.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                answer = Answer(int(head.split()[1]), head, b"")
                if answer.status == 503:
                    return count
                if answer.status != 304:
                    await line.reader.readexactly(int(answer.header("content-length")))
        except (OSError, asyncio.IncompleteReadError):
            return count
    return number


def memory(sidecar: SidecarProcess, listener: str, sent: str) -> list[str]:
    """Print the figures after what was sent; the complaint if it took too much."""
    figures = Figures.of(sidecar.process.pid)
    print(f"{listener}: {sent}; {figures}")
    return [f"it took {figures.peak // 1024} MiB"] if figures.peak > _MOST_MEMORY else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("renew", help="all ask for a renewal at once")
    one.add_argument("--callers", type=int, default=1000)
    two = commands.add_parser("crowd", help="idle and slow clients, and probes")
    two.add_argument("--idle", type=int, default=2000)
    two.add_argument("--slow", type=int, default=200)
    two.add_argument("--seconds", type=float, default=60)
    three = commands.add_parser("waiters", help="waiters through many renewals")
    three.add_argument("--waiters", type=int, default=1000)
    three.add_argument("--renewals", type=int, default=100)
    four = commands.add_parser("fields", help="heads of thousands of tiny fields")
    four.add_argument("--fields", type=int, default=15_000)
    five = commands.add_parser("ahead", help="hundreds of requests in one packet")
    five.add_argument("--requests", type=int, default=900)
    for attack, clients in ((four, 80), (five, 200)):
        attack.add_argument("--clients", type=int, default=clients)
        attack.add_argument("--listener", choices=("api", "health"), default="api")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    acts = {"renew": renew, "crowd": crowd, "waiters": waiters, "fields": fields, "ahead": ahead}
    act = acts[options.command]
    # So slow that everybody has asked before the first renewal ends.
    slowness = ("--latency", "1s") if options.command == "renew" else ()
    with tempfile.TemporaryDirectory() as name:
        emulator = EmulatorProcess(Path(name) / "emulator", *slowness)
        try:
            sidecar = start(emulator, Path(name))
            try:
                broken = asyncio.run(act(sidecar, emulator, options))
            finally:
                sidecar.close()
        finally:
            emulator.stop()
    for line in broken[:20]:
        print(line, file=sys.stderr)
    return 1 if broken else 0


def start(emulator: EmulatorProcess, folder: Path) -> SidecarProcess:
    at = emulator.endpoints
    environment = {
        "COMPASS_CONNECTOR_URL": at["connector_url"],
        "COMPASS_CONNECTOR_CA_FILE": at["ca_file"],
        "COMPASS_CLIENT_CERTIFICATE_FILE": at["client_certificate_file"],
        "COMPASS_CLIENT_KEY_FILE": at["client_key_file"],
        "COMPASS_STORE_DIR": str(folder / "store"),
        "COMPASS_RENEWAL_MIN_INTERVAL": "0s",
        "COMPASS_HEALTH_HOST": "127.0.0.1",
        "COMPASS_HEALTH_PORT": str(free_port()),
    }
    return SidecarProcess(environment, log=folder / "log").ready()


if __name__ == "__main__":
    sys.exit(main())
