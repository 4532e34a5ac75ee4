#!/usr/bin/env bash
# A private Docker Engine for machines that have none and reach no image registry (continuous
# integration, above all). Needs root and Debian 12; touches no other engine.
#
#   deploy/container_engine.sh start FOLDER   # then: source FOLDER/env
#   deploy/container_engine.sh pause FOLDER   # ends it; `start` finds images and containers again
#   deploy/container_engine.sh stop FOLDER    # ends it and deletes everything it stored
#
# Everything lies in FOLDER but for four small Debian packages that `start` may install
# (debootstrap, runc, iptables, tini). FOLDER/env names the engine and the images that stand in
# for python:3.11-slim-bookworm and postgres:17-bookworm, made from Debian's own packages and this
# machine's Python. GPU_STAND_IN=1 has the engine believe that NVIDIA's toolkit is there: containers
# that ask for a GPU start, and find none.
set -euo pipefail

NICENESS=${NICENESS:-10}
PYTHON_BASE=ci-base/python:3.11
POSTGRES_BASE=ci-base/postgres:15
PYTHON_LIBRARIES=ca-certificates,libbz2-1.0,libexpat1,libffi8,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,libuuid1,zlib1g

usage() { sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2; }
say() { printf -- '-- %s (%ss)\n' "$*" "$SECONDS" >&2; }

retry() {
  local count=$1
  shift
  for ((i = 0; i < count; i++)); do "$@" >/dev/null 2>&1 && return 0; sleep 1; done
  return 1
}

install_tools() {
  local missing=()
  for package in debootstrap runc iptables tini ca-certificates; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return
  say "installing ${missing[*]}"
  apt-get -o DPkg::Lock::Timeout=300 update -qq
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq \
    --no-install-recommends "${missing[@]}" >/dev/null
}

# The address that this machine's apt uses, so that none is written down here.
debian_mirror() {
  # shellcheck disable=SC2016  # apt's own placeholders
  apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
    awk '$2 == "bookworm" && $3 == "main" {print $1; exit}'
}

# Debian 13's engine needs nothing newer than Debian 12's C library. It is unpacked, not installed,
# from package lists of its own: neither apt's sources nor /usr change.
unpack_engine() {
  local apt=$FOLDER/apt options
  [ -e "$FOLDER/engine/.done" ] && return
  say "unpacking the engine"
  mkdir -p "$FOLDER/engine" "$apt/lists/partial" "$apt/cache" "$apt/debs"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(debian_mirror) trixie main" \
    >"$apt/sources.list"
  options=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update -qq
  (cd "$apt/debs" && apt-get "${options[@]}" download -qq docker.io/trixie docker-cli/trixie \
    docker-compose/trixie docker-buildx/trixie containerd/trixie)
  for package in "$apt"/debs/*.deb; do dpkg -x "$package" "$FOLDER/engine"; done
  ln -sf /usr/bin/tini-static "$FOLDER/engine/usr/bin/docker-init" # for `init: true`
  mkdir -p "$FOLDER/config/cli-plugins"
  cp "$FOLDER"/engine/usr/libexec/docker/cli-plugins/* "$FOLDER/config/cli-plugins/"
  rm -rf "$apt"
  touch "$FOLDER/engine/.done"
}

write_environment() {
  cat >"$FOLDER/env" <<END
export PATH=$FOLDER/engine/usr/bin:$FOLDER/engine/usr/sbin:/usr/sbin:$PATH
export DOCKER_HOST=unix://$FOLDER/docker.sock
export DOCKER_CONFIG=$FOLDER/config
export PYTHON_IMAGE=$PYTHON_BASE
export POSTGRES_IMAGE=$POSTGRES_BASE
END
}

# The engine offers GPUs if it finds a program of this name when it starts.
write_gpu_stand_in() {
  mkdir -p "$FOLDER/gpu-stand-in"
  printf '#!/bin/sh\ncat >/dev/null\n' >"$FOLDER/gpu-stand-in/nvidia-container-runtime-hook"
  chmod +x "$FOLDER/gpu-stand-in/nvidia-container-runtime-hook"
}

start_daemon() {
  docker info >/dev/null 2>&1 && return
  say "starting dockerd"
  local programs=$PATH
  if [ "${GPU_STAND_IN:-0}" = 1 ]; then
    write_gpu_stand_in
    programs=$FOLDER/gpu-stand-in:$PATH
  fi
  # dockerd turns forwarding on and adds rules; `stop` puts both back.
  cat /proc/sys/net/ipv4/ip_forward >"$FOLDER/ip_forward.before"
  iptables-save >"$FOLDER/iptables.before"
  : >"$FOLDER/bridges"
  PATH=$programs setsid nice -n "$NICENESS" dockerd --host "$DOCKER_HOST" --data-root "$FOLDER/data" \
    --exec-root "$FOLDER/exec" --pidfile "$FOLDER/docker.pid" >"$FOLDER/dockerd.log" 2>&1 </dev/null &
  retry 60 docker info || { tail -20 "$FOLDER/dockerd.log" >&2; exit 1; }
}

# Debian 12's own Python is 3.11.2, and RESPAN needs 3.11.3: the base gets the Python that this
# machine runs RESPAN with, where python:3.11-slim has its own, and the libraries it was built with.
# pip and uv inside a build trust whom this machine trusts; only these bases carry that.
make_python_base() {
  docker image inspect "$PYTHON_BASE" >/dev/null 2>&1 && return
  say "making $PYTHON_BASE"
  local root=$FOLDER/rootfs context=$FOLDER/python-base
  rm -rf "$context"
  mkdir -p "$context"
  debootstrap --variant=minbase --include="$PYTHON_LIBRARIES" bookworm "$root" "$(debian_mirror)" \
    >"$FOLDER/debootstrap.log"
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
  tar -C "$root" -c . | docker import - ci-base/debian:bookworm >/dev/null
  rm -rf "$root"
  cp "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$context/ca.crt"
  copy_python "$context/python"
  docker build --quiet --tag "$PYTHON_BASE" --file - "$context" >/dev/null <<'END'
FROM ci-base/debian:bookworm
COPY ca.crt /etc/ssl/certs/ca-certificates.crt
COPY python /usr/local
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
RUN printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' > /etc/pip.conf \
 && ldconfig \
 && python -c "import bz2, ctypes, lzma, readline, sqlite3, ssl, uuid, zlib" \
 && python -m ensurepip --default-pip
END
}

copy_python() {
  local prefix
  prefix=$("${PYTHON:-python3.11}" -c 'import sys; print(sys.base_prefix if sys.version_info >= (3, 11, 3) else "")')
  [ -n "$prefix" ] || { echo "${PYTHON:-python3.11} is older than Python 3.11.3" >&2; exit 1; }
  mkdir -p "$1/bin" "$1/lib"
  cp -a "$prefix/bin/python3.11" "$1/bin/"
  ln -s python3.11 "$1/bin/python3"
  ln -s python3.11 "$1/bin/python"
  cp -a "$prefix"/lib/libpython3* "$1/lib/" 2>/dev/null || true # a static build has none
  tar -C "$prefix/lib" --exclude=python3.11/site-packages --exclude=python3.11/test \
    --exclude='python3.11/config-*' --exclude=__pycache__ -c python3.11 | tar -C "$1/lib" -x
  mkdir "$1/lib/python3.11/site-packages"
}

# Understands the three variables of the official image that compose.yaml uses.
make_postgres_base() {
  docker image inspect "$POSTGRES_BASE" >/dev/null 2>&1 && return
  say "making $POSTGRES_BASE"
  local context=$FOLDER/postgres-base
  mkdir -p "$context"
  cat >"$context/start" <<'END'
#!/bin/sh
set -e
PGDATA=/var/lib/postgresql/data
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  printf %s "$POSTGRES_PASSWORD" >/tmp/password
  initdb -D "$PGDATA" -U "$POSTGRES_USER" --pwfile=/tmp/password --auth=scram-sha-256 -E UTF8
  rm /tmp/password
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
  echo "CREATE DATABASE \"$POSTGRES_DB\"" | postgres --single -D "$PGDATA" postgres
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp
END
  docker build --quiet --tag "$POSTGRES_BASE" --file - "$context" >/dev/null <<'END'
FROM ci-base/debian:bookworm
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends postgresql-15 >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/lib/postgresql/15 \
 && install -d -o postgres -g postgres -m 700 /var/lib/postgresql/data
COPY --chmod=755 start /usr/local/bin/start
ENV PATH=/usr/lib/postgresql/15/bin:$PATH
USER postgres
CMD ["start"]
END
}

start() {
  mkdir -p "$FOLDER"
  install_tools
  unpack_engine
  write_environment
  # shellcheck disable=SC1091
  source "$FOLDER/env"
  start_daemon
  make_python_base
  make_postgres_base
  say "ready: source $FOLDER/env"
}

# Ends the engine, and with it everything that it did to this machine's network.
end_engine() {
  if docker info >/dev/null 2>&1; then
    docker network ls --quiet --filter driver=bridge >"$FOLDER/bridges"
    end_daemon
  fi
  restore_network
}

end_daemon() {
  local daemon
  daemon=$(cat "$FOLDER/docker.pid")
  kill "$daemon" # takes its own containerd with it, and gives containers time to stop
  retry 120 has_ended "$daemon" || kill -9 "$daemon"
  retry 10 has_ended "$daemon"
}

has_ended() { ! kill -0 "$1" 2>/dev/null; }

restore_network() {
  [ -e "$FOLDER/ip_forward.before" ] || return 0
  cat "$FOLDER/ip_forward.before" >/proc/sys/net/ipv4/ip_forward
  for table in filter nat; do
    iptables -t "$table" -F
    iptables -t "$table" -X
  done
  iptables -P FORWARD ACCEPT
  iptables-restore <"$FOLDER/iptables.before"
  ip link delete docker0 2>/dev/null || true
  while read -r network; do
    ip link delete "br-$network" 2>/dev/null || true
  done <"$FOLDER/bridges"
  rm "$FOLDER/ip_forward.before"
}

pause() {
  end_engine
  say "paused; start $FOLDER again, or stop it"
}

stop() {
  if docker info >/dev/null 2>&1; then
    docker ps --quiet | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
  fi
  end_engine
  say "deleting $FOLDER"
  nice -n "$NICENESS" rm -rf "$FOLDER" # hundreds of thousands of small files
}

use_environment() {
  [ -e "$FOLDER/env" ] || { echo "$FOLDER holds no engine" >&2; exit 1; }
  # shellcheck disable=SC1091
  source "$FOLDER/env"
}

[ $# = 2 ] || usage
mkdir -p "$(dirname "$2")"
FOLDER=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
case $1 in
  start) start ;;
  pause) use_environment; pause ;;
  stop) use_environment; stop ;;
  *) usage ;;
esac
