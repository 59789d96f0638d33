"""How uvicorn is run: on sockets that we bind, patient with nobody who is slow, and ending in time.

    with listen_tcp(("127.0.0.1", "::1"), 8080, may_miss=("::1",)) as sockets:
        await serve([Listener("api", api, sockets, API_SHARE)], on_stop=sidecar.begin_stop)

uvicorn itself has no limit for a request that never ends or an answer that nobody reads, makes Unix
sockets that everybody may use, and dies of the signal that ended it.
"""

import asyncio
import errno
import logging
import os
import resource
import signal
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import uvicorn

from ..core.catalogue import Event
from ..errors import SettingsError
from .connection import Connection
from .limits import Limits, Listener, Memory

_GRACE = 3  # seconds for answers under way; the process ends within 5
_BACKLOG = 2048
DEFAULT_LIMITS = Limits()
_OWN_FILES = 100  # at most some dozens are open
_FILES = 65_536  # a thousand clients wait at once, and the usual limit is 1024
_log = logging.getLogger("compass_sidecar.api.server")


# --- sockets -----------------------------------------------------------------------------------


@contextmanager
def listen_tcp(
    hosts: Sequence[str], port: int, *, may_miss: Sequence[str] = (), variables: str = "COMPASS"
) -> Iterator[list[socket.socket]]:
    """Listening sockets on every host. Those in `may_miss` may fail, with a warning, if another works.

    Raises SettingsError naming `variables`_HOST or _PORT.
    """
    with ExitStack() as stack:
        sockets, problems = [], []
        for host in hosts:
            try:
                sockets += [stack.enter_context(each) for each in _bind(host, port)]
            except OSError as error:
                line = f"{variables}_{_explain(error, host, port)}"
                if host not in may_miss:
                    raise SettingsError([line]) from error
                problems.append(line)
        if not sockets:
            raise SettingsError(problems)
        for line in problems:
            _log.warning(Event.ADDRESS_UNUSABLE, extra={"detail": line})
        yield sockets


def _bind(host: str, port: int) -> Iterator[socket.socket]:
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            # Two who bind at the same time are told apart only here.
            sock.listen(_BACKLOG)
        except OSError:
            sock.close()
            raise
        yield sock


def _explain(error: OSError, host: str, port: int) -> str:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if isinstance(error, socket.gaierror):
        return f"HOST: {host} cannot be resolved"
    if error.errno == errno.EADDRINUSE:
        return f"PORT: {address} is used by another process; end that, or choose another port"
    if error.errno == errno.EACCES:
        return f"PORT: {address} is not ours to use; choose a port above 1023"
    if error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
        return f"HOST: {host} is not an address of this machine"
    return f"PORT: {address} cannot be used: {os.strerror(error.errno or 0)}"


@contextmanager
def listen_unix(path: Path, *, group: int | None = None) -> Iterator[list[socket.socket]]:
    """A Unix socket for our user and `group`, mode 0660; removed at the end if it is still ours.

    Raises SettingsError if another process listens there, or something that is no socket is there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            _remove_stale(path)
            _bind_tightly(sock, path, group)
            ours = path.lstat().st_ino
        except OSError as error:
            raise SettingsError([f"COMPASS_UNIX_SOCKET: {path}: {error.strerror or error}"]) from error
        try:
            yield [sock]
        finally:
            with suppress(OSError):
                if path.lstat().st_ino == ours:
                    path.unlink()


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(
            errno.EEXIST, "something that is not a socket is there; remove it, or choose another path"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, "another process listens there; end that, or choose another path")


def _bind_tightly(sock: socket.socket, path: Path, group: int | None) -> None:
    # From the first moment on nobody else may connect: a mode set afterwards would be too late.
    umask = os.umask(0o177)
    try:
        sock.bind(str(path))
    finally:
        os.umask(umask)
    if group is not None:
        _give(path, group)
    path.chmod(0o660)
    sock.listen(_BACKLOG)


def _give(path: Path, group: int) -> None:
    try:
        os.chown(path, -1, group)
    except PermissionError as error:
        path.unlink()
        line = (
            f"COMPASS_PUBLISH_GROUP: the socket cannot be given to group {group}, of which we are no member;"
            " in Kubernetes add it to supplementalGroups in the pod's securityContext"
        )
        raise SettingsError([line]) from error


# --- serving -----------------------------------------------------------------------------------


async def serve(
    listeners: Sequence[Listener],
    *,
    on_stop: Callable[[], None],
    stop: asyncio.Event | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`; return within 5 s of it. In the main thread, on uvloop.

    `on_stop` is called once, on the loop, before open requests are waited for: it must wake whoever
    waits.
    """
    _share_files(listeners)
    config = uvicorn.Config(
        listeners[0].app,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        workers=1,
        timeout_keep_alive=cast(int, limits.send),
        timeout_graceful_shutdown=_GRACE,
    )
    server = _Server(config, listeners, limits, on_stop=on_stop, stop=stop or asyncio.Event())
    await server.serve(sockets=[sock for listener in listeners for sock in listener.sockets])


class _Server(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        listeners: Sequence[Listener],
        limits: Limits,
        *,
        on_stop: Callable[[], None],
        stop: asyncio.Event,
    ) -> None:
        super().__init__(config)
        self.servers: list[asyncio.Server] = []
        self._listeners = listeners
        self._limits = limits
        self._on_stop = on_stop
        self._stop = stop

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's raises the signal once more at the end, and so dies of it.

        Ours stay until the loop is closed: who asks twice must not end the process in its last step.
        """
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, self.handle_exit, each, None)
        yield

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        self._stop.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002
        """uvicorn's gives all sockets to one application."""
        loop, memory = asyncio.get_running_loop(), Memory()
        for listener in self._listeners:
            make = partial(
                Connection,
                config=self.config,
                server_state=self.server_state,
                app_state={},
                listener=listener,
                limits=self._limits,
                memory=memory,
            )
            for sock in listener.sockets:
                self.servers.append(await loop.create_server(make, sock=sock, backlog=_BACKLOG))
        self.started = True

    async def main_loop(self) -> None:
        # uvicorn's ticks ten times a second; the Date header needs one.
        while not await self.on_tick(0) and not self._stop.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stop()
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def _share_files(listeners: Sequence[Listener]) -> None:
    """Clients never take the descriptors that the store and the calls to the Connector need."""
    spare, wanted = _allow_files() - _OWN_FILES, sum(listener.most for listener in listeners)
    for listener in listeners:
        listener.most = max(1, min(listener.most, spare * listener.most // wanted))


def _allow_files() -> int:
    """As many as are needed, if we may; how many it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(soft, most)
