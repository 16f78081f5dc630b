#!/usr/bin/env bash
# A Docker engine for the sandbox tests, on a Debian 12 machine without one. It needs root and network, no daemon and no image from a hub.
#
#   tests/docker_engine.sh start FOLDER   prints lines to `eval`; the second start in a folder reuses what the first one unpacked
#   tests/docker_engine.sh stop FOLDER
#
# Packages are unpacked into FOLDER and nothing is installed. The engine comes from trixie, because bookworm's Compose is too old for
# Inspect; trixie's runc needs a newer libc, so runc is bookworm's. A stand-in with the name of
# Inspect's default image is made from Debian packages: Python and git.
set -euo pipefail
folder=$(mkdir -p "$2" && cd "$2" && pwd)
socket=$folder/run/docker.sock
image=aisiuk/inspect-tool-support:latest

unpack() {
    [ -f "$folder/unpacked" ] && return
    mkdir -p "$folder"/apt/lists/partial "$folder"/apt/cache/archives/partial "$folder"/debs "$folder"/engine
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main" >"$folder/apt/list"
    touch "$folder/apt/status"
    local trixie=(-o "Dir::Etc::sourcelist=$folder/apt/list" -o Dir::Etc::sourceparts=- -o "Dir::State=$folder/apt"
        -o "Dir::State::status=$folder/apt/status" -o "Dir::Cache=$folder/apt/cache" -o APT::Sandbox::User=root)
    apt-get "${trixie[@]}" -qq update
    (cd "$folder/debs" && apt-get "${trixie[@]}" -qq download docker.io docker-cli containerd docker-compose tini)
    apt-cache show runc >/dev/null 2>&1 || apt-get -qq update
    (cd "$folder/debs" && apt-get -qq -o APT::Sandbox::User=root download runc debootstrap)
    for package in "$folder"/debs/*.deb; do dpkg -x "$package" "$folder/engine"; done
    touch "$folder/unpacked"
}

start_engine() {
    mkdir -p "$folder/run" "$folder/data" "$folder/config/cli-plugins"
    cp "$folder/engine/usr/libexec/docker/cli-plugins/docker-compose" "$folder/config/cli-plugins/"
    if docker info >/dev/null 2>&1; then return; fi
    setsid dockerd --host "unix://$socket" --data-root "$folder/data" --exec-root "$folder/run/exec" --pidfile "$folder/run/pid" \
        --storage-driver overlay2 --iptables=false --ip6tables=false --bridge=none >"$folder/dockerd.log" 2>&1 </dev/null &
    for _ in $(seq 60); do
        docker info >/dev/null 2>&1 && return
        sleep 1
    done
    tail -5 "$folder/dockerd.log" >&2
    exit 1
}

make_image() {
    docker image inspect "$image" >/dev/null 2>&1 && return
    local root=$folder/rootfs
    rm -rf "$root"
    DEBOOTSTRAP_DIR=$folder/engine/usr/share/debootstrap "$folder/engine/usr/sbin/debootstrap" --variant=minbase \
        --include=python3-minimal,libpython3-stdlib,git,ca-certificates bookworm "$root" http://deb.debian.org/debian >"$folder/debootstrap.log" 2>&1
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/doc "$root"/usr/share/locale
    mkdir -p "$root/work"
    tar -C "$root" -c . | docker import --change 'WORKDIR /work' - "$image" >/dev/null
    rm -rf "$root"
}

export PATH="$folder/engine/usr/bin:$folder/engine/usr/sbin:$PATH" DOCKER_HOST="unix://$socket" DOCKER_CONFIG="$folder/config"
case $1 in
start)
    unpack
    start_engine
    make_image
    printf 'export DOCKER_HOST=%q DOCKER_CONFIG=%q PATH=%q:"$PATH"\n' "$DOCKER_HOST" "$DOCKER_CONFIG" "$folder/engine/usr/bin"
    ;;
stop)
    [ -f "$folder/run/pid" ] || exit 0
    pid=$(cat "$folder/run/pid")
    kill "$pid"
    for _ in $(seq 30); do kill -0 "$pid" 2>/dev/null || break && sleep 1; done
    ;;
*)
    echo "usage: tests/docker_engine.sh start|stop FOLDER" >&2
    exit 2
    ;;
esac
