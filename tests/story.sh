#!/usr/bin/env bash
# Runs the quick start of README.md, command by command, against the real program with the real grpcurl, and checks that
# what stands after each `#=>` is in the output, in order.
#
#     tests/story.sh <path of ostiary>
#
# grpcurl is taken from OSTIARY_GRPCURL, else from PATH. What is replaced in the commands, and nothing else:
#   - `cargo run --release -- serve` by the given program in the background, with a free port;
#   - the port 50051 by that port;
#   - the lines that install grpcurl by nothing.
set -euo pipefail

here="$(cd "$(dirname "$0")/.." && pwd)"
ostiary="$(realpath "${1:?the path of ostiary}")"
grpcurl="${OSTIARY_GRPCURL:-$(command -v grpcurl || true)}"
if [[ ! -x "$grpcurl" ]]; then
  echo 'no grpcurl: go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4, or name it in OSTIARY_GRPCURL' >&2
  exit 1
fi

place="$(mktemp -d)"
server=
tidy_up() {
  [[ -z "$server" ]] || kill "$server" 2>/dev/null || true
  rm -rf "$place"
}
trap tidy_up EXIT
mkdir "$place/bin"
ln -s "$(realpath "$grpcurl")" "$place/bin/grpcurl"

# The shell blocks of the chapter, then those lines that a test does not run.
awk '/^## / { quick = ($0 == "## Quick start") } /^```/ { shell = quick && $0 == "```sh"; next } shell' \
  "$here/README.md" > "$place/blocks"
grep -qx 'cargo run --release -- serve' "$place/blocks"
sed -e '/^cargo run --release -- serve$/d' -e '/^go install /d' -e '/go env GOPATH/d' "$place/blocks" > "$place/commands"

# The port is free now; if somebody takes it before ostiary does, the next try finds another.
for _ in 1 2 3 4 5; do
  port=$((20000 + RANDOM % 10000))
  (cd "$place" && exec env -u OSTIARY_ROOT_KEY "$ostiary" serve --listen "127.0.0.1:$port") 2> "$place/log" &
  server=$!
  for _ in $(seq 300); do
    if grep -q ' serving ' "$place/log" || ! kill -0 "$server" 2>/dev/null; then break; fi
    sleep 0.1
  done
  if grep -q ' serving ' "$place/log"; then break; fi
  wait "$server" || true
  server=
done
[[ -n "$server" ]] || { cat "$place/log" >&2; exit 1; }

sed "s/127\.0\.0\.1:50051/127.0.0.1:$port/" "$place/commands" > "$place/story"
if ! (cd "$place" && PATH="$place/bin:$PATH" bash -euo pipefail story) > "$place/output" 2>&1; then
  sed -E 's/(_[0-9A-Za-z]{4})[0-9A-Za-z]{35}/\1.../g' "$place/output" >&2
  echo 'the quick start fails' >&2
  exit 1
fi

# Each promise is looked for from after the one before.
promises="$(sed -n 's/.*#=> *//p' "$place/blocks")"
position=1
checked=0
while IFS= read -r promise; do
  found="$(tail -n "+$position" "$place/output" | grep -n -m 1 -F -- "$promise" | cut -d: -f1 || true)"
  if [[ -z "$found" ]]; then
    echo "README.md promises this, and it did not come, or not in this order: $promise" >&2
    exit 1
  fi
  position=$((position + found))
  checked=$((checked + 1))
done <<< "$promises"

kill "$server"
wait "$server"
server=
if grep -q -E '_[0-9A-Za-z]{39}' "$place/log"; then
  echo 'a secret is in the log' >&2
  exit 1
fi
echo "the quick start does what README.md says: $checked promises kept"
