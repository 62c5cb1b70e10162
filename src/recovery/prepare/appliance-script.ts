/**
 * What runs inside the preparation's virtual machine: two shell scripts for busybox. `init` loads drivers
 * and answers requests on a virtio port, one line each; `enter` puts the answering into the root file
 * system of the disk by chroot, so that its links lead where they do for the machine itself. Nothing of
 * the disk is ever run. What to change is decided outside (prepare.ts): these scripts only read and write.
 *
 * A request: VERB ARGUMENTS, the path last. An answer: "ok" or "no", a space, a length, a newline, and so
 * many bytes: what was asked for, or why not.
 */

export const PORT_NAME = 'understudy.prepare';
/** Where the appliance's own things lie once the disk is the root: in the memory of its /dev. */
export const OWN_FOLDER = '/dev/.understudy';
/** Of the longest names, as many as fit into one answer. */
const MAX_LISTED = 4000;

export const initScript = `#!/bin/sh
export PATH=/bin
for each in proc sys dev disk; do mkdir -p /$each; done
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
load() { [ -f /modules/$1 ] && while read -r file; do insmod /modules/$file 2>/dev/null; done </modules/$1; }
load base
mkdir -p ${OWN_FOLDER}/bin
cp /bin/busybox /serve ${OWN_FOLDER}
cp -r /label ${OWN_FOLDER} 2>/dev/null
${OWN_FOLDER}/busybox --install -s ${OWN_FOLDER}/bin
for try in 1 2 3 4 5 6 7 8 9 10; do
  for port in /sys/class/virtio-ports/*; do
    [ "$(cat $port/name 2>/dev/null)" = ${PORT_NAME} ] && talk=/dev/\${port##*/}
  done
  [ -c "$talk" ] && break
  sleep 0.3
done
exec 3<>$talk || { echo "ALERT! no port"; poweroff -f; }
. /serve
watch_host 600 &
serve
sync
poweroff -f
`;

export const serveScript = `own=${OWN_FOLDER}
fail() { echo "$*" >&2; return 1; }
size_of() { stat -L -c %s "$1"; }
watch_host() { # SECONDS: a host that asks nothing for so long is gone
  cd $own
  while sleep "$1"; do rm alive 2>/dev/null || poweroff -f; done
}
do_load() { while read -r file; do insmod /modules/$file 2>/dev/null; done </modules/$1; true; }
do_devices() {
  for each in /sys/class/block/*; do
    name=\${each##*/}
    case $name in loop*|ram*|zram*|sr*|fd*) continue;; esac
    number=$(cat $each/partition 2>/dev/null)
    mapped=$(cat $each/dm/name 2>/dev/null)
    parent=$(readlink -f $each/..)
    printf '%s|%s|%s|%s|%s|%s\\n' "$name" "$(cat $each/size)" "\${number:-0}" "\${parent##*/}" \\
      "$(cat $each/serial 2>/dev/null)" "$mapped"
  done
}
do_lvm() {
  [ -x /lvm/lvm ] || fail "no lvm program in the appliance"
  do_load lvm
  plain='activation{udev_sync=0 udev_rules=0 verify_udev_operations=0}'
  plain="$plain devices{obtain_device_list_from_udev=0 external_device_info_source=\\"none\\"}"
  /lvm/loader --library-path /lvm /lvm/lvm vgchange --config "$plain" -ay --noudevsync >&2
}
do_mount() { # DEVICE TYPE OPTIONS PATH
  mkdir -p "$4" 2>/dev/null
  mount -t "$2" -o "$3" "$1" "$4"
}
do_umount() { umount "$1"; }
do_head() { head -c "$1" "$2"; }
do_list() {
  count=0
  for each in "$1"/* "$1"/.[!.]*; do
    # An answer has a bound.
    count=$((count + 1)); [ $count -le ${MAX_LISTED} ] || break
    if [ -d "$each" ]; then type=d; elif [ -f "$each" ]; then type=f
    elif [ -L "$each" ]; then type=l; elif [ -e "$each" ]; then type=o; else continue; fi
    printf '%s%s\\0' $type "\${each##*/}"
  done
}
do_free() { stat -f -c '%a %S' "$1"; }
do_resolve() { readlink -f "$1"; }
do_stat() { # one letter, and the size
  if [ -d "$1" ]; then echo d 0; elif [ -f "$1" ]; then echo f $(size_of "$1")
  elif [ -L "$1" ]; then echo l 0; elif [ -e "$1" ]; then echo o 0; else echo - 0; fi
}
do_keep() { # FROM|TO: a copy beside it, made once; of a link, what it leads to
  from=\${1%%|*}; to=\${1#*|}
  [ -e "$to" ] || [ -L "$to" ] || cp -pL "$from" "$to" && return 0
  # A part of it would be taken for the original.
  rm -f "$to"
  return 1
}
do_move() { mv "\${1%%|*}" "\${1#*|}"; }
do_link() { # TARGET|PATH
  path=\${1#*|}
  mkdir -p "\${path%/*}/"
  ln -s "\${1%%|*}" "$path"
}
do_label() { # CONTEXT PATH
  [ -x $own/label/chcon ] || fail "no chcon program in the appliance" || return 1
  $own/label/loader --library-path $own/label $own/label/chcon -h "$1" "$2" >&2
}
do_remove() { rm -f "$1"; }
receive() { # SIZE: what follows on the port, in memory
  printf 'ok 0\\n' >&3
  head -c "$1" <&3 >$own/in
  [ "$(size_of $own/in)" = "$1" ] || fail "not all of it arrived"
}
do_write() { # SIZE MODE PATH: into the file that is there, or a new one of that mode
  receive "$1" || return 1
  if [ -e "$3" ]; then rewrite "$3"; return; fi
  mkdir -p "\${3%/*}/" && cat $own/in >"$3" && chmod "$2" "$3" && return 0
  [ -L "$3" ] || rm -f "$3"
  return 1
}
rewrite() { # PATH: its blocks stay its own, so that what was there can be put back when the disk is full
  [ -f "$1" ] || fail "is no file" || return 1
  cat "$1" >$own/old || { rm -f $own/old; return 1; }
  put_over $own/in "$1" && return 0
  put_over $own/old "$1"
  return 1
}
put_over() { # FROM PATH
  dd if="$1" of="$2" bs=65536 conv=notrunc status=none && truncate -s "$(size_of "$1")" "$2"
}
do_append() { # SIZE PATH
  receive "$1" || return 1
  size=$(size_of "$2") && cat $own/in >>"$2" && return 0
  truncate -s "$size" "$2"
  return 1
}
do_enter() {
  mount --move /proc /disk/root/proc 2>/dev/null || true
  mount --move /sys /disk/root/sys 2>/dev/null || true
  mkdir -p /disk/root/dev
  mount --move /dev /disk/root/dev || return 1
  chroot /disk/root $own/busybox sh -c "export PATH=$own/bin; . $own/serve; printf 'ok 0\\n' >&3; serve"
  status=$?
  mount --move /disk/root/dev /dev || status=1
  mount --move /disk/root/proc /proc 2>/dev/null
  mount --move /disk/root/sys /sys 2>/dev/null
  sync
  # Those mounted inside go first.
  for place in $(cut -d ' ' -f 2 /proc/mounts | grep '^/disk/root' | sort -r); do
    umount $place || status=1
  done
  [ $status = 0 ] || { echo "the file systems could not be left clean" >$own/err; return 1; }
}
answer() { # VERDICT FILE
  printf '%s %s\\n' "$1" "$(size_of "$2")" >&3
  cat "$2" >&3
}
do_read() { # MOST PATH
  [ -f "$2" ] || fail "no such file" || return 1
  [ "$(size_of "$2")" -le "$1" ] || fail "larger than $1 bytes" || return 1
  # Its length is told before its bytes: they must be there.
  cat "$2" >/dev/null
}
serve() {
  # A port to which nobody is connected yet reads as ended.
  for try in 1 2 3 4 5 6 7 8 9 10; do answer_all; [ -n "$asked" ] && break; sleep 0.3; done
}
answer_all() {
  while IFS= read -r line <&3; do
    asked=1
    : >$own/alive
    verb=\${line%% *}; a=\${line#* }
    b=\${a#* }; c=\${b#* }; d=\${c#* }
    case $verb in
      end) break;;
      read|head|append|label) set -- "\${a%% *}" "$b";;
      write) set -- "\${a%% *}" "\${b%% *}" "$c";;
      mount) set -- "\${a%% *}" "\${b%% *}" "\${c%% *}" "$d";;
      *) set -- "$a";;
    esac
    if "do_$verb" "$@" >$own/out 2>$own/err; then
      if [ $verb = read ]; then answer ok "$2"; else answer ok $own/out; fi
    else
      answer no $own/err
    fi
  done
}
`;
