#!/bin/sh
# Installs what this package holds, or updates it: the program in /opt/understudy, a unit of systemd, a
# config file below /etc/understudy that is yours from then on. Run again, it replaces the program alone.
#
#   ./install.sh [--root DIR] [--no-start]
#
#   --root DIR   into the tree of a machine that is not running (an image)
#   --no-start   enable the service, but do not start it now
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=
start=yes
while [ $# -gt 0 ]; do
  case $1 in
    --root) root=${2:?--root needs a folder} && shift ;;
    --no-start) start=no ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
  esac
  shift
done
role=$(cat "$here/ROLE")
service=understudy-$role
config=/etc/understudy/$role.json

fail() {
  printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
  exit 1
}

check_machine() {
  [ "$(id -u)" = 0 ] || fail 'the installation needs root' 'run it with sudo'
  [ "$(uname -s) $(uname -m)" = 'Linux x86_64' ] ||
    fail "this package is for Linux on x86-64, not $(uname -s) $(uname -m)" 'build it on such a machine'
  # One replaces the other, and what only the other needs would be gone.
  there=$(cat "$root/opt/understudy/ROLE" 2>/dev/null || echo "$role")
  [ "$there" = "$role" ] ||
    fail "/opt/understudy holds the program of $there" "a machine is $there or $role; README.md tells how to remove one"
  [ -z "$root" ] || return 0
  # Every program and library of the package finds what it is linked to.
  for file in bin/node build/Release/understudy.node build/Release/understudy-loader; do
    [ -e "$here/$file" ] || continue
    missing=$(ldd "$here/$file" 2>&1 | sed -n 's/^[[:space:]]*\(.*not found.*\)/\1/p')
    [ -z "$missing" ] || fail "$file: $missing" 'install what is missing (Debian: libc6, libstdc++6)'
  done
  "$here/bin/understudy" --version >/dev/null ||
    fail 'the program does not run on this machine' 'it is built for glibc 2.28 or newer'
  [ -d /run/systemd/system ] || fail 'systemd does not run here' 'see README.md to run it in another way'
}

check_tracking() {
  [ "$role" = agent ] && [ -z "$root" ] || return 0
  [ -r /sys/kernel/btf/vmlinux ] ||
    echo 'note: this kernel has no BTF (/sys/kernel/btf/vmlinux): changes will be found by reading' \
      'everything again and again; use a kernel of Linux 5.17 or newer with BTF' >&2
}

# The old program stays until the new one is there as a whole.
place_program() {
  mkdir -p "$root/opt"
  rm -rf "$root/opt/understudy.new" "$root/opt/understudy.old"
  cp -a "$here" "$root/opt/understudy.new"
  chown -R 0:0 "$root/opt/understudy.new"
  [ ! -d "$root/opt/understudy" ] || mv "$root/opt/understudy" "$root/opt/understudy.old"
  mv "$root/opt/understudy.new" "$root/opt/understudy"
  rm -rf "$root/opt/understudy.old"
  mkdir -p "$root/usr/local/bin"
  ln -sfn /opt/understudy/bin/understudy "$root/usr/local/bin/understudy"
}

# staging runs as a user of its own.
make_user() {
  [ "$role" = staging ] || return 0
  grep -q '^understudy:' "$root/etc/passwd" && return 0
  useradd ${root:+--root "$root"} --system --user-group --home-dir /var/lib/understudy \
    --shell /usr/sbin/nologin understudy
}

place_config() {
  # staging reads its file as a user of its own; there is no secret in it.
  mode=600
  [ "$role" = agent ] || mode=644
  mkdir -p "$root/etc/understudy"
  chmod 755 "$root/etc/understudy"
  [ -e "$root$config" ] || install -m "$mode" "$here/install/$role.json.example" "$root$config"
}

place_unit() {
  mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
  install -m 644 "$here/install/systemd/$service.service" "$root/etc/systemd/system/"
  ln -sfn "/etc/systemd/system/$service.service" \
    "$root/etc/systemd/system/multi-user.target.wants/$service.service"
}

# Words in capitals are what only the operator knows.
is_config_ready() {
  ! grep -Eq 'https://STAGING|"NAME"' "$root$config"
}

start_service() {
  [ -z "$root" ] || return 0
  systemctl daemon-reload
  if ! is_config_ready; then
    echo "installed. Fill in $config, then: systemctl start $service"
  elif [ "$start" = no ]; then
    echo "installed. To start it: systemctl restart $service"
  else
    systemctl restart "$service"
    echo "installed and started. What it says: journalctl -u $service -f"
  fi
}

check_machine
check_tracking
place_program
make_user
place_config
place_unit
start_service
