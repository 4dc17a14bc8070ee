#!/usr/bin/env bash
# p2p-lookup locates SIP domains (RFC 3263) that a real BIND name server publishes: NAPTR, SRV, both families, aliases,
# answers that need TCP, records that nobody should follow; and a BIND that refuses, is stopped, or is gone.
#
# BIND runs on a free port of loopback, in a temporary folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bin=$PWD/target/debug
# Debian keeps named where ordinary users do not look.
PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d)
named=
finish() {
    [[ -n $named ]] && kill -CONT "$named" 2>/dev/null && kill "$named" 2>/dev/null
    wait 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# Nobody else is likely to listen on a port picked at random; if somebody does, BIND says so and the test fails.
port=$((20000 + RANDOM % 12000))
cat >"$work/example.com" <<'ZONE'
$TTL 60
@               IN SOA ns hostmaster 1 3600 600 86400 5
@               IN NS ns
ns              IN A 127.0.0.1
; The least preferred first, so that whoever does not sort is noticed.
@               IN NAPTR 90 50 "s" "SIP+D2U" "" _sip._udp
@               IN NAPTR 50 20 "S" "sip+d2t" "" _SIP._tcp
@               IN NAPTR 50 10 "s" "SIPS+D2T" "" _sips._tcp
@               IN NAPTR 1 1 "u" "E2U+sip" "!^.*$!sip:mallory@evil.example!" .
@               IN NAPTR 2 1 "s" "SIP+D2S" "" _sip._sctp
_sips._tcp      IN SRV 0 0 5061 one
_sip._tcp       IN SRV 20 0 5070 two
_sip._tcp       IN SRV 10 0 5060 one
_sip._udp       IN SRV 10 0 0 one
_sip._udp       IN SRV 20 0 5060 two
one             IN A 192.0.2.1
one             IN AAAA 2001:db8::1
two             IN A 192.0.2.2
; Without NAPTR: SRV, behind an alias; and without either.
_sip._udp.plain IN CNAME _sip._udp.hosted
_sip._udp.hosted IN SRV 0 0 5080 alias
alias           IN CNAME two
plain           IN A 192.0.2.99
bare            IN A 192.0.2.7
bare            IN AAAA 2001:db8::7
; Decidedly no SIP over UDP.
_sip._udp.none  IN SRV 0 0 0 .
none            IN A 192.0.2.98
mail            IN TXT "v=spf1 -all"
; Two aliases that point to each other.
_sip._tcp.loop  IN CNAME _sip._tcp.pool
_sip._tcp.pool  IN CNAME _sip._tcp.loop
ZONE
# More than any datagram holds.
for n in $(seq 1 80); do
    printf '_sip._tcp.big IN SRV %d 1 5060 server-with-a-long-name-%d\n' "$n" "$n"
    printf 'server-with-a-long-name-%d IN A 198.51.100.%d\n' "$n" "$n"
done >>"$work/example.com"
cat >"$work/named.conf" <<CONF
options {
    directory "$work"; pid-file "$work/named.pid"; session-keyfile "$work/session.key";
    listen-on port $port { 127.0.0.1; }; listen-on-v6 { none; };
    recursion no; allow-transfer { none; }; dnssec-validation no; check-names primary ignore;
};
controls { };
zone "example.com" { type primary; file "$work/example.com"; };
CONF
named -g -c "$work/named.conf" >"$work/named.log" 2>&1 &
named=$!
for _ in $(seq 50); do
    dig +time=1 +tries=1 +short -p "$port" @127.0.0.1 example.com SOA 2>/dev/null | grep -q ^ns && break
    sleep 0.1
done
grep -q 'loaded serial' "$work/named.log" || fail "BIND does not serve the zone: $(tail -n 5 "$work/named.log")"

lookup=(env -i "PATH=$PATH" "HOME=$work" "$bin/p2p-lookup" --dns "127.0.0.1:$port" --quiet)

# located URI TARGET...: the targets of a URI are these, in this order. Every system that has no IPv6 tries it last, so
# the families are located each on its own where their turns would matter.
located() {
    local uri=$1 wanted got code=0
    shift
    wanted=$(printf '%s\n' "$@")
    # shellcheck disable=SC2086
    got=$("${lookup[@]}" $family --short "$uri" 2>&1) || code=$?
    printf '$ p2p-lookup %s --short %s\n%s\n' "$family" "$uri" "$got"
    ((code == 0)) || fail "exit code $code"
    [[ $got == "$wanted" ]] || fail "not $wanted"
}

# answers CODE WORDS URI [OPTION...]: the exit code, and words somewhere in the answer.
answers() {
    local wanted=$1 words=$2 uri=$3 got code=0
    shift 3
    got=$("${lookup[@]}" "$@" "$uri" 2>&1) || code=$?
    printf '$ p2p-lookup %s\n%s\n' "$uri" "$got"
    ((code == wanted)) || fail "exit code $code, not $wanted"
    [[ $got == *"$words"* ]] || fail "not a word of '$words'"
}

family=-4
located sip:bob@Example.COM \
    tls:192.0.2.1:5061 tcp:192.0.2.1:5060 tcp:192.0.2.2:5070 udp:192.0.2.2:5060
located sips:bob@example.com tls:192.0.2.1:5061
located 'sip:bob@example.com;transport=tcp' tcp:192.0.2.1:5060 tcp:192.0.2.2:5070
located sip:bob@one.example.com:5099 udp:192.0.2.1:5099
located 'sip:bob@elsewhere.org;maddr=two.example.com' udp:192.0.2.2:5060
located sip:bob@plain.example.com udp:192.0.2.2:5080
located sip:bob@bare.example.com udp:192.0.2.7:5060
located sips:bob@bare.example.com tls:192.0.2.7:5061
family=-6
located sips:bob@example.com 'tls:[2001:db8::1]:5061'
located sip:bob@bare.example.com 'udp:[2001:db8::7]:5060'
family=-4
"${lookup[@]}" -4 --short 'sip:bob@big.example.com;transport=tcp' >"$work/big" || fail "no answer over TCP"
(($(wc -l <"$work/big") == 32)) || fail "not 32 targets of 80: $(cat "$work/big")"
diff <(seq 32 | sed 's/.*/tcp:198.51.100.&:5060/') "$work/big" || fail "not by priority"

answers 0 'passed over: 1 1 "u" "E2U+sip"' sip:bob@example.com
answers 0 'its port is 0' sip:bob@example.com
answers 0 '"source":"additional"' sips:bob@example.com --json
answers 1 'does not exist in the DNS' sip:bob@nobody.example.com
answers 1 'no such service' sip:bob@none.example.com
answers 1 'has no SIP server' sip:bob@mail.example.com
answers 2 'needs TLS' 'sips:bob@example.com;transport=udp'
answers 3 'SERVFAIL' 'sip:bob@loop.example.com;transport=tcp'
answers 3 'REFUSED' sip:bob@elsewhere.org

kill -STOP "$named"
begin=${EPOCHREALTIME/./}
answers 3 'no answer from' sip:bob@example.com --timeout 1
took=$(((${EPOCHREALTIME/./} - begin) / 1000))
((took < 1600)) || fail "a stopped name server cost $took ms, with --timeout 1"
kill -CONT "$named"
answers 0 'tls:' sip:bob@example.com
kill "$named"
wait "$named" || true
named=
begin=${EPOCHREALTIME/./}
answers 3 'no answer from' sip:bob@example.com
took=$(((${EPOCHREALTIME/./} - begin) / 1000))
((took < 500)) || fail "a closed port cost $took ms"
echo "BIND $(named -v | cut -d' ' -f2): located as RFC 3263 says, and every failure told from the others"
