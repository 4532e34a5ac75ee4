#!/usr/bin/env bash
# Put a file of deploy/backup.sh in the place of Prefect's database: deploy/restore.sh FILE [--force]
#
# Prefect and the worker stop meanwhile. The file becomes a database of its own first; only when that
# is complete does it take the old one's place, which is then deleted. With --force also while runs
# are under way: they are stopped, and what they have finished stays finished.
set -euo pipefail

[ $# = 1 ] || [ "${2:-}" = --force ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }
[ -r "$1" ] || { echo "there is no file $1" >&2; exit 1; }
file=$(realpath "$1")
cd "$(dirname "$0")/.."

inside() { docker compose exec -T postgres sh -c "PGPASSWORD=\$POSTGRES_PASSWORD PGHOST=127.0.0.1 PGUSER=\$POSTGRES_USER $1"; }
query() { inside "psql --quiet --no-align --tuples-only --set ON_ERROR_STOP=1 --dbname $1"; }

running=$(echo "SELECT count(*) FROM flow_run WHERE state_type IN ('RUNNING', 'PENDING', 'CANCELLING')" |
  query '"$POSTGRES_DB"')
if [ "$running" != 0 ] && [ "${2:-}" != --force ]; then
  echo "$running runs are under way; wait for them, or stop them with --force" >&2
  exit 1
fi

echo 'DROP DATABASE IF EXISTS restored; CREATE DATABASE restored;' | query postgres
inside 'pg_restore --exit-on-error --no-owner --dbname restored' <"$file" ||
  { echo "$file cannot be read as a backup; the database is as it was" >&2; exit 1; }

docker compose stop worker prefect
inside 'psql --quiet --set ON_ERROR_STOP=1 --set old="$POSTGRES_DB" --dbname postgres' <<'SQL'
DROP DATABASE :"old" WITH (FORCE);
ALTER DATABASE restored RENAME TO :"old";
SQL
docker compose up --detach --no-build --wait
echo "restored from $file"
