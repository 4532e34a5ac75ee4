#!/usr/bin/env bash
# Save Prefect's database, the history of runs, into a file: deploy/backup.sh FILE
#
# The containers go on meanwhile. The file is read through before it gets its name, so one that is
# there is whole. Experiments and models are files of yours: back them up as such.
set -euo pipefail

[ $# = 1 ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }
[ -d "$(dirname "$1")" ] || { echo "there is no folder $(dirname "$1")" >&2; exit 1; }
[ ! -e "$1" ] || { echo "$1 is there already; name another file" >&2; exit 1; }
file=$(realpath "$1")
cd "$(dirname "$0")/.."

# In the database's container, where its programs and its password are.
inside() { docker compose exec -T postgres sh -c "PGPASSWORD=\$POSTGRES_PASSWORD $1"; }

draft=$file.part
trap 'rm -f "$draft"' EXIT
inside 'pg_dump --host 127.0.0.1 --username "$POSTGRES_USER" --format custom "$POSTGRES_DB"' >"$draft"
inside 'pg_restore --file -' <"$draft" | grep --count '^COPY public.flow_run ' >/dev/null ||
  { echo "the copy cannot be read back, or holds no runs: nothing was saved" >&2; exit 1; }
sync "$draft"
mv "$draft" "$file"
echo "$file"
