"""How this machine's pip reaches its index, as files for a build's secrets: `pip_config.py FOLDER`.

Writes `pip.conf`, which names the CA bundle as the build sees it, and `ca-bundle`, which may be empty.
"""

import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

_CARRIED = {"index-url", "extra-index-url", "proxy", "timeout", "trusted-host"}


def main(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    options = {}
    for line in listed.splitlines():
        place, _, value = line.partition("=")
        options[place.rpartition(".")[2]] = value.strip("'\"")
    carried = {name: value for name, value in options.items() if name in _CARRIED}
    bundle = folder / "ca-bundle"
    bundle.touch()
    if "cert" in options:
        shutil.copyfile(options["cert"], bundle)
        carried["cert"] = "/run/secrets/ca-bundle"
    config = RawConfigParser()
    config["global"] = carried
    with (folder / "pip.conf").open("w") as file:
        config.write(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
