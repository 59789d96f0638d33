"""What a process takes, as the kernel tells it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figures:
    """Resident memory in KiB, now and at most so far, open descriptors, threads."""

    memory: int
    peak: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> "Figures":
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
        )
        return cls(
            memory=int(status["VmRSS"].split()[0]),
            peak=int(status["VmHWM"].split()[0]),
            descriptors=len(list(Path(f"/proc/{pid}/fd").iterdir())),
            threads=int(status["Threads"]),
        )

    def __str__(self) -> str:
        memory, peak = self.memory / 1024, self.peak / 1024
        return (
            f"{memory:.1f} MiB (at most {peak:.1f}), {self.descriptors} descriptors, {self.threads} threads"
        )
