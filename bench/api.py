"""3.1: how much of the bare server's speed is left once there is a sidecar on it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from bench import wrk
from bench.stage import Effort, Stage, median, table, verdict
from tests.support.processes import SidecarProcess, free_port

_PEM = {"Accept": "application/pem-certificate-chain"}
_NGINX = """\
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log stderr error;
events {{ worker_connections 256; }}
http {{
  access_log off; sendfile on; keepalive_requests 100000000; default_type application/pem-certificate-chain;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen 127.0.0.1:{port}; root {folder}; }}
}}
"""


@dataclass(slots=True)
class Case:
    """One request, what it must reach, and what came of it."""

    name: str
    path: str
    target: float
    headers: dict[str, str] = field(default_factory=dict)
    ours: list[wrk.Result] = field(default_factory=list)
    bare: list[wrk.Result] = field(default_factory=list)

    @property
    def bare_path(self) -> str:
        return f"/{self.name.partition(' ')[0].lower()}{self.path}"


def measure(stage: Stage, effort: Effort) -> None:
    emulator = stage.emulator()
    sidecar = stage.sidecar(stage.environment(emulator))
    cases = make_cases(sidecar)
    answers = {case.bare_path: fetch(sidecar, case) for case in cases}
    bare, process = stage.bare("answers", str(stage.file("answers.json", json.dumps(answers).encode())))
    check_same(sidecar, bare, cases)
    seconds = effort.pick(5, 2)
    for turn in range(effort.rounds):
        for case in cases:
            ours = (case.ours, f"http://127.0.0.1:{sidecar.port}{case.path}", sidecar.process.pid)
            theirs = (case.bare, f"http://127.0.0.1:{bare}{case.bare_path}", process)
            for results, url, pid in (ours, theirs) if turn % 2 else (theirs, ours):
                results.append(wrk.load(url, pid, seconds=seconds, headers=case.headers))
    show(cases)
    show_landmarks(stage, sidecar, cases, effort)


def make_cases(sidecar: SidecarProcess) -> list[Case]:
    etag = sidecar.client.get("/certificate").headers["etag"]
    return [
        Case("JSON", "/certificate", 0.95),
        Case("PEM by Accept", "/certificate", 0.9, _PEM),
        Case("304 by If-None-Match", "/certificate", 0.9, {"If-None-Match": etag}),
        Case("chain.pem", "/certificate/chain.pem", 0.95),
        Case("livez", "/livez", 0.9),
        Case("readyz", "/readyz", 0.9),
    ]


def fetch(sidecar: SidecarProcess, case: Case) -> dict[str, object]:
    answer = sidecar.client.get(case.path, headers=case.headers)
    headers = [(name, value) for name, value in answer.headers.multi_items() if name != "date"]
    return {"status": answer.status_code, "headers": headers, "body": answer.text}


def check_same(sidecar: SidecarProcess, port: int, cases: list[Case]) -> None:
    def essence(answer: httpx.Response) -> object:
        return answer.status_code, answer.content, {**answer.headers, "date": ""}

    for case in cases:
        ours = sidecar.client.get(case.path, headers=case.headers)
        bare = httpx.get(f"http://127.0.0.1:{port}{case.bare_path}", headers=case.headers, trust_env=False)
        assert essence(ours) == essence(bare), case.name


def show(cases: list[Case]) -> None:
    rows = []
    for case in cases:
        ours, bare = (median([each.rate for each in results]) for results in (case.ours, case.bare))
        ratios = [mine.rate / theirs.rate for mine, theirs in zip(case.ours, case.bare, strict=True)]
        cost, cost_bare = (
            1e6 * median([each.cost for each in results]) for results in (case.ours, case.bare)
        )
        p99, p99_bare = (median([each.p99 for each in results]) for results in (case.ours, case.bare))
        ratio = median(ratios)
        rows.append(
            (
                f"`{case.path}` {case.name}",
                f"{ours:,.0f}",
                f"{bare:,.0f}",
                f"{ratio:.3f}",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
                f"{cost:.1f}",
                f"{cost_bare:.1f}",
                f"{cost_bare / cost:.3f}",
                f"{p99:.2f}",
                f"{p99_bare:.2f}",
                verdict(ratio, case.target, least=True),
            )
        )
    head: tuple[str, ...] = ("request", "sidecar /s", "bare /s", "ratio", "of single runs")
    head += ("CPU µs", "bare CPU µs", "ratio of CPU", "p99 ms", "bare p99 ms", "target")
    table("API: requests per second against a bare ASGI application", head, rows)


def show_landmarks(stage: Stage, sidecar: SidecarProcess, cases: list[Case], effort: Effort) -> None:
    chain = stage.file("chain.pem", sidecar.client.get("/certificate/chain.pem").content)
    bare = median([each.rate for case in cases if case.name == "chain.pem" for each in case.bare])
    landmarks: list[tuple[str, Callable[[Stage, Path], tuple[str, int]]]] = [
        ("a plain FastAPI route", fastapi_route)
    ]
    if shutil.which("nginx"):
        landmarks.append(("nginx, the file", nginx))
    rows = []
    for name, begin in landmarks:
        url, process = begin(stage, chain)
        results = [wrk.load(url, process, seconds=effort.pick(5, 2)) for _ in range(effort.rounds)]
        rate = median([each.rate for each in results])
        p99 = median([each.p99 for each in results])
        rows.append((name, f"{rate:,.0f}", f"{rate / bare:.2f}", f"{p99:.2f}"))
    table("Landmarks: `chain.pem` elsewhere", ("server", "requests/s", "of bare", "p99 ms"), rows)


def fastapi_route(stage: Stage, chain: Path) -> tuple[str, int]:
    port, process = stage.bare("route", str(chain))
    return f"http://127.0.0.1:{port}/chain.pem", process


def nginx(stage: Stage, chain: Path) -> tuple[str, int]:
    folder = chain.parent
    folder.chmod(0o755)  # its worker is another user
    chain.chmod(0o644)
    port = free_port()
    configuration = stage.file("nginx.conf", _NGINX.format(folder=folder, port=port).encode())
    master = stage.server("nginx", "-c", str(configuration), port=port)
    return f"http://127.0.0.1:{port}/chain.pem", master.pid
