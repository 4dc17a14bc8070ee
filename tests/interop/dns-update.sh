#!/usr/bin/env bash
# Proxy peers in real name servers: the suite of dns::publish against BIND and Knot, then p2p-publish beside BIND's own
# tools (tsig-keygen, nsupdate, named-checkzone, dig).
#
# Both servers run on free ports of loopback, in a temporary folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bin=$PWD/target/debug
# Debian keeps name servers where ordinary users do not look.
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

says() {
    [[ $output == *"$1"* ]] || fail "no word of '$1'"
}

mkdir -p "$work"/{bind,knot/db,bind-keys,knot-keys}
for key in gatekeeper stranger quota; do
    (umask 077 && tsig-keygen "$key" >"$work/bind-keys/$key.key")
done
# Another algorithm, which the tools have to know as well; Knot has no quotas.
(umask 077 && tsig-keygen -a hmac-sha512 gatekeeper >"$work/bind-keys/gatekeeper.key")
cp "$work"/bind-keys/{gatekeeper,stranger}.key "$work/knot-keys"

zone='$TTL 30
@ SOA ns1 hostmaster 1 3600 600 86400 5
@ NS ns1
ns1 A 127.0.0.1'
printf '%s\n' "$zone" >"$work/bind/p2psip.org.zone"
printf '%s\n' "$zone" >"$work/knot/p2psip.org.zone"
# Nobody else is likely to listen on ports picked at random; if somebody does, the server says so and the test fails.
port=$((20000 + RANDOM % 12000))
bind=127.0.0.1:$port
knot=127.0.0.1:$((port + 1))

{
    for key in gatekeeper stranger quota; do echo "include \"$work/bind-keys/$key.key\";"; done
    cat <<CONF
options {
    directory "$work/bind"; pid-file "$work/bind/named.pid"; session-keyfile none;
    listen-on port $port { 127.0.0.1; }; listen-on-v6 { none; };
    recursion no; allow-transfer { none; }; dnssec-validation no; notify no;
};
controls { };
zone "p2psip.org" {
    type primary; file "$work/bind/p2psip.org.zone";
    update-policy {
        grant gatekeeper zonesub ANY;
        grant quota zonesub A(2) AAAA(2) SRV NAPTR PTR TXT;
    };
};
CONF
} >"$work/named.conf"
named -g -c "$work/named.conf" >"$work/named.log" 2>&1 &
pids+=($!)

secret() { sed -n 's/.*secret "\(.*\)";/\1/p' "$work/knot-keys/$1.key"; }
cat >"$work/knot.conf" <<CONF
server:
    rundir: "$work/knot"
    listen: 127.0.0.1@$((port + 1))
database:
    storage: "$work/knot/db"
log:
  - target: stderr
    any: info
key:
  - id: gatekeeper
    algorithm: hmac-sha512
    secret: $(secret gatekeeper)
  - id: stranger
    algorithm: hmac-sha256
    secret: $(secret stranger)
acl:
  - id: all
    key: gatekeeper
    action: update
  - id: nothing
    key: stranger
    action: update
    update-type: [LOC]
zone:
  - domain: p2psip.org
    storage: "$work/knot"
    file: p2psip.org.zone
    zonefile-sync: -1
    journal-content: all
    zonefile-load: difference-no-serial
    acl: [all, nothing]
CONF
knotd -c "$work/knot.conf" >"$work/knot.log" 2>&1 &
pids+=($!)

dig() { command dig +time=1 +tries=1 -p "$port" @127.0.0.1 "$@"; }
for at in "$port" $((port + 1)); do
    for _ in $(seq 50); do
        command dig +time=1 +tries=1 +short -p "$at" @127.0.0.1 p2psip.org SOA 2>/dev/null | grep -q ^ns1 && continue 2
        sleep 0.1
    done
    fail "no name server on port $at: $(tail -3 "$work/named.log" "$work/knot.log")"
done

for server in bind knot; do
    echo "the suite against $server"
    P2PSIP_TEST_DNS=${!server} P2PSIP_TEST_KEYS=$work/$server-keys \
        cargo test --locked --quiet --lib dns::publish || fail "the suite fails against $server"
done

publish=(env -i "PATH=$PATH" "HOME=$work" "$bin/p2p-publish")
there=(--overlay cli.p2psip.org --server "$bind")
key=(--key "$work/bind-keys/gatekeeper.key")
add=("${publish[@]}" add --host proxy1 --address 192.0.2.1 --address 2001:db8::1 "${there[@]}")

expect 0 "${add[@]}" "${key[@]}"
[[ $(dig +short _sip._udp.cli.p2psip.org SRV) == '10 50 5060 proxy1.cli.p2psip.org.' ]] || fail "BIND has no SRV record"
[[ $(dig +short cli.p2psip.org NAPTR | sort) == '20 50 "s" "SIP+D2T" "" _sip._tcp.cli.p2psip.org.
30 50 "s" "SIP+D2U" "" _sip._udp.cli.p2psip.org.' ]] || fail "BIND has no NAPTR records"
[[ $(dig +short cli.p2psip.org AAAA) == 2001:db8::1 ]] || fail "BIND has no address at the identifier"
expect 0 "${publish[@]}" list --check --dns-only "${there[@]}"
says proxy1.cli.p2psip.org

# What a dry run prints does the same through nsupdate, and only once.
expect 0 "${publish[@]}" remove --host proxy1 "${there[@]}" "${key[@]}"
[[ -z $(dig +short proxy1.cli.p2psip.org A)$(dig +short cli.p2psip.org NAPTR) ]] || fail "something is left"
"${add[@]}" "${key[@]}" --dry-run >"$work/script"
expect 0 nsupdate -k "$work/bind-keys/gatekeeper.key" "$work/script"
[[ $(dig +short proxy1.cli.p2psip.org A) == 192.0.2.1 ]] || fail "nsupdate has not done it"
expect 2 nsupdate -k "$work/bind-keys/gatekeeper.key" "$work/script"
says 'update failed: YXRRSET'
expect 0 "${publish[@]}" remove --host proxy1 "${there[@]}" "${key[@]}"

expect 1 "${add[@]}" --key "$work/bind-keys/stranger.key"
says REFUSED
expect 1 "${publish[@]}" add --host a --address 192.0.2.1 --address 192.0.2.2 --address 192.0.2.3 "${there[@]}" \
    --key "$work/bind-keys/quota.key"
says 'took the update of p2psip.org without'
[[ -z $(dig +short a.cli.p2psip.org A) ]] || fail "half of it is published"

{
    printf '$TTL 30\n@ SOA ns1 hostmaster 1 3600 600 86400 5\n@ NS ns1\nns1 A 127.0.0.1\n'
    "${publish[@]}" export --host proxy1 --address 192.0.2.1 --transport tls --overlay p2psip.org
} >"$work/exported"
expect 0 named-checkzone p2psip.org "$work/exported"
echo "BIND $(named -v | cut -d' ' -f2) and $(knotd --version | head -1): added, renewed, removed, contended for, replayed"
