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
    rm -f "$work/alice.json"
    "$bin/p2p-answer" sip:alice@p2psip.org --home "$work/alice" --peer "$entry" --once --json --ladder \
        --pcap "$work/alice-$1.pcap" >"$work/alice.json" 2>"$work/alice.log" &
    callee=$!
    within 10 grep -q listening "$work/alice.json" || fail "Alice does not register"
}

# was_answered TRANSPORT: the call went well, and Kamailio reached the proxy peer by this transport.
was_answered() {
    wait "$callee" || fail "Alice's side of the call over $1: $(cat "$work/alice.json")"
    grep -q '"status":"answered".*"fault":null' "$work/alice.json" || fail "the call over $1: $(cat "$work/alice.json")"
    grep -Eq "\"from\":\"(198.51.100.11|kamailio)[^}]*\"transport\":\"$1\"" "$work/alice.json" ||
        fail "not over $1: $(cat "$work/alice.json")"
}

# A secure call is one for a sips URI, on which TLS is settled.
scenario secure-call call 's|sip:\[callee\]|sips:[callee]|; s|Contact: <sip:|Contact: <sips:|'
for call in "udp alice@p2psip.org" "tcp alice@p2psip.org;transport=tcp" "tls alice@p2psip.org;transport=tls" \
    "secure alice@p2psip.org"; do
    read -r transport uri <<<"$call"
    scenario=call
    [[ $transport == secure ]] && scenario=secure-call
    answers "$transport"
    sipp_with "$scenario" 198.51.100.11 -i 192.0.2.11 -p 5070 -m 1 -d 200 -key user bob -key callee "$uri" ||
        fail "Bob's call over $transport"
    [[ $transport == secure ]] && transport=tls
    was_answered "${transport^^}"
    say "Bob called Alice, with a re-INVITE; Kamailio reached the proxy peer over $transport"
done
grep -aq "Record-Route: <sips:p2psip.org;lr>" "$work/alice-secure.pcap" || fail "no sips in Record-Route"
grep -aq "Contact: <sips:alice@p2psip.org;gr=" "$work/alice-secure.pcap" || fail "no sips in Contact"

for transport in udp tcp tls; do
    baresip_phone 192.0.2.12 5072 "$transport"
    answers "baresip-$transport"
    baresip_do dial sip:alice@p2psip.org
    within 5 grep -aq "ACK sip:alice" "$work/alice-baresip-$transport.pcap" || fail "baresip's call: no ACK"
    baresip_do hangup
    wait "$callee" || fail "Alice's side of baresip's call"
    grep -q '"ended_by":"them","fault":null' "$work/alice.json" || fail "baresip's call: $(cat "$work/alice.json")"
    kill "$phone" && wait "$phone" || true
    say "baresip, registered over $transport, called Alice and hung up"
done

well_formed inward
no_malformed "$work"/alice-*.pcap
