#!/usr/bin/env bash
# Everything that a machine without a network needs: deploy/bundle.sh FOLDER
#
# Saves the images of the Compose files that .env or COMPOSE_FILE name (build them first), the models,
# the compose files and the scripts. Bring FOLDER to the other machine and run FOLDER/load.sh there.
set -euo pipefail

[ $# = 1 ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }
mkdir -p "$1"
[ -z "$(ls -A "$1")" ] || { echo "$1 is not empty; name a new folder" >&2; exit 1; }
folder=$(realpath "$1")
cd "$(dirname "$0")/.."

# Files that only say how images are built are of no use over there.
files=${COMPOSE_FILE:-$(sed -n 's/^COMPOSE_FILE=//p' .env 2>/dev/null)}
files=$(tr ':' '\n' <<<"${files:-compose.yaml}" | grep -v wheels | paste --serial --delimiters=:)
mapfile -t images < <(docker compose config --images | sort --unique)
for image in "${images[@]}"; do
  docker image inspect "$image" >/dev/null 2>&1 ||
    { echo "there is no image $image; build or pull it first: docker compose build" >&2; exit 1; }
done

echo "saving ${images[*]}" >&2
docker save "${images[@]}" | gzip -1 >"$folder/images.tar.gz"
printf '%s\n' "${images[@]}" >"$folder/images.txt"
cp --recursive compose.yaml deploy models "$folder/"
mv "$folder/deploy/load.sh" "$folder/load.sh"
{
  printf '# Copy to .env. What the images here are for:\nCOMPOSE_FILE=%s\nPOSTGRES_IMAGE=%s\n\n' \
    "$files:deploy/compose.offline.yaml" "$(grep postgres "$folder/images.txt")"
  cat deploy/env.example
} >"$folder/env.example"
(cd "$folder" && find . -type f ! -name SHA256SUMS -print0 | xargs --null sha256sum >SHA256SUMS)
du --summarize --human-readable "$folder"
