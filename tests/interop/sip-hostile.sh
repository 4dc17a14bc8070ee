#!/usr/bin/env bash
# A proxy peer, a process as any operator runs it, against floods and rubbish from real tools: it serves others
# meanwhile, and its memory stays bounded.
. "$(dirname "${BASH_SOURCE[0]}")/sip/world.bash"

name_server
kamailio_proxy
overlay
proxy_peer 1
peer=$joined
# Three users of one phone; it is Alice's, whoever is called.
for user in anna berta alice; do
    enrol "$user" "sip:$user@p2psip.org"
    expect 0 "$bin/p2p-register" "sip:$user@p2psip.org" --home "$work/$user" --peer "$entry" --json \
        --contact "sip:$user@192.0.2.11:5070"
done
gr=$(sed 's/.*"instance":"\([^"]*\)".*/\1/' <<<"$output")
sipp_with answer-overlay -i 192.0.2.11 -p 5070 -timeout 120 -key user alice -key gr "$gr" &
phone=$!
within 5 listens u 192.0.2.11:5070

# resident: the proxy peer's memory in KiB.
resident() { awk '/^VmRSS/ { print $2 }' "/proc/$peer/status"; }
# served WHOM WHEN: Bob's call through Kamailio goes well.
served() {
    sipp_with call 198.51.100.11 -i 192.0.2.12 -p 5071 -m 1 -d 50 -key user bob -key callee "$1@p2psip.org" ||
        fail "Bob's call $2"
}
served alice "before all"
before=$(resident)

for file in "$here"/../../data/torture/*.sip; do
    cat "$file" >/dev/udp/198.51.100.21/5060
    # Some are requests that are answered, and some close the connection.
    timeout 1 bash -c 'cat "$0" >/dev/tcp/198.51.100.21/5060' "$file" 2>/dev/null || true
done
served alice "after the torture"
say "the torture's messages, over UDP and TCP, harm nobody"

# flood SCENARIO RATE: calls a second from one address for four seconds, while another address is served.
flood() {
    (cd "$work" && exec timeout 4 sipp 198.51.100.21:5060 -sf "$work/$1.xml" -i 192.0.2.13 -p 5074 -r "$2" -l 200000 \
        -nostdin -default_behaviors none -key user mallory -key callee alice@p2psip.org >/dev/null 2>&1) &
    local flooding=$!
    sleep 1
    # Whom the proxy peer has to look up while it is busy with others.
    served anna "during the flood of $1"
    served berta "during the flood of $1"
    local code=0
    wait "$flooding" || code=$?
    ((code == 124)) || fail "the flood of $1 ended by itself, with $code"
}
# Only INVITEs, each to somebody else who is not there, and nothing acknowledged.
scenario strangers call 's|sip:\[callee\] SIP|sip:stranger-[call_number]@p2psip.org SIP|; s| retrans="500" start_rtd="1"||; s|<recv response="100".*|</scenario><!--|; $s|$|-->|'
flood strangers 300
say "300 calls a second to users who do not exist, all from one address: $before KiB before, $(resident) KiB after"
(($(resident) < before + 131072)) || fail "$(resident) KiB after a flood, $before KiB before"
served alice "after the flood"
kill "$phone"
