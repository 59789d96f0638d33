"""The command line: `compass-emulator`, or `python -m compass_emulator`."""

import argparse
import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from .clock import parse_duration, parse_offset
from .faults import FAULTS
from .faults.plan import parse_fault
from .options import ConsumerType, EmulatorOptions
from .service import Emulator, EmulatorError
from .subjects import SubjectConstants

_CHAOS_RATE = 0.1
_NAME = "compass-emulator"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT: 0; 1 if it cannot start; a bad option exits with 2."""
    given = _joined(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    if options.list_faults:
        return _print_faults()
    try:
        asyncio.run(_run(_options(options), quiet=options.quiet))
    except EmulatorError as error:
        print(f"{_NAME}: {error}", file=sys.stderr)
        return 1
    return 0


def _print_faults() -> int:
    """The table, as far as it is read."""
    try:
        print(_fault_list(), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the exit tries again
    return 0


async def _run(options: EmulatorOptions, *, quiet: bool) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with Emulator.start(options) as emulator:
        if not quiet:
            print(_summary(emulator), flush=True)
        await stopping.wait()


class _Parser(argparse.ArgumentParser):
    """Errors in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{_NAME}: {message} (see --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=_NAME,
        description="A Compass Connector for development and tests.",
        epilog="Durations are 90d, 24h, 10m, 30s, 500ms or a number of seconds.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--dir", type=Path, default=Path(".emulator"), help="everything persistent (default: %(default)s)")
    add("--host", default="127.0.0.1", help="where both Connector endpoints listen (default: %(default)s)")
    add(
        "--token-port",
        type=_port,
        default=8443,
        help="token-secured Connector (default: %(default)s; 0: any)",
    )
    add(
        "--mtls-port",
        type=_port,
        default=8444,
        help="certificate-secured Connector (default: %(default)s; 0: any)",
    )
    add("--control-port", type=_port, default=8445, help="control endpoint (default: %(default)s; 0: any)")
    add(
        "--control-host",
        default="127.0.0.1",
        help="where the control endpoint listens (default: %(default)s)",
    )
    add(
        "--server-name",
        action="append",
        default=[],
        metavar="NAME",
        help="further name in the server certificate",
    )
    add("--advertise", metavar="HOST", help="the host in URLs that are handed out (default: --host)")
    add(
        "--subject",
        type=_typed(SubjectConstants.parse),
        default=SubjectConstants(),
        help="O=..,OU=..,L=..,ST=..,C=..",
    )
    add(
        "--consumer-type",
        choices=get_args(ConsumerType),
        default="Application",
        help="(default: %(default)s)",
    )
    add(
        "--director-url",
        metavar="URL",
        help="what `configuration` says (default: the emulator's own Director)",
    )
    add(
        "--lifetime",
        type=_typed(_lifetime),
        default="2160h",
        help="of issued certificates (default: %(default)s)",
    )
    add(
        "--ca-lifetime",
        type=_typed(_lifetime),
        default="3650d",
        help="of the client CA (default: %(default)s; chart: 92d)",
    )
    add(
        "--chain",
        type=int,
        choices=(2, 3),
        default=2,
        help="3: an intermediate and a root (default: %(default)s)",
    )
    add(
        "--token-ttl",
        type=_typed(_lifetime),
        metavar="TTL",
        help="of one-time tokens (default: the Director's)",
    )
    add(
        "--clock-offset",
        type=_typed(parse_offset),
        default="0s",
        metavar="OFFSET",
        help="the Connector's clock is so far off (2d, -2m); TLS stays on the real one",
    )
    add("--latency", type=_typed(parse_duration), default="0s", help="of every call (default: %(default)s)")
    add("--tls-max", choices=("1.2", "1.3"), default="1.3", help="(default: %(default)s)")
    add(
        "--fault",
        type=_typed(_fault),
        action="append",
        default=[],
        metavar="NAME[@OPERATION][*COUNT][:PARAMETER]",
        help="an active fault; may be repeated; see --list-faults",
    )
    add(
        "--chaos",
        type=_typed(_rate),
        nargs="?",
        const=_CHAOS_RATE,
        default=0.0,
        metavar="RATE",
        help="random faults (RATE from 0 to 1; default 0.1)",
    )
    add("--seed", type=int, help="makes chaos repeatable (default: one of its own, which the summary shows)")
    add(
        "--client-id",
        metavar="ID",
        help="the CN of the first client credential (default: a new one, kept in --dir)",
    )
    add(
        "--no-gateway",
        dest="gateway",
        action="store_false",
        help="the Connector alone: it answers itself what the gateway would refuse",
    )
    add("--fresh", action="store_true", help="issue the first client credential anew")
    add("--quiet", action="store_true", help="no summary")
    add("--list-faults", action="store_true", help="print the table of faults and end")
    return parser


def _options(given: argparse.Namespace) -> EmulatorOptions:
    values = {key: value for key, value in vars(given).items() if key not in ("quiet", "list_faults")}
    values["server_names"] = tuple(values.pop("server_name"))
    values["faults"] = tuple(values.pop("fault"))
    return EmulatorOptions(**values)


def _summary(emulator: Emulator) -> str:
    at, directory, state = emulator.endpoints, emulator.options.dir, emulator.state()
    chaos = f"  chaos                {state['chaos']:g}, --seed {state['seed']}\n" if state["chaos"] else ""
    return f"""Compass Connector emulator, everything in {directory}/ (endpoints.json has all of this)
  token-secured        {at.token_connector_url}
  certificate-secured  {at.connector_url}
  control              {at.control_url}
  server CA            {at.ca_file}
  client credential    {at.client_certificate_file}
                       {at.client_key_file}
  one-time token       {directory}/token, good for an hour; another: curl -X POST {at.control_url}tokens
{chaos}Try:
  curl --cacert {at.ca_file} --cert {at.client_certificate_file} --key {at.client_key_file} \\
    -H 'Content-Type: application/json' -d '{{"query":"query {{ __typename }}"}}' {at.connector_url}"""


def _fault_list() -> str:
    rows = []
    for row in FAULTS.values():
        name = row.name if row.default is None else f"{row.name}:{row.default}"
        rows.append(f"{name:<45} {row.operation:<14} {row.meaning}")
    return "\n".join([f"{'NAME[:PARAMETER]':<45} {'OPERATION':<14} MEANING", *rows])


def _typed(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """A converter for argparse that keeps the message of a ValueError."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def _lifetime(text: str) -> Any:
    lifetime = parse_duration(text)
    if lifetime.total_seconds() < 1:
        raise ValueError(f"{text!r} is shorter than a second")
    return lifetime


def _fault(text: str) -> str:
    parse_fault(text, FAULTS)
    return text


def _rate(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (rate := float(text)) <= 1:
            return rate
    raise ValueError(f"{text!r} is not a rate from 0 to 1")


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--clock-offset -2m` as one argument: argparse would take `-2m` for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--clock-offset" and re.match(r"-\d", argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


if __name__ == "__main__":
    sys.exit(main())
