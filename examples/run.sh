# What the `run` scripts of the examples share: a gateway and a backend, started in order and ended in order.
# Sourced, not run. Works with the bash 3.2 of macOS, hence no `wait -n`.

gateway=''
backend=''
scratch=$(mktemp -d)
: >"$scratch/gateway.out"
: >"$scratch/backend.out"
page=''

trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Each child gets a process group of its own: Ctrl-C then reaches this script alone, which ends them in order. Twice
# told, the gateway would not drain but leave at once.
set -m

start_gateway() {
  local routes=${ROUTES:-$1}
  if [ -n "${LIVEGATE:-}" ]; then
    "$LIVEGATE" serve --config "$routes" >"$scratch/gateway.out" &
  else
    # cargo becomes the gateway when the build is done, so its id is the gateway's.
    cargo run --quiet --release --manifest-path "$here/../../Cargo.toml" -- serve --config "$routes" >"$scratch/gateway.out" &
    echo "building the gateway if need be"
  fi
  gateway=$!
  # It names its listeners on stdout once they accept; the admin listener's line begins otherwise.
  while [ -z "$page" ]; do
    alive "$gateway" || { echo "the gateway did not start" >&2; exit 1; }
    page=$(sed -n 's|^listening on \(https\{0,1\}://.*\)$|\1|p' "$scratch/gateway.out" | head -n 1)
    [ -n "$page" ] || pause 0.2
  done
  cat "$scratch/gateway.out"
}

# The credential of routes.toml, in the variables every AWS SDK reads. Set outright, and profiles taken away: real keys
# that lie about in this terminal must not be used against a gateway that does not know them.
start_backend() {
  unset AWS_PROFILE AWS_DEFAULT_PROFILE AWS_SESSION_TOKEN
  export AWS_ACCESS_KEY_ID=AKIDLOCAL AWS_SECRET_ACCESS_KEY=only-for-this-machine AWS_REGION=us-east-1
  "$@" >"$scratch/backend.out" &
  backend=$!
  # The page comes from the backend, through the gateway: worth opening once both are there.
  until grep -q '^chat backend on' "$scratch/backend.out"; do
    alive "$backend" || { echo "the backend did not start" >&2; exit 1; }
    pause 0.2
  done
  cat "$scratch/backend.out"
  echo "chat page on ${page%/}/"
}

wait_for_the_end() {
  while alive "$gateway" && alive "$backend"; do pause 0.5; done
  alive "$gateway" && echo "the backend ended" >&2 || echo "the gateway ended" >&2
  exit 1
}

# The gateway first: while it drains, the backend still hears of every closed socket.
finish() {
  local status=$?
  trap '' INT TERM
  for child in $gateway $backend; do
    kill -TERM -- "-$child" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
  done
  rm -rf "$scratch"
  # Being told to end is how this ends, no failure.
  case $status in 130 | 143) exit 0 ;; *) exit "$status" ;; esac
}

alive() { kill -0 "$1" 2>/dev/null; }

# `sleep` in the background, since a trap waits for a foreground command but not for `wait`.
pause() { sleep "$1" & wait $! || true; }
