# Takes away what a run left behind, even an interrupted one. Everything that a test, the demonstration or
# a benchmark makes lies under one scratch folder, so what is ours is told by its path, never by a name
# that others may use. Sourced.

# make_scratch NAME [FOLDER]: sets $scratch, in memory or in FOLDER, and cleans it up when the shell ends,
# however it ends.
make_scratch() {
  local base=${2:-/dev/shm}
  [ -w "$base" ] || base=${TMPDIR:-/tmp}
  scratch=$(mktemp -d "$base/understudy-$1.XXXXXX")
  trap cleanup_scratch EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

# Processes with the scratch folder in their command line or environment, other than this shell and its
# ancestors.
scratch_processes() {
  local folder id words
  for folder in /proc/[0-9]*; do
    id=${folder#/proc/}
    [ "$id" = "$$" ] || [ "$id" = "$BASHPID" ] || [ "$id" = "$PPID" ] && continue
    # No pipe into grep -q here: it ends early, and pipefail takes the broken pipe for "not found".
    words=$(cat "$folder/cmdline" "$folder/environ" 2>/dev/null | tr '\0' ' ') || continue
    if [[ $words == *"$scratch"* ]]; then printf '%s\n' "$id"; fi
  done
}

# A process that is ending counts until it has let go of its files.
is_alive() {
  local state
  state=$(sed -n 's/^State:\t//p' "/proc/$1/status" 2>/dev/null) || return 1
  [[ $state && $state != [ZX]* ]]
}

stop_scratch_processes() {
  local signal ids id _
  for signal in TERM KILL; do
    mapfile -t ids < <(scratch_processes)
    [ "${#ids[@]}" -gt 0 ] || return 0
    kill "-$signal" "${ids[@]}" 2>/dev/null || true
    for id in "${ids[@]}"; do
      for _ in {1..50}; do
        is_alive "$id" || break
        sleep 0.1
      done
    done
  done
}

# Loop devices whose backing file lies in the scratch folder: "/dev/loop3".
scratch_loops() {
  losetup --list --noheadings --output NAME,BACK-FILE | awk -v under="$scratch/" \
    'index($2, under) == 1 { print $1 }'
}

# Trackers stay pinned in the kernel, as they should, until `agent detach`; the names of the servers whose
# agents ran lie in files named `tracked-servers` (`servers` is staging's own, in its data directory).
detach_scratch_trackers() {
  local server
  find "$scratch" -maxdepth 2 -name tracked-servers -exec cat {} + | sort -u | while read -r server; do
    "$node" "$root/dist/cli/main.js" agent detach --server "$server" --yes >/dev/null </dev/null
  done
}

cleanup_scratch() {
  local result=$? mounts loop place
  trap '' HUP INT TERM
  set +e
  stop_scratch_processes
  detach_scratch_trackers
  mapfile -t mounts < <(findmnt --list --noheadings --output TARGET | grep -F "$scratch/" | sort -r)
  for place in "${mounts[@]}"; do umount "$place" || umount --lazy "$place"; done
  for loop in $(scratch_loops); do
    partx -d "$loop" 2>/dev/null
    losetup -d "$loop"
  done
  rm -rf "$scratch"
  exit "$result"
}
