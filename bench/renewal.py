"""3.2: a whole renewal, against its three calls made by bare httpx, and against the recipe in shell."""

import asyncio
import base64
import ssl
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bench.stage import SERVER_CORE, Effort, Stage, median, on_core, settle, spread, table, verdict
from tests.support.processes import EmulatorProcess, SidecarProcess

_CONFIGURATION = (
    "query { result: configuration { certificateSigningRequestInfo { subject keyAlgorithm } "
    "managementPlaneInfo { directorURL certificateSecuredConnectorURL } } }"
)
_SIGN = (
    "mutation ($csr: String!) { result: signCertificateSigningRequest(csr: $csr) "
    "{ certificateChain caCertificate clientCertificate } }"
)
_PROBE = "query { __typename }"
_RECIPE = Path(__file__).with_name("recipe.sh")
# Both have done nothing for a moment before they are asked: caches are as cold, and cores as slow.
IDLE = 0.8
_STEPS = ("configuration", "CSR", "sign", "files", "context", "probe")


class BareRenewal:
    """The three calls with nothing around them. The connection of the probe is the next round's warm one."""

    def __init__(self, emulator: EmulatorProcess, folder: Path) -> None:
        endpoints = emulator.endpoints
        self._url, self._ca = endpoints["connector_url"], endpoints["ca_file"]
        self._folder = folder
        folder.mkdir()
        self._pair = Path(endpoints["client_certificate_file"]), Path(endpoints["client_key_file"])
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._client: httpx.AsyncClient | None = None
        self._key = self._make_key()
        self._count = 0
        self.marks: list[tuple[str, float]] = []

    def renew(self) -> float:
        """Seconds. The key and the warm connection are ready before."""
        self._key = self._make_key()
        with on_core(SERVER_CORE):
            self._runner.run(self._warm())
            time.sleep(IDLE)
            began = time.perf_counter()
            self.marks.append(("", began))
            self._runner.run(self._renew())
            return time.perf_counter() - began

    def close(self) -> None:
        if self._client is not None:
            self._runner.run(self._client.aclose())
        self._runner.close()

    def parts(self) -> dict[str, float]:
        """Median milliseconds of each step."""
        taken: dict[str, list[float]] = {name: [] for name in _STEPS}
        for (_, began), (name, ended) in zip(self.marks, self.marks[1:], strict=False):
            if name:
                taken[name].append(1000 * (ended - began))
        return {name: median(times) for name, times in taken.items()}

    async def _warm(self) -> None:
        if self._client is None:
            self._client = self._open(*self._pair)
        await self._ask(self._client, _PROBE)

    async def _renew(self) -> None:
        assert self._client is not None
        answer = await self._ask(self._client, _CONFIGURATION)
        self._mark("configuration")
        csr = self._make_csr(answer["certificateSigningRequestInfo"]["subject"])
        self._mark("CSR")
        signed = await self._ask(self._client, _SIGN, csr=base64.b64encode(csr).decode())
        self._mark("sign")
        pair = self._write(csr, signed)
        self._mark("files")
        fresh = self._open(*pair)
        self._mark("context")
        await self._ask(fresh, _PROBE)
        self._mark("probe")
        await self._client.aclose()
        self._client = fresh

    def _mark(self, name: str) -> None:
        self.marks.append((name, time.perf_counter()))

    async def _ask(self, client: httpx.AsyncClient, query: str, **variables: str) -> Any:
        answer = await client.post(self._url, json={"query": query, "variables": variables})
        answer.raise_for_status()
        content = answer.json()
        assert "errors" not in content, content
        return content["data"].get("result")

    def _open(self, certificate: Path, key: Path) -> httpx.AsyncClient:
        context = ssl.create_default_context(cafile=self._ca)
        context.load_cert_chain(certificate, key)
        return httpx.AsyncClient(verify=context, trust_env=False, timeout=30)

    def _make_key(self) -> rsa.RSAPrivateKey:
        return rsa.generate_private_key(public_exponent=65537, key_size=4096)

    def _make_csr(self, subject: str) -> bytes:
        name = x509.Name.from_rfc4514_string(",".join(reversed(subject.split(","))))
        builder = x509.CertificateSigningRequestBuilder().subject_name(name)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _write(self, csr: bytes, signed: dict[str, str]) -> tuple[Path, Path]:
        self._count += 1
        certificate, key = (self._folder / f"{self._count}.{kind}" for kind in ("crt", "key"))
        certificate.write_bytes(base64.b64decode(signed["certificateChain"]))
        (self._folder / f"{self._count}.ca").write_bytes(base64.b64decode(signed["caCertificate"]))
        (self._folder / f"{self._count}.csr").write_bytes(csr)
        plain = serialization.NoEncryption()
        pkcs8 = serialization.PrivateFormat.PKCS8
        key.write_bytes(self._key.private_bytes(serialization.Encoding.PEM, pkcs8, plain))
        return certificate, key


def measure(stage: Stage, effort: Effort) -> None:
    for latency, target in (("0ms", 1.6), ("20ms", 1.2)):
        emulator = stage.emulator("--latency", latency)
        compare(stage, effort, emulator, latency, target)
    show_steps(stage, effort)


def compare(stage: Stage, effort: Effort, emulator: EmulatorProcess, latency: str, target: float) -> None:
    memory = stage.memory_folder() if latency == "0ms" else None
    sidecars = [stage.sidecar(stage.environment(emulator))]
    if memory is not None:
        sidecars.append(stage.sidecar(stage.environment(emulator, store=memory / "store")))
    bare = BareRenewal(emulator, stage.folder / f"bare-{latency}")
    for sidecar in sidecars:  # the first renewal imports httpx, and opens the first connection
        renew(sidecar)
    bare.renew()
    times: dict[str, list[float]] = {"disk": [], "memory": [], "bare": [], "shell": []}
    for _ in range(2 * effort.rounds):
        for name, sidecar in zip(("disk", "memory"), sidecars, strict=False):
            times[name].append(renew(sidecar))
        times["bare"].append(bare.renew())
    bare.close()
    for number in range(effort.rounds):
        times["shell"].append(run_recipe(emulator, stage.folder / f"recipe-{latency}-{number}"))
    show(times, bare.parts(), latency, target)
    for sidecar in sidecars:
        sidecar.stop()


def renew(sidecar: SidecarProcess) -> float:
    """Seconds until the answer to `POST /renew`, with the next key ready."""
    settle(sidecar.process.pid)
    time.sleep(IDLE)
    began = time.perf_counter()
    answer = sidecar.client.post("/renew")
    took = time.perf_counter() - began
    assert answer.status_code == 200, answer.text
    return took


def run_recipe(emulator: EmulatorProcess, folder: Path) -> float:
    endpoints = emulator.endpoints
    folder.mkdir()
    pair = endpoints["client_certificate_file"], endpoints["client_key_file"]
    command = ["sh", str(_RECIPE), endpoints["connector_url"], endpoints["ca_file"], *pair, str(folder)]
    with on_core(SERVER_CORE):
        began = time.perf_counter()
        subprocess.run(command, check=True)
        return time.perf_counter() - began


def show(times: dict[str, list[float]], parts: dict[str, float], latency: str, target: float) -> None:
    ours = 1000 * median(times["disk"])
    labels = {
        "bare": ("three calls by bare httpx", target),
        "shell": ("the recipe in shell, which makes its key first", 0.1),
        "memory": ("the sidecar with its store on tmpfs", None),
    }
    rows: list[Sequence[object]] = [("the sidecar", f"{ours:.1f}", range_of(times["disk"]), "", "")]
    for name, (label, limit) in labels.items():
        if times[name]:
            other = 1000 * median(times[name])
            told = verdict(ours / other, limit) if limit is not None else ""
            rows.append((label, f"{other:.1f}", range_of(times[name]), f"{ours / other:.2f}", told))
    head = ("renewal", "median ms", "single runs ms", "sidecar / this", "target")
    table(f"Renewal at {latency} per Connector call", head, rows)
    print("\nof which bare httpx: " + ", ".join(f"{name} {value:.1f}" for name, value in parts.items()))


def range_of(times: list[float]) -> str:
    return spread([1000 * each for each in times])


def show_steps(stage: Stage, effort: Effort) -> None:
    """Where the sidecar's time goes, by `bench.monitored`; what it times has parts that it times too."""
    sidecar = stage.monitored(stage.environment(stage.emulator()))
    renew(sidecar)
    windows = []
    for _ in range(2 * effort.rounds):
        settle(sidecar.process.pid)
        began = time.monotonic()
        renew_now = sidecar.client.post("/renew")
        assert renew_now.status_code == 200, renew_now.text
        windows.append((began, time.monotonic()))
    seen = sidecar.seen()
    names = sorted({name for name, _, _ in seen["steps"]})
    rows = []
    for name in names:
        per_window = [
            [took for step, at, took in seen["steps"] if step == name and begin <= at <= end]
            for begin, end in windows
        ]
        count, total = median([len(each) for each in per_window]), median([sum(each) for each in per_window])
        if count:
            rows.append((name, f"{count:g}", f"{1000 * total:.2f}"))
    rows.sort(key=lambda row: -float(row[2]))
    whole = 1000 * median([end - begin for begin, end in windows])
    rows.append(("the whole call", "1", f"{whole:.2f}"))
    table("Where a renewal's time goes (0 ms per call)", ("step", "times", "ms in all"), rows)
