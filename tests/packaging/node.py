"""Node in its versions, and projects for it."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
HANGS_AFTER = 600


class Project:
    """A folder with JavaScript, outside of the repository, where nothing is installed but what its tests install."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment

    @staticmethod
    def new(folder: Path, registry: str, cache: Path) -> Project:
        return Project(
            folder,
            {
                # A compiler would be found here, if one were looked for: what installs needs none.
                "PATH": str(ROOT / ".build/node/26/bin"),
                "HOME": str(cache),
                "CI": "1",
                "NEXT_TELEMETRY_DISABLED": "1",
                "npm_config_cache": str(cache),
                "npm_config_registry": registry,
                "npm_config_update_notifier": "false",
                "npm_config_audit": "false",
                "npm_config_fund": "false",
            },
        )

    def with_environment(self, **variables: str) -> Project:
        return Project(self.folder, {**self.environment, **variables})

    def at(self, part: str) -> Project:
        """A folder in it."""
        return Project(self.folder / part, self.environment)

    def run(self, *command: str | Path, node: str = "26", status: int = 0) -> str:
        """What a command says, on both channels. Without a path it is one of Node."""
        environment = {**self.environment, "PATH": str(ROOT / f".build/node/{node}/bin")}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=HANGS_AFTER,
        )
        assert done.returncode == status, done.stdout
        return done.stdout

    def npm(self, *arguments: str) -> str:
        """Runs npm as Node 20 brings it: the one that says nothing when a lock file is incomplete."""
        return self.run("node", ROOT / ".build/node/node_modules/npm-10/bin/npm-cli.js", *arguments, node="20")
