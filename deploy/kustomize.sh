#!/usr/bin/env bash
# Renders Kubernetes manifests: `deploy/kustomize.sh deploy/k8s/overlays/cluster`.
#
# With kustomize or kubectl, if one is on PATH; else with Debian's kustomize, unpacked into
# .venv/kustomize (needs Debian, but not root). RESPAN_KUSTOMIZE=debian insists on that one, for
# machines with a kubectl older than 1.21.
set -euo pipefail
FOLDER=$(cd "$(dirname "$0")/.." && pwd)/.venv/kustomize

# Nothing is installed, and neither apt's sources nor /usr change: the package is a single program.
unpack_debian() {
  [ -x "$FOLDER/usr/bin/kustomize" ] && return
  command -v apt-get >/dev/null || { echo "install kustomize or kubectl: neither is on PATH" >&2; exit 1; }
  local scratch mirror options
  mkdir -p "$FOLDER"
  scratch=$(mktemp -d "$FOLDER/apt.XXXXXX")
  # shellcheck disable=SC2016  # apt's own placeholders
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT)' 'Created-By: Packages' |
    awk '$2 == "main" {print $1; exit}')
  mkdir -p "$scratch/lists/partial" "$scratch/cache"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" \
    >"$scratch/sources.list"
  options=(-o "Dir::Etc::sourcelist=$scratch/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::Lists=$scratch/lists" -o "Dir::Cache=$scratch/cache" -o "APT::Sandbox::User=$(id -un)")
  apt-get "${options[@]}" update -qq
  (cd "$scratch" && apt-get "${options[@]}" download -qq kustomize/trixie)
  dpkg -x "$scratch"/kustomize_*.deb "$FOLDER"
  rm -rf "$scratch"
}

[ $# = 1 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
if [ "${RESPAN_KUSTOMIZE:-}" != debian ]; then
  command -v kustomize >/dev/null && exec kustomize build "$1"
  kubectl kustomize --help >/dev/null 2>&1 && exec kubectl kustomize "$1"
fi
unpack_debian >&2
exec "$FOLDER/usr/bin/kustomize" build "$1"
