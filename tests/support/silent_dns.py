"""`unshare -rnm python -m tests.support.silent_dns COMMAND..`: with a name server that never answers.

In namespaces of its own, where loopback is up, `/etc/resolv.conf` is another file, and port 53 is ours.
"""

import fcntl
import os
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_UDP_PORT_53 = "0100007F:0035"


def queries(pid: int) -> int:
    """The bytes of the questions that wait for an answer, in the network that this process is in."""
    lines = Path(f"/proc/{pid}/net/udp").read_text().splitlines()
    queues = [line.split()[4] for line in lines if line.split()[1] == _UDP_PORT_53]
    return sum(int(each.partition(":")[2], 16) for each in queues)


def main(command: list[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    server.set_inheritable(True)
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as configuration:
        configuration.write("nameserver 127.0.0.1\noptions timeout:30 attempts:5\n")
        configuration.flush()
        subprocess.run(["mount", "--bind", configuration.name, "/etc/resolv.conf"], check=True)
    os.execvp(command[0], command)  # noqa: S606 - what is measured is this process


if __name__ == "__main__":
    main(sys.argv[1:])
