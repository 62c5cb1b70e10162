# A staging service and an agent for the demonstration and the benchmarks: processes of their own, with all
# they write under the scratch folder. Sourced, after build.sh and cleanup.sh.

main="$root/dist/cli/main.js"

fail() {
  echo "$(basename "$0"): $*" >&2
  tail -n 5 "$scratch"/*.log >&2 2>/dev/null || true
  exit 1
}

need_root() {
  [ "$(id -u)" = 0 ] && return 0
  echo "$(basename "$0") needs root: it makes loop devices and loads eBPF programs" >&2
  exit 1
}

understudy() { "$node" "$main" "$@"; }

# start_staging KEEP: sets $staging_pid and the environment of the operator's commands.
start_staging() {
  rm -f "$scratch/staging.out"
  "$node" "$main" staging run --data "$scratch/data" --listen 127.0.0.1:0 --keep "$1" --json \
    >"$scratch/staging.out" 2>"$scratch/staging.log" &
  staging_pid=$!
  until [ -s "$scratch/staging.out" ]; do
    kill -0 "$staging_pid" 2>/dev/null || fail "staging did not start"
    sleep 0.05
  done
  UNDERSTUDY_STAGING=$(jq -r .url "$scratch/staging.out")
  export UNDERSTUDY_STAGING UNDERSTUDY_TOKEN_FILE="$scratch/data/token"
}

# agent_token SERVER: prints the name of the file with its token.
agent_token() {
  local file="$scratch/$1.token"
  [ -s "$file" ] || rest "/v1/servers/$1/token" -X POST | (umask 077 && jq -r .token >"$file")
  echo "$file"
}

# start_agent SERVER INTERVAL VOLUME...: sets $agent_pid.
start_agent() {
  local server=$1 interval=$2 token
  shift 2
  token=$(agent_token "$server")
  echo "$server" >>"$scratch/tracked-servers"
  "$node" "$main" agent run --server "$server" --token-file "$token" --cut-interval "$interval" --volume "$@" \
    >>"$scratch/agent.out" 2>>"$scratch/agent.log" &
  agent_pid=$!
}

stop_process() { # PID: ends it and waits
  kill "$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
}

# rest PATH [CURL OPTIONS]: without the start of a Node process, for tight polling.
rest() {
  local path=$1
  shift
  curl -sf -H "Authorization: Bearer $(cat "$UNDERSTUDY_TOKEN_FILE")" "$@" "$UNDERSTUDY_STAGING$path"
}

point_count() { # SERVER
  rest "/v1/points?server=$1&limit=1000" | jq '.points | length'
}

# wait_points SERVER COUNT SECONDS
wait_points() {
  local deadline=$((SECONDS + $3))
  while [ "$(point_count "$1")" -lt "$2" ]; do
    [ "$SECONDS" -lt "$deadline" ] || fail "no $2 points of $1 after $3 s"
    kill -0 "$agent_pid" 2>/dev/null || fail "the agent ended"
    # Each look starts two processes, which take their time from what is measured.
    sleep 0.2
  done
}
