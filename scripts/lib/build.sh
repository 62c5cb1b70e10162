# Brings a checkout up to date: npm packages, the native addon, dist/. Sourced, with $root set. Silent and
# quick where nothing is to be done; whatever it says goes to standard error. A lock on the scripts folder
# keeps two at a time apart.

node="$root/node_modules/.bin/node"
addon="$root/build/Release/understudy.node"
dist_stamp="$root/dist/.built"

# The packages that npm has installed are those of the lock file. Times tell quickly; where they do not
# agree, contents decide (npm writes both files in either order).
packages_are_current() {
  local installed="$root/node_modules/.package-lock.json"
  [ -x "$node" ] && [ -f "$installed" ] || return 1
  [ "$installed" -nt "$root/package-lock.json" ] && return 0
  "$node" "$root/scripts/lib/compare-locks.ts" "$root/package-lock.json" "$installed" || return 1
  touch "$installed"
}

# newer_than TARGET FOLDER-OR-FILE...: true where something is newer, or the target is missing.
newer_than() {
  local target=$1
  shift
  [ -f "$target" ] || return 0
  [ -n "$(find "$@" -type f -newer "$target" -print -quit)" ]
}

addon_is_current() {
  ! newer_than "$addon" "$root/native" "$root/binding.gyp"
}

dist_is_current() {
  ! newer_than "$dist_stamp" "$root/src" "$root/tsconfig.json" "$root/tsconfig.build.json" \
    "$root/package-lock.json"
}

install_npm_packages() {
  echo "understudy: installing npm packages" >&2
  # The root package's own addon is built below, by the pinned Node, not by whichever runs npm.
  (cd "$root" && npm ci --no-progress --loglevel=error >&2)
}

build_addon() {
  echo "understudy: building the native addon" >&2
  local log="$root/node_modules/.understudy-build.log"
  if ! (cd "$root" && PATH="$root/node_modules/.bin:$PATH" npm run --silent build:native) >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    echo "understudy: building the native addon failed (whole log: $log)" >&2
    return 1
  fi
  rm -f "$log"
}

build_dist() {
  echo "understudy: compiling TypeScript" >&2
  local built source
  (cd "$root" && "$node" node_modules/.bin/tsc -p tsconfig.build.json >&2)
  # What has no source any more must not run.
  while IFS= read -r built; do
    source="$root/src/${built#"$root/dist/"}"
    [ -f "${source%.js}.ts" ] || rm -f "$built"
  done < <(find "$root/dist" -name '*.js')
  touch "$dist_stamp"
}

is_current() {
  packages_are_current && addon_is_current && dist_is_current
}

ensure_built() {
  is_current && return 0
  need_packages "${build_packages[@]}"
  exec 9<"$root/scripts"
  flock 9
  packages_are_current || install_npm_packages
  addon_is_current || build_addon
  dist_is_current || build_dist
  exec 9<&-
}
