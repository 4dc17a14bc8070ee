#!/usr/bin/env bash
# A newcomer who knows nothing but the overlay's name and a real BIND name server finds the overlay, pins its
# descriptor, and notices when the DNS names another one.
#
# The overlay runs in p2p-lab; what its own embedded DNS publishes is copied, record by record as dig shows it, into a
# zone of BIND, on a free port of loopback, in a temporary folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bin=$PWD/target/debug
# Debian keeps named where ordinary users do not look.
PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d)
pids=()
finish() {
    ((${#pids[@]})) && kill "${pids[@]}" 2>/dev/null
    wait 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# expect CODE COMMAND...: runs it, keeps what it prints in $output, and insists on its exit code.
expect() {
    local wanted=$1 code=0
    shift
    output=$("$@" 2>&1) || code=$?
    printf '$ %s\n%s\n' "${*/#$bin\//}" "$output"
    ((code == wanted)) || fail "exit code $code, not $wanted"
}

env -i PATH="$PATH" HOME="$work" "$bin/p2p-lab" up >"$work/lab.env" 2>"$work/lab.err" &
pids+=($!)
for _ in $(seq 100); do
    grep -q P2PSIP_AOR "$work/lab.env" && break
    sleep 0.1
done
# shellcheck disable=SC1091
. "$work/lab.env"
[[ -n ${P2PSIP_DNS:-} ]] || fail "p2p-lab did not come up: $(cat "$work/lab.err")"
lab=(-p "${P2PSIP_DNS##*:}" "@${P2PSIP_DNS%:*}" +noall +answer)

zone() {
    printf '$TTL 1\n@ IN SOA ns hostmaster %s 3600 600 86400 1\n@ IN NS ns\nns IN A 127.0.0.1\n' "$1"
    dig "${lab[@]}" "_dnsaddr.$P2PSIP_OVERLAY" TXT
    dig "${lab[@]}" "_p2psip.$P2PSIP_OVERLAY" TXT | sed "$2"
}
# Nobody else is likely to listen on a port picked at random; if somebody does, BIND says so and the test fails.
port=$((20000 + RANDOM % 12000))
zone 1 '' >"$work/zone"
cat >"$work/named.conf" <<CONF
options {
    directory "$work"; pid-file "$work/named.pid"; session-keyfile "$work/session.key";
    listen-on port $port { 127.0.0.1; }; listen-on-v6 { none; };
    recursion no; allow-transfer { none; }; dnssec-validation no;
};
controls { };
zone "$P2PSIP_OVERLAY" { type primary; file "$work/zone"; };
CONF
named -g -c "$work/named.conf" >"$work/named.log" 2>&1 &
named=$!
pids+=("$named")
for _ in $(seq 50); do
    dig +time=1 +tries=1 +short -p "$port" @127.0.0.1 "$P2PSIP_OVERLAY" SOA 2>/dev/null | grep -q ^ns && break
    sleep 0.1
done

expect 0 env P2PSIP_HOME="$P2PSIP_HOME" P2PSIP_SOCKET="$P2PSIP_SOCKET" "$bin/p2p-register" "$P2PSIP_AOR"
newcomer=(env -i "PATH=$PATH" "HOME=$work/newcomer" "$bin/p2p-lookup" "$P2PSIP_AOR" --dns "127.0.0.1:$port" --json)
expect 0 "${newcomer[@]}"
[[ $output == *'"status":"found"'* ]] || fail "not found through BIND"
[[ $output == *"on first use"* ]] || fail "no word about trust on first use"
expect 0 "${newcomer[@]}"
[[ $output != *"on first use"* ]] || fail "the descriptor was not pinned"

zone 2 's/h=[0-9a-f]\{8\}/h=00000000/' >"$work/zone"
kill -HUP "$named"
for _ in $(seq 50); do
    dig +short -p "$port" @127.0.0.1 "_p2psip.$P2PSIP_OVERLAY" TXT | grep -q h=00000000 && break
    sleep 0.1
done
expect 4 "${newcomer[@]}"
[[ $output == *"has changed"* ]] || fail "no word about the change"
echo "BIND $(named -v | cut -d' ' -f2): found, pinned, and the change noticed"
