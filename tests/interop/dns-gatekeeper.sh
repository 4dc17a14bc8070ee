#!/usr/bin/env bash
# Proxy peers enter a real BIND by themselves, and leave it when they die; a real Kamailio finds a user of the overlay
# through that BIND within seconds of `p2p-join --proxy`, and is not itself mistaken for a proxy peer. At first the suite
# of tests/gatekeeper.rs, 16 proxy peers at once and all, against BIND and Knot.
. "$(dirname "${BASH_SOURCE[0]}")/sip/world.bash"

keygen() {
    (umask 077 && tsig-keygen "$1" >"$2")
}
empty_zone='$TTL 30
@ SOA ns1 hostmaster 1 3600 600 86400 5
@ NS ns1
ns1 A 198.51.100.53'

# suite NAME PORT: tests/gatekeeper.rs against the name server on that port of loopback.
suite() {
    within 10 dig +time=1 +tries=1 +short -p "$2" @127.0.0.1 p2psip.org SOA || fail "$1 does not answer"
    (cd "$here/../../.." && P2PSIP_TEST_DNS=127.0.0.1:$2 P2PSIP_TEST_KEY=$work/suite/gatekeeper.key \
        timeout 300 cargo test --locked --offline --quiet --test all -- gatekeeper:: --test-threads 2) \
        >"$work/suite.log" 2>&1 || fail "the suite fails against $1"
    say "$(grep -o '[0-9]* passed' "$work/suite.log") against $1"
}
mkdir -p "$work"/suite/{bind,knot/db}
keygen gatekeeper "$work/suite/gatekeeper.key"
for server in bind knot; do printf '%s\n' "$empty_zone" >"$work/suite/$server/p2psip.org.zone"; done
cat >"$work/suite/named.conf" <<CONF
include "$work/suite/gatekeeper.key";
options {
    directory "$work/suite/bind"; pid-file "$work/suite/named.pid"; session-keyfile none;
    listen-on port 5301 { 127.0.0.1; }; listen-on-v6 { none; };
    recursion no; allow-transfer { none; }; dnssec-validation no; notify no;
};
controls { };
zone "p2psip.org" {
    type primary; file "$work/suite/bind/p2psip.org.zone";
    update-policy { grant gatekeeper zonesub ANY; };
};
CONF
cat >"$work/suite/knot.conf" <<CONF
server:
    rundir: "$work/suite/knot"
    listen: 127.0.0.1@5302
database:
    storage: "$work/suite/knot/db"
key:
  - id: gatekeeper
    algorithm: hmac-sha256
    secret: $(sed -n 's/.*secret "\(.*\)";/\1/p' "$work/suite/gatekeeper.key")
acl:
  - id: gatekeeper
    key: gatekeeper
    action: update
zone:
  - domain: p2psip.org
    storage: "$work/suite/knot"
    file: p2psip.org.zone
    zonefile-sync: -1
    journal-content: all
    zonefile-load: difference-no-serial
    acl: gatekeeper
CONF
named -g -c "$work/suite/named.conf" >"$work/suite-named.log" 2>&1 &
bind=$!
suite BIND 5301
kill "$bind"
knotd -c "$work/suite/knot.conf" >"$work/suite-knot.log" 2>&1 &
knot=$!
suite Knot 5302
kill "$knot"

# The world: nobody has entered a single proxy peer into the zone.
lease=9
keygen gatekeeper "$work/gatekeeper.key"
printf '%s\n' "$empty_zone" >"$work/p2psip.org.zone"
name_server
kamailio_proxy
overlay
tshark -q -i lo -f 'udp dst port 53' -w "$work/dns.pcap" >"$work/tshark.log" 2>&1 &
tshark=$!
gk=()
for n in 1 2; do
    enrol "gk$n" gatekeeper:p2psip.org
    (umask 077 && printf 'key = "%s"\nserver = "198.51.100.53"\npolicy = "enrolled"\nlease = %d\n' \
        "$work/gatekeeper.key" "$lease" >"$work/gk$n.toml")
    join "gk$n" --listen "/ip4/127.0.0.1/tcp/402$n" --gatekeeper "$work/gk$n.toml"
    gk[n]=$joined
done
enrol alice sip:alice@p2psip.org
expect 0 "$bin/p2p-register" sip:alice@p2psip.org --home "$work/alice" --peer "$entry" --json \
    --contact sip:alice@192.0.2.12:5060
gr=$(sed 's/.*"instance":"\([^"]*\)".*/\1/' <<<"$output")
list=("$bin/p2p-publish" list --dns-only --overlay p2psip.org --server 198.51.100.53 --home "$work/first")
expect 0 "${list[@]}"
[[ $output == *"cannot be reached from public SIP networks"* ]] || fail "no word of being unreachable (R8): $output"
say "BIND, Kamailio, and an overlay with two gatekeepers are up; the zone is empty"

query() {
    dig +time=1 +tries=1 +short @198.51.100.53 "$@"
}
# servers: the addresses that RFC 3263 leads to over UDP, sorted.
servers() {
    local host
    for host in $(query _sip._udp.p2psip.org SRV | cut -d' ' -f4); do query "$host" A; done | sort | paste -sd' '
}
servers_are() {
    [[ $(servers) == "$1" ]]
}
# proxy N: a proxy peer at 198.51.100.2N; its process id is in ${proxies[N]}.
proxy() {
    enrol "proxy$1" sip:p2psip.org
    join "proxy$1" --listen "/ip4/127.0.0.1/tcp/401$1" --proxy="198.51.100.2$1:5060"
    proxies[$1]=$joined
}
# call WHAT: Bob calls Alice through Kamailio.
call() {
    sipp_with answer-overlay -i 192.0.2.12 -p 5060 -m 1 -key user alice -key gr "$gr" &
    local phone=$!
    within 5 ss -Hlun "src 192.0.2.12:5060"
    sipp_with call 198.51.100.11 -t u1 -i 192.0.2.11 -p 5070 -m 1 -d 300 -key user bob \
        -key callee alice@p2psip.org || fail "Bob's call $1"
    wait "$phone" || fail "Alice's phone, called $1"
    say "Bob called Alice through Kamailio and BIND $1"
}

# slay PID: as nobody expects it, and without the shell's word on it.
slay() {
    { kill -KILL "$1" && wait "$1"; } 2>/dev/null || true
}

proxies=()
before=$SECONDS
proxy 1
within 10 servers_are 198.51.100.21 || fail "proxy peer 1 is not in the DNS: $(servers)"
say "proxy peer 1 entered the DNS, $((SECONDS - before)) s after it was enrolled and started"
[[ $(query p2psip.org NAPTR | wc -l) == 2 && $(query p2psip.org A) == 198.51.100.21 ]] || fail "records are missing"
call "seconds after p2p-join --proxy"

proxy 2
within 10 servers_are '198.51.100.21 198.51.100.22' || fail "proxy peer 2 is not in the DNS: $(servers)"
sleep $((lease / 2))
servers_are '198.51.100.21 198.51.100.22' || fail "somebody is gone: $(servers)"

slay "${proxies[1]}"
killed=$SECONDS
within $((lease + 5)) servers_are 198.51.100.22 || fail "proxy peer 1 is still in the DNS: $(servers)"
((SECONDS - killed <= lease + 5)) || fail "it took $((SECONDS - killed)) s"
say "proxy peer 1 was killed, and was gone from the DNS $((SECONDS - killed)) s later (lease: $lease s)"
call "after that, by the proxy peer that stayed"

# The gatekeeper that entered it dies between two renewals; the other one goes on.
by=$("$bin/p2p-publish" list --pending --home "$work/gk1" --json | grep -c 198.51.100.22 || true)
if ((by)); then died=1 other=2; else died=2 other=1; fi
slay "${gk[$died]}"
sleep $((lease + 2))
servers_are 198.51.100.22 || fail "proxy peer 2 went with its gatekeeper: $(servers)"
say "gatekeeper $died was killed; gatekeeper $other renews"

# Kamailio answers OPTIONS on UDP and TCP, and it is no proxy peer of the overlay.
enrol liar sip:p2psip.org
join liar --listen /ip4/127.0.0.1/tcp/4031 --proxy=198.51.100.12:5060 --publish-address 198.51.100.11 --publish-force -v
liar=$joined
within 20 grep -q 'udp 198.51.100.11:5060 answers 483, but not as this proxy peer' "$work/liar.log" ||
    fail "the liar is not told off"
servers_are 198.51.100.22 || fail "Kamailio has become a proxy peer: $(servers)"
expect 0 "$bin/p2p-publish" list --pending --home "$work/gk$other"
[[ $output == *198.51.100.11*refused* ]] || fail "the gatekeeper does not list the liar: $output"
kill "$liar"
say "Kamailio, named as the address of a proxy peer, did not pass"

enrol private sip:p2psip.org
join private --listen /ip4/127.0.0.1/tcp/4032 --proxy=127.0.0.1:5062 -v
within 20 grep -q 'nobody outside reaches 127.0.0.1' "$work/private.log" || fail "a loopback address is not refused"
kill "$joined"
say "a proxy peer on a loopback address was refused, with the reason"

kill -TERM "${proxies[2]}"
within 10 servers_are '' || fail "proxy peer 2 has not withdrawn: $(servers)"
[[ -z $(query p2psip.org NAPTR)$(query p2psip.org A)$(query _dnsaddr.p2psip.org TXT) ]] || fail "something is left"
expect 0 "${list[@]}"
[[ $output == *"cannot be reached"* ]] || fail "the overlay is not reported as unreachable"
say "proxy peer 2 stopped, and took its records along"

# Every update that was ever sent, sent again: the tombstones stand.
kill -INT "$tshark" && wait "$tshark" || true
tshark -r "$work/dns.pcap" -Y 'dns.flags.opcode == 5' -T fields -e udp.payload 2>/dev/null >"$work/updates"
(($(wc -l <"$work/updates") > 3)) || fail "no updates were captured"
python3 - "$work/updates" <<'PY'
import socket, sys
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.settimeout(2)
codes = {}
for line in open(sys.argv[1]):
    out.sendto(bytes.fromhex(line.strip().replace(":", "")), ("198.51.100.53", 53))
    code = out.recv(4096)[3] & 15
    codes[code] = codes.get(code, 0) + 1
print("      rcodes of the replay:", codes)
PY
servers_are '' || fail "a replay has brought somebody back: $(servers)"
[[ -z $(query p2psip.org NAPTR)$(query p2psip.org A) ]] || fail "a replay has brought records back"
say "$(wc -l <"$work/updates") captured updates were sent again, and changed nothing"
