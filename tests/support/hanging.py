"""`python -m tests.support.hanging`: the sidecar, where one file is on a mount that hangs.

HANGING names the file. Opening it waits, in the kernel, until something opens HANGING.mount to write.
"""

import os
import sys
from typing import Any

from compass_sidecar.__main__ import main

_FILE = os.environ.pop("HANGING")
_open = os.open


def _open_on_the_mount(path: Any, *arguments: Any, **options: Any) -> int:
    if path == _FILE or str(path) == _FILE:
        os.close(_open(f"{_FILE}.mount", os.O_RDONLY))
    return _open(path, *arguments, **options)


if __name__ == "__main__":
    os.open = _open_on_the_mount
    sys.argv = ["compass-sidecar", *sys.argv[1:]]
    main()
