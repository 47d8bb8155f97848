"""What is published: `python distribution.py FOLDER` prints what the packages hold, the sizes, and which glibc they need."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from email import message_from_string
from pathlib import Path
from typing import Any


class Library:
    """A shared library, as `readelf` sees it."""

    extension: bytes

    def _readelf(self, option: str) -> str:
        with tempfile.NamedTemporaryFile(suffix=".so") as file:
            file.write(self.extension)
            file.flush()
            command = ["readelf", "--wide", option, file.name]
            return subprocess.run(command, capture_output=True, check=True, text=True).stdout

    def glibc(self) -> tuple[int, ...]:
        """The newest version of glibc that a symbol is asked of."""
        versions = re.findall(r"GLIBC_([0-9.]+)", self._readelf("--version-info"))
        return max((tuple(map(int, version.split("."))) for version in versions), default=(0,))

    def sections(self) -> set[str]:
        return set(re.findall(r"^ +\[ *\d+\] (\.\S+)", self._readelf("--section-headers"), re.MULTILINE))

    def libraries(self) -> set[str]:
        """The shared libraries that the extension is linked with."""
        return set(re.findall(r"\(NEEDED\).*\[(.+)\]", self._readelf("--dynamic")))

    def exports(self) -> set[str]:
        """What the extension shows to the process that loads it."""
        symbols = (line.split() for line in self._readelf("--dyn-syms").splitlines())
        return {one[7] for one in symbols if len(one) == 8 and one[4] == "GLOBAL" and one[6] != "UND"}


class Wheel(Library):
    """The wheel of a folder."""

    def __init__(self, folder: Path) -> None:
        (self.path,) = folder.glob("*.whl")
        with zipfile.ZipFile(self.path) as archive:
            self.sizes = {info.filename: info.file_size for info in archive.infolist()}
            self.extension = archive.read("etp_ws/_etp_ws.abi3.so")
            (metadata,) = (name for name in self.sizes if name.endswith(".dist-info/METADATA"))
            self.metadata = message_from_string(archive.read(metadata).decode())


class Sdist:
    """The source distribution of a folder."""

    def __init__(self, folder: Path) -> None:
        (self.path,) = folder.glob("*.tar.gz")
        with tarfile.open(self.path) as archive:
            self.names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}


class Tarball:
    """A package of npm."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with tarfile.open(path) as archive:
            read = {member.name: archive.extractfile(member) for member in archive.getmembers()}
            self.files = {name.removeprefix("package/"): file.read() for name, file in read.items() if file}
        self.sizes = {name: len(content) for name, content in self.files.items()}
        self.manifest: dict[str, Any] = json.loads(self.files["package.json"])
        self.name = self.manifest["name"]


class NodePackage(Tarball):
    """The package for Node, of a folder."""

    def __init__(self, folder: Path) -> None:
        (path,) = folder.glob("etp-ws-[0-9]*.tgz")
        super().__init__(path)


class NodePlatform(Tarball, Library):
    """The package that holds its binary for one platform."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.extension = self.files["etp-ws.node"]
        self.platform = self.name.removeprefix("etp-ws-")

    @staticmethod
    def all(folder: Path) -> list[NodePlatform]:
        found = set(folder.glob("etp-ws-[a-z]*.tgz")) - set(folder.glob("etp-ws-client-*.tgz"))
        return [NodePlatform(path) for path in sorted(found)]


def main(folder: Path) -> None:
    client = [Tarball(path) for path in folder.glob("etp-ws-client-*.tgz")]
    node = [NodePackage(folder), *NodePlatform.all(folder), *client]
    for package in (Wheel(folder), *node):
        for name, size in sorted(package.sizes.items()):
            print(f"{size:>11,}  {name}")
        show(package.path)
        if isinstance(package, Library):
            print(f"{'':11}  linked with {', '.join(sorted(package.libraries()))};")
            print(f"{'':11}  the newest symbol that it asks of glibc is of {'.'.join(map(str, package.glibc()))}")
    show(Sdist(folder).path)


def show(path: Path) -> None:
    print(f"{path.stat().st_size:>11,}  {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
