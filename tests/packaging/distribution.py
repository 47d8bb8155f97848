"""What is published: `python distribution.py FOLDER` prints what the wheel holds, the sizes, and which glibc it needs."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from email import message_from_string
from pathlib import Path


class Wheel:
    """The wheel of a folder."""

    def __init__(self, folder: Path) -> None:
        (self.path,) = folder.glob("*.whl")
        with zipfile.ZipFile(self.path) as archive:
            self.sizes = {info.filename: info.file_size for info in archive.infolist()}
            self.extension = archive.read("etp_ws/_etp_ws.abi3.so")
            (metadata,) = (name for name in self.sizes if name.endswith(".dist-info/METADATA"))
            self.metadata = message_from_string(archive.read(metadata).decode())

    def _readelf(self, option: str) -> str:
        with tempfile.NamedTemporaryFile(suffix=".so") as file:
            file.write(self.extension)
            file.flush()
            command = ["readelf", "--wide", option, file.name]
            return subprocess.run(command, capture_output=True, check=True, text=True).stdout

    def glibc(self) -> tuple[int, ...]:
        """The newest version of glibc that a symbol is asked of."""
        versions = re.findall(r"GLIBC_([0-9.]+)", self._readelf("--version-info"))
        return max(tuple(map(int, version.split("."))) for version in versions)

    def sections(self) -> set[str]:
        return set(re.findall(r"^ +\[ *\d+\] (\.\S+)", self._readelf("--section-headers"), re.MULTILINE))

    def libraries(self) -> set[str]:
        """The shared libraries that the extension is linked with."""
        return set(re.findall(r"\(NEEDED\).*\[(.+)\]", self._readelf("--dynamic")))

    def exports(self) -> set[str]:
        """What the extension shows to the process that loads it."""
        symbols = (line.split() for line in self._readelf("--dyn-syms").splitlines())
        return {one[7] for one in symbols if len(one) == 8 and one[4] == "GLOBAL" and one[6] != "UND"}


class Sdist:
    """The source distribution of a folder."""

    def __init__(self, folder: Path) -> None:
        (self.path,) = folder.glob("*.tar.gz")
        with tarfile.open(self.path) as archive:
            self.names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}


def main(folder: Path) -> None:
    wheel, sdist = Wheel(folder), Sdist(folder)
    for name, size in sorted(wheel.sizes.items()):
        print(f"{size:>11,}  {name}")
    for path in (wheel.path, sdist.path):
        print(f"{path.stat().st_size:>11,}  {path}")
    print(f"The extension is linked with {', '.join(sorted(wheel.libraries()))};")
    print(f"the newest symbol that it asks of glibc is of {'.'.join(map(str, wheel.glibc()))}.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
