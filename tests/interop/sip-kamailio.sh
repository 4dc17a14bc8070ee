#!/usr/bin/env bash
# Bob of example.com, behind a real Kamailio, calls Alice of the overlay: Kamailio finds a proxy peer in a real BIND and
# routes the call through it; re-INVITE and BYE follow the Record-Route, over UDP and TCP.
. "$(dirname "${BASH_SOURCE[0]}")/sip/world.bash"

name_server
kamailio_proxy
overlay
for n in 1 2; do
    proxy_peer "$n"
done
say "BIND, Kamailio, and an overlay with two proxy peers are up"

# Alice's phone is an ordinary one that shows her overlay URL as its Contact.
enrol alice sip:alice@p2psip.org
expect 0 "$bin/p2p-register" sip:alice@p2psip.org --home "$work/alice" --peer "$entry" --json \
    --contact sip:alice@192.0.2.12:5060
gr=$(sed 's/.*"instance":"\([^"]*\)".*/\1/' <<<"$output")

for transport in u1 t1; do
    sipp_with answer-overlay -i 192.0.2.12 -p 5060 -m 1 -key user alice -key gr "$gr" &
    phone=$!
    within 5 listens u "192.0.2.12:5060"
    sipp_with call 198.51.100.11 -t "$transport" -i 192.0.2.11 -p 5070 -m 1 -d 300 -key user bob \
        -key callee alice@p2psip.org || fail "Bob's call over $transport"
    wait "$phone" || fail "Alice's phone, called over $transport"
    say "Bob called Alice through Kamailio over $transport, with a re-INVITE"
done

# Who is not there, and what is not for outsiders.
status() {
    sipsak -s "$1" -p 198.51.100.21 -vvv 2>&1 | grep -o "SIP/2.0 [0-9]*" | tail -n 1
}
[[ $(status sip:nobody@p2psip.org) == "SIP/2.0 404" ]] || fail "nobody@p2psip.org: $(status sip:nobody@p2psip.org)"
[[ $(status sip:bob@example.com) == "SIP/2.0 403" ]] || fail "an open relay: $(status sip:bob@example.com)"
say "nobody is not found, and outsiders are not relayed"
