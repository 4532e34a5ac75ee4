#!/usr/bin/env bash
# Go on with newer containers, runs under way included: deploy/upgrade.sh BACKUP
#
# For after `git pull`, or after load.sh of a newer bundle. Builds first, then has the worker stop its
# runs: each stage stops after the block it is at. Prefect's database is saved in the file BACKUP;
# Prefect brings it up to date when it starts. At last the stopped runs are ordered again, and find
# done what was done. Back again: check out what was there before, `docker compose up --detach
# --build`, and deploy/restore.sh BACKUP.
set -euo pipefail

[ $# = 1 ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }
backup=$(realpath "$1")
cd "$(dirname "$0")/.."

in_worker() { docker compose exec -T worker python - "$@" <deploy/runs.py; }

docker compose build
under_way=$(in_worker under-way) # refuses while runs go on that nobody could order again
read -r -a runs <<<"$under_way"
[ ${#runs[@]} = 0 ] || in_worker stop "${runs[@]}"
docker compose stop worker
deploy/backup.sh "$backup"
docker compose up --detach --no-build --wait
[ ${#runs[@]} = 0 ] || in_worker again "${runs[@]}"
