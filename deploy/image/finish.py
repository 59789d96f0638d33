"""The last step of an image, run in it: `finish.py MODULE...`.

A base like python:3.13-slim has no bytecode of the standard library, and a read-only root cannot get any:
each start, and each health check, would compile anew. What the modules import is compiled here, once.
The base's installers go away: nothing is installed at run time, and scanners find their old bugs.
"""

import importlib
import py_compile
import re
import shutil
import sys
import sysconfig
from importlib.util import cache_from_source
from pathlib import Path

_INSTALLERS = ("ensurepip", "pip", "pip-*", "setuptools", "setuptools-*", "wheel", "wheel-*")
# Imported by and by at run time, each by something above it.
_LATE = ("concurrent.futures.thread", "encodings.idna", "multiprocessing", "stringprep", "unicodedata")


def compile_imported(modules: list[str]) -> None:
    for name in [*modules, *_LATE]:
        importlib.import_module(name)
    for name, module in list(sys.modules.items()):
        source = getattr(module, "__file__", None) if name != "__main__" else None
        if source and source.endswith(".py") and not Path(cache_from_source(source)).exists():
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            py_compile.compile(source, doraise=True, invalidation_mode=mode)


def remove_installers() -> None:
    paths = sysconfig.get_paths(vars={"base": sys.base_prefix, "platbase": sys.base_prefix})
    folders = {Path(paths["stdlib"]), Path(paths["stdlib"], "site-packages"), Path("/usr/share")}
    for folder in folders:
        for pattern in (*_INSTALLERS, "python-wheels"):
            for path in folder.glob(pattern):
                shutil.rmtree(path)
    for path in Path(sys.base_prefix, "bin").iterdir():
        if re.fullmatch(r"pip[0-9.]*", path.name):
            path.unlink()


if __name__ == "__main__":
    compile_imported(sys.argv[1:])
    remove_installers()
