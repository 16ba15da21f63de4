#!/usr/bin/env bash
# Runs the quick start of README.md, command by command, against the real program with the real grpcurl, and checks that
# what stands after each `#=>` is in the output, in order. It is run through every door: in the clear over TCP, encrypted,
# encrypted with a certificate of the client, and over a Unix socket.
#
#     tests/story.sh <path of ostiary> [path of the example that makes certificates]
#
# grpcurl is taken from OSTIARY_GRPCURL, else from PATH. The certificates come from the example, beside the program if
# it is not named, which `cargo test` has built. What is replaced in the commands, and nothing else:
#   - `cargo run --release -- serve` by the given program in the background, with a free port and the flags of the door;
#   - `-plaintext` and the address 127.0.0.1:50051 by what README.md says for the door;
#   - the lines that install grpcurl by nothing.
set -euo pipefail

here="$(cd "$(dirname "$0")/.." && pwd)"
ostiary="$(realpath "${1:?the path of ostiary}")"
certificates="${2:-$(dirname "$ostiary")/examples/certificates}"
grpcurl="${OSTIARY_GRPCURL:-$(command -v grpcurl || true)}"
if [[ ! -x "$grpcurl" ]]; then
  echo 'no grpcurl: go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4, or name it in OSTIARY_GRPCURL' >&2
  exit 1
fi
if [[ ! -x "$certificates" ]]; then
  echo "no certificates: cargo build --example certificates, so that $certificates is there" >&2
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
"$certificates" "$place/tls"

# The shell blocks of the chapter, then those lines that a test does not run.
awk '/^## / { quick = ($0 == "## Quick start") } /^```/ { shell = quick && $0 == "```sh"; next } shell' \
  "$here/README.md" > "$place/blocks"
grep -qx 'cargo run --release -- serve' "$place/blocks"
sed -e '/^cargo run --release -- serve$/d' -e '/^go install /d' -e '/go env GOPATH/d' "$place/blocks" > "$place/commands"
for replaced in ' -plaintext ' ' 127.0.0.1:50051 '; do
  [[ "$(grep -c -F -- "$replaced" "$place/commands")" == 1 ]]
done

# serve DIRECTORY FLAG...: starts the program there on a free port, which it leaves in `port`.
serve() {
  local directory="$1"
  shift
  # The port is free now; if somebody takes it before ostiary does, the next try finds another.
  for _ in 1 2 3 4 5; do
    port=$((20000 + RANDOM % 10000))
    (cd "$directory" && exec env -u OSTIARY_ROOT_KEY "$ostiary" serve --listen "127.0.0.1:$port" "$@") 2> "$directory/log" &
    server=$!
    for _ in $(seq 300); do
      if grep -q ' serving ' "$directory/log" || ! kill -0 "$server" 2>/dev/null; then break; fi
      sleep 0.1
    done
    if grep -q ' serving ' "$directory/log"; then return; fi
    wait "$server" || true
    server=
  done
  cat "$directory/log" >&2
  exit 1
}

# through DOOR HOW WHERE FLAG...: runs the story with a server that has these flags, which grpcurl calls how and where. A
# `:PORT` in the latter is the server's.
through() {
  local door="$1" how="$2" where="$3" checked=0 position=1 promise found
  local directory="$place/$door"
  shift 3
  mkdir "$directory"
  serve "$directory" "$@"
  sed -e "s| -plaintext | $how |" -e "s| 127\.0\.0\.1:50051 | ${where/:PORT/:$port} |" "$place/commands" > "$directory/story"
  if ! (cd "$directory" && PATH="$place/bin:$PATH" bash -euo pipefail story) > "$directory/output" 2>&1; then
    sed -E 's/(_[0-9A-Za-z]{4})[0-9A-Za-z]{35}/\1.../g' "$directory/output" >&2
    echo "the quick start fails: $door" >&2
    exit 1
  fi
  # Each promise is looked for from after the one before.
  while IFS= read -r promise; do
    found="$(tail -n "+$position" "$directory/output" | grep -n -m 1 -F -- "$promise" | cut -d: -f1 || true)"
    if [[ -z "$found" ]]; then
      echo "README.md promises this, and it did not come, or not in this order: $promise ($door)" >&2
      exit 1
    fi
    position=$((position + found))
    checked=$((checked + 1))
  done <<< "$(sed -n 's/.*#=> *//p' "$place/blocks")"
  echo "the quick start does what README.md says, $door: $checked promises kept"
}

# closed HOW WHERE: nobody gets in like this.
closed() {
  if "$place/bin/grpcurl" -connect-timeout 5 "$@" list > /dev/null 2>&1; then
    echo "somebody got in who should not have: grpcurl $*" >&2
    exit 1
  fi
}

# leave: stops the server, which has told nobody a secret.
leave() {
  kill "$server"
  wait "$server"
  server=
  if grep -q -r -E --include=log '_[0-9A-Za-z]{39}' "$place"; then
    echo 'a secret is in the log' >&2
    exit 1
  fi
}

tls="$place/tls"
pair=(--tls-cert "$tls/cert.pem" --tls-key "$tls/key.pem")

through plain '-plaintext' '127.0.0.1:PORT'
leave

through encrypted "-cacert $tls/ca.pem" 'localhost:PORT' "${pair[@]}"
closed -plaintext "localhost:$port"
closed "localhost:$port"
leave

own="-cert $tls/client.pem -key $tls/client-key.pem"
through with-certificates "-cacert $tls/ca.pem $own" 'localhost:PORT' "${pair[@]}" --tls-client-ca "$tls/ca.pem"
closed -cacert "$tls/ca.pem" "localhost:$port"
leave

through socket '-plaintext -unix -authority localhost' "$place/here" --listen "unix:$place/here"
leave
