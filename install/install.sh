#!/bin/sh
# Installs what this package holds, or updates it: the program in /opt/understudy, a unit of systemd, a
# config file below /etc/understudy that is yours from then on. Run again, it replaces the program alone.
#
#   ./install.sh [--root DIR] [--no-start]
#   /opt/understudy/install.sh --remove
#
#   --root DIR   into the tree of a machine that is not running (an image)
#   --no-start   enable the service, but do not start it now
#   --remove     stop the service and take the program away; config and data stay
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=
start=yes
task=install
while [ $# -gt 0 ]; do
  case $1 in
    --root) root=${2:?--root needs a folder} && shift ;;
    --no-start) start=no ;;
    --remove) task=remove ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
  esac
  shift
done
role=$(cat "$here/ROLE")
service=understudy-$role
folder=/etc/understudy
config=$folder/$role.json
completion=/usr/local/share/bash-completion/completions/understudy

fail() {
  printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
  exit 1
}

check_rights() {
  [ "$(id -u)" = 0 ] || fail "to $task it takes root" 'run it with sudo'
  [ -n "$root" ] || [ -d /run/systemd/system ] ||
    fail 'systemd does not run here' 'see README.md to run it in another way'
}

check_machine() {
  [ "$(uname -s) $(uname -m)" = 'Linux x86_64' ] ||
    fail "this package is for Linux on x86-64, not $(uname -s) $(uname -m)" 'build it on such a machine'
  [ "$here" != /opt/understudy ] || 
    fail 'this package is installed already' 'unpack a new one and run its install.sh'
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
  mkdir -p "$root${completion%/*}"
  ln -sfn /opt/understudy/install/completion.bash "$root$completion"
}

# staging runs as a user of its own.
make_user() {
  [ "$role" = staging ] || return 0
  grep -q '^understudy:' "$root/etc/passwd" && return 0
  useradd ${root:+--root "$root"} --system --user-group --home-dir /var/lib/understudy \
    --shell /usr/sbin/nologin understudy
}

place_file() { # NAME MODE: what is there already is the operator's
  [ -e "$root$folder/$1" ] || install -m "$2" "$here/install/$1.example" "$root$folder/$1"
}

place_config() {
  mkdir -p "$root$folder"
  chmod 755 "$root$folder"
  # staging reads its file as a user of its own; there is no secret in it.
  if [ "$role" = agent ]; then
    place_file agent.json 600
  else
    place_file staging.json 644
    place_file operator.json 644
  fi
}

place_unit() {
  mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
  install -m 644 "$here/install/systemd/$service.service" "$root/etc/systemd/system/"
  ln -sfn "/etc/systemd/system/$service.service" \
    "$root/etc/systemd/system/multi-user.target.wants/$service.service"
}

# The value of an option in the config file, where it is a text.
option() {
  sed -n "s/^.*\"$1\"[[:space:]]*:[[:space:]]*\"\\([^\"]*\\)\".*/\\1/p" "$config" | head -n 1
}

# What only the operator can give: one line for each thing that is missing.
missing_things() {
  if [ "$role" = agent ]; then
    # Words in capitals are what only the operator knows.
    ! grep -Eq 'https://STAGING|"NAME"' "$config" || echo "fill in $config: the words in capitals"
    path=$(option token-file)
    [ -z "$path" ] || [ -e "$path" ] ||
      echo "put this server's token into $path (on the staging machine: understudy server token NAME)"
    path=$(option ca)
    [ -z "$path" ] || [ -e "$path" ] || echo "put staging's certificate into $path"
  else
    path=$(option tls-cert)
    [ -z "$path" ] || [ -e "$path" ] ||
      echo "make a certificate: /opt/understudy/install/make-certificate.sh $folder NAME-OR-ADDRESS..."
  fi
}

start_service() {
  systemctl daemon-reload
  missing=$(missing_things)
  if [ -n "$missing" ]; then
    printf 'installed. What is left to do:\n%s\n' "$missing" | sed '2,$s/^/  - /'
    echo "  - systemctl start $service"
  elif [ "$start" = no ]; then
    echo "installed. To start it: systemctl restart $service"
  elif systemctl restart "$service"; then
    echo "installed and started. What it says: journalctl -u $service -f"
  else
    journalctl -u "$service" -n 5 -o cat --no-pager >&2
    fail "installed, but $service does not start" "its last words stand above; then: systemctl restart $service"
  fi
}

# The config, and what staging keeps, are not ours to throw away.
remove_all() {
  [ -z "$root" ] || fail '--remove is for the machine that runs' 'remove the files from the tree by hand'
  systemctl disable --now "$service" || true
  if [ "$role" = agent ]; then
    # Whatever the config says by now: without its pins nothing is tracked any more.
    "$here/bin/understudy" agent detach --config "$config" --yes || true
    rm -rf /sys/fs/bpf/understudy
  fi
  rm -rf /opt/understudy
  rm -f /usr/local/bin/understudy "$completion" "/etc/systemd/system/$service.service"
  systemctl daemon-reload
  rest=$folder
  [ "$role" = agent ] || rest="$folder, /var/lib/understudy (everything that was kept) and the user understudy"
  echo "removed. What stays: $rest"
}

check_rights
if [ "$task" = remove ]; then
  remove_all
else
  check_machine
  check_tracking
  place_program
  make_user
  place_config
  place_unit
  [ -n "$root" ] || start_service
fi
