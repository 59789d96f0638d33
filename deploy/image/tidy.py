"""Makes installed packages small and quick to start: `tidy.py PREFIX...`, in the build stage.

What only compilers, type checkers and test runners read goes away. All that is left is compiled, with
bytecode that is never compared with its source: it survives a COPY that changes times, and needs no write
at run time.
"""

import compileall
import shutil
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

_SOURCES = {".c", ".h", ".pxd", ".pxi", ".pyi", ".pyx"}


def tidy(prefix: Path) -> None:
    for command in (prefix / "bin").iterdir():
        if not command.name.startswith(("python", "compass-")):
            command.unlink()
    for packages in prefix.glob("lib/python3*/site-packages"):
        for path in sorted(packages.rglob("*"), reverse=True):
            if path.is_file() and path.suffix in _SOURCES:
                path.unlink()
            elif path.is_dir() and path.name == "tests":
                shutil.rmtree(path)
        mode = PycInvalidationMode.UNCHECKED_HASH
        if not compileall.compile_dir(packages, quiet=1, invalidation_mode=mode):
            sys.exit(f"not everything in {packages} can be compiled")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        tidy(Path(name))
