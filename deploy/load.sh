#!/usr/bin/env bash
# In a folder made by deploy/bundle.sh: check it and give its images to Docker.
set -euo pipefail
cd "$(dirname "$0")"

sha256sum --check --quiet SHA256SUMS || { echo "the folder is damaged; copy it again" >&2; exit 1; }
gunzip --stdout images.tar.gz | docker load
while read -r image; do docker image inspect "$image" >/dev/null; done <images.txt
echo "copy env.example to .env, name the folder of your experiments in it, then: docker compose up --detach --wait"
