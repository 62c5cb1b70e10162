# Debian packages that building, testing and benchmarking need. Sourced. Installs only what is missing,
# and says what; without root it says what to install and stops.

build_packages=(
  clang llvm bpftool libbpf-dev libelf-dev zlib1g-dev liburing-dev liblz4-dev gcc g++ make python3 util-linux
)
test_packages=(
  xfsprogs btrfs-progs e2fsprogs qemu-utils qemu-block-extra fio nbdkit sqlite3 curl fdisk jq shellcheck
  qemu-system-x86 ovmf busybox-static grub-common grub-pc-bin grub-efi-amd64-bin dosfstools mtools
  dropbear-bin openssh-client
  python3-venv python3-cryptography mmdebstrap openssl systemd
)
bench_packages=(borgbackup restic fio jq)

# Packages of the list that are not installed.
missing_packages() {
  local package status
  for package in "$@"; do
    status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) || status=none
    [ "$status" = installed ] || printf '%s\n' "$package"
  done
}

need_packages() {
  local missing
  mapfile -t missing < <(missing_packages "$@")
  # Any npm will do: it only fetches the pinned Node.
  command -v npm >/dev/null || missing+=(nodejs npm)
  [ "${#missing[@]}" -gt 0 ] || return 0
  if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "missing packages: ${missing[*]}" >&2
    echo "install them as root: apt-get install ${missing[*]}" >&2
    return 1
  fi
  echo "installing Debian packages: ${missing[*]}" >&2
  {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
  } >&2
}
