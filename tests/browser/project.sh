#!/usr/bin/env bash
# tests/browser/project.sh FOLDER TARBALL: a project that has installed the package from its tarball, and the bundlers of project/.
set -euo pipefail
folder=$1 tarball=$(realpath "$2")
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
mkdir -p "$folder"
cp -R project/. "$folder"
npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --loglevel=error
# No scripts and no other packages: it needs neither.
npm install --prefix "$folder" --no-save --ignore-scripts --no-audit --no-fund --loglevel=error "$tarball"
