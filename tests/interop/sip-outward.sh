#!/usr/bin/env bash
# Figure 6: Alice of the overlay calls Bob of example.com. A proxy peer finds Kamailio in BIND and routes the call there,
# over UDP, TCP and TLS; a guarded Bob challenges her through it; baresip answers too. Everything is held before tshark.
. "$(dirname "${BASH_SOURCE[0]}")/sip/world.bash"

certificate kamailio example.com kamailio.example.com
certificate proxies p2psip.org
name_server
kamailio_proxy
overlay
proxy_peer 1
enrol alice sip:alice@p2psip.org
say "BIND, Kamailio, and an overlay with a proxy peer are up"
capture outward

# invites CALLEE OPTIONS...: Alice calls; the outcome is in $output.
invites() {
    expect 0 "$bin/p2p-invite" "$1" --from sip:alice@p2psip.org --home "$work/alice" --peer "$entry" --json --ladder \
        --media 0.8 --reinvite 0.4 "${@:2}"
    [[ $output == *'"reinvited":200'* && $output != *'"fault":"'* ]] || fail "a call with a fault: $output"
}

# rings USER PORT: a phone of example.com that is registered and takes one call.
rings() {
    sipp_with register 198.51.100.11 -i 192.0.2.11 -p "$2" -m 1 -key user "$1" || fail "$1 cannot register"
    sipp_with answer -i 192.0.2.11 -p "$2" -m 1 &
    phone=$!
    within 5 listens u "192.0.2.11:$2"
}

for transport in udp tcp tls; do
    case $transport in
        udp) callee=sip:bob@example.com ;;
        tcp) callee="sip:bob@example.com;transport=tcp" ;;
        tls) callee=sips:bob@example.com ;;
    esac
    rings bob 5070
    invites "$callee" --pcap "$work/alice-$transport.pcap"
    wait "$phone" || fail "Bob's phone, called over $transport"
    say "Alice called Bob over $transport, with a re-INVITE"
done

rings guarded-bob 5071
echo alicepw >"$work/password"
invites sip:guarded-bob@example.com --password-file "$work/password" --pcap "$work/alice-guarded.pcap"
[[ $output == *'407 Proxy Authentication Required'* ]] || fail "no challenge: $output"
wait "$phone" || fail "the guarded phone"
echo wrong >"$work/password"
expect 1 "$bin/p2p-invite" sip:guarded-bob@example.com --from sip:alice@p2psip.org --home "$work/alice" \
    --peer "$entry" --password-file "$work/password"
say "Kamailio's challenge and Alice's answer pass the proxy peer, and a wrong password does not"

for transport in udp tcp tls; do
    baresip_phone 192.0.2.12 5072 "$transport"
    invites sip:carol@example.com --pcap "$work/alice-baresip-$transport.pcap"
    say "baresip, registered over $transport, answered Alice"
    "$bin/p2p-invite" sip:carol@example.com --from sip:alice@p2psip.org --home "$work/alice" --peer "$entry" --json \
        --media 20 >"$work/alice.json" 2>"$work/alice.log" &
    caller=$!
    listed() { baresip_do listcalls && [[ $answered == *ESTABLISHED* ]]; }
    within 5 listed || fail "baresip has no call: $answered"
    baresip_do hangup
    wait "$caller" || fail "Alice's call that baresip ended"
    grep -q '"ended_by":"them"' "$work/alice.json" || fail "not ended by baresip: $(cat "$work/alice.json")"
    say "… and hung up: its BYE found Alice through the DNS"
    kill "$phone" && wait "$phone" || true
done

well_formed outward
no_malformed "$work"/alice-*.pcap
