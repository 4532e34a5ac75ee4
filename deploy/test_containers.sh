#!/usr/bin/env bash
# Build all images, start the whole system in containers without a GPU, and check it.
#
# Uses the Docker that is there; where none answers, a private one (needs root and Debian 12), which
# is deleted afterwards unless RESPAN_ENGINE names a folder to keep it in: the next time takes minutes
# less. RESPAN_WHEELS names a folder with a CPU build of PyTorch; without it, one that pip knows is
# taken, and without that PyTorch's own index is asked.
set -euo pipefail
cd "$(dirname "$0")/.."
export COMPOSE_FILE=compose.yaml:deploy/compose.cpu.yaml
export COMPOSE_PARALLEL_LIMIT=1 # two installs at once crowd a small machine
RESPAN_REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)
export RESPAN_REVISION

known_wheels() {
  .venv/bin/python -m pip config get global.find-links 2>/dev/null | tr ' ' '\n' | while read -r folder; do
    compgen -G "$folder/torch-*cpu*.whl" >/dev/null && echo "$folder" && break
  done || true
}

if ! docker info >/dev/null 2>&1; then
  ending=pause
  if [ -z "${RESPAN_ENGINE:-}" ]; then
    ending=stop
    RESPAN_ENGINE=$(mktemp -d "${TMPDIR:-/var/tmp}/respan-engine.XXXXXX")
  fi
  export RESPAN_ENGINE
  trap 'deploy/container_engine.sh $ending "$RESPAN_ENGINE"' EXIT
  deploy/container_engine.sh start "$RESPAN_ENGINE"
  # shellcheck disable=SC1091
  source "$RESPAN_ENGINE/env"
fi
RESPAN_WHEELS=${RESPAN_WHEELS:-$(known_wheels)}
if [ -n "$RESPAN_WHEELS" ]; then
  export RESPAN_WHEELS TORCH_INDEX='' COMPOSE_FILE=$COMPOSE_FILE:deploy/compose.wheels.yaml
fi
.venv/bin/pytest -m containers tests/e2e/test_compose*.py "$@"
