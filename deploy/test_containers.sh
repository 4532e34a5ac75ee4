#!/usr/bin/env bash
# Build all images, start the whole system in containers without a GPU, and check it.
#
# Uses the Docker that is there; where none answers, a private one that is deleted afterwards (needs
# root and Debian 12). RESPAN_WHEELS names a folder with a CPU build of PyTorch, if its index cannot
# be reached.
set -euo pipefail
cd "$(dirname "$0")/.."
export COMPOSE_FILE=compose.yaml:deploy/compose.cpu.yaml

if ! docker info >/dev/null 2>&1; then
  folder=$(mktemp -d "${TMPDIR:-/var/tmp}/respan-engine.XXXXXX")
  trap 'deploy/container_engine.sh stop "$folder"' EXIT
  deploy/container_engine.sh start "$folder"
  # shellcheck disable=SC1091
  source "$folder/env"
fi
if [ -n "${RESPAN_WHEELS:-}" ]; then
  export TORCH_INDEX='' COMPOSE_FILE=$COMPOSE_FILE:deploy/compose.wheels.yaml
fi
.venv/bin/pytest -m containers tests/e2e/test_compose.py "$@"
