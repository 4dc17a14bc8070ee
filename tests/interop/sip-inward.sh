#!/usr/bin/env bash
# Figure 7: phones of example.com call Alice of the overlay: baresip as a caller, and secure calls, which reach a proxy
# peer over TLS as _sips._tcp says. Everything is held before tshark.
. "$(dirname "${BASH_SOURCE[0]}")/sip/world.bash"

certificate kamailio example.com kamailio.example.com
certificate proxies p2psip.org
name_server
kamailio_proxy
overlay
proxy_peer 1
enrol alice sip:alice@p2psip.org
say "BIND, Kamailio, and an overlay with a proxy peer are up"
capture inward

# answers NAME: Alice waits for one call, in the background.
answers() {
    "$bin/p2p-answer" sip:alice@p2psip.org --home "$work/alice" --peer "$entry" --once --json --ladder \
        --pcap "$work/alice-$1.pcap" >"$work/alice.json" 2>"$work/alice.log" &
    callee=$!
    within 10 grep -q listening "$work/alice.json" || fail "Alice does not register"
}

# answered TRANSPORT: the call went well, and came to the proxy peer by this transport.
was_answered() {
    wait "$callee" || fail "Alice's side of the call over $1: $(cat "$work/alice.json")"
    grep -q '"status":"answered".*"fault":null' "$work/alice.json" || fail "the call over $1: $(cat "$work/alice.json")"
    grep -q "\"to\":\"198.51.100.21[^}]*\"transport\":\"$1\"" "$work/alice.json" ||
        grep -q "\"transport\":\"$1\"" "$work/alice.json" || fail "not over $1: $(cat "$work/alice.json")"
}

for call in "udp alice@p2psip.org" "tcp alice@p2psip.org;transport=tcp" "tls alice@p2psip.org;transport=tls"; do
    read -r transport uri <<<"$call"
    answers "$transport"
    sipp_with call 198.51.100.11 -i 192.0.2.11 -p 5070 -m 1 -d 200 -key user bob -key callee "$uri" ||
        fail "Bob's call over $transport"
    was_answered "${transport^^}"
    say "Bob called Alice, with a re-INVITE; Kamailio reached the proxy peer over $transport"
done

cat "$work/alice.json"
