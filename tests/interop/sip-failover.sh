#!/usr/bin/env bash
# What a proxy peer does where things go wrong around it: servers that are dead, refuse, are overloaded, show another's
# certificate or hang (the next one is tried, and the bad one remembered); a user's devices of which one is busy, one
# rings, one is silent and one answers; requests that come back to it (spirals pass, loops end).
. "$(dirname "${BASH_SOURCE[0]}")/sip/world.bash"

certificate kamailio example.com kamailio.example.com impostor.example.com hanging.example.com
certificate proxies p2psip.org
certificate somebody somebody.example.net
name_server
kamailio_proxy
overlay
proxy_peer 1
enrol alice sip:alice@p2psip.org
capture failover
sipp_with register 198.51.100.11 -i 192.0.2.11 -p 5070 -m 1 -key user bob || fail "Bob cannot register"
sipp_with answer -i 192.0.2.11 -p 5070 -timeout 120 &
phone=$!
sipp_with refuse -i 198.51.100.12 -p 5073 -timeout 120 &
for server in 5061 5062; do
    openssl s_server -quiet -accept "198.51.100.12:$server" -cert "$work/somebody.pem" -key "$work/somebody.key" \
        </dev/null >"$work/s_server-$server.log" 2>&1 &
    hanging=$!
    within 5 listens t "198.51.100.12:$server"
done
# It accepts connections, and says nothing on them.
kill -STOP "$hanging"
say "BIND, Kamailio, a proxy peer, and servers that are of no use"

# invites URI: Alice calls; prints how many milliseconds it took to be answered.
invites() {
    expect 0 "$bin/p2p-invite" "$1" --from sip:alice@p2psip.org --home "$work/alice" --peer "$entry" --json --media 0.2
    sed 's/.*"answered_ms":\([0-9]*\).*/\1/' <<<"$output"
}
for case in "dead sip 1000" "refusing sip 1500" "busy sip 1500" "impostor sips 1500" "hanging sips 5000"; do
    read -r domain scheme limit <<<"$case"
    first=$(invites "$scheme:bob@$domain.example.com")
    again=$(invites "$scheme:bob@$domain.example.com")
    ((first < limit && again < 1000)) || fail "$domain: answered after $first ms, and after $again ms the second time"
    say "the next server after one that is $domain answered after $first ms, and after $again ms the second time"
done
disown "$hanging"
kill -KILL "$hanging"

# devices OPTIONS...: a device of Alice's that answers calls as the options say; its process id is in $device.
devices=0
device() {
    devices=$((devices + 1))
    local home=device$devices
    enrol "$home" sip:alice@p2psip.org
    "$bin/p2p-answer" sip:alice@p2psip.org --home "$work/$home" --peer "$entry" --once --json "$@" \
        >"$work/$home.json" 2>"$work/$home.log" &
    within 10 grep -q listening "$work/$home.json" || fail "$home of Alice does not register"
}
device --status 486
busy=$!
device --ring 30
ringing=$!
device --ring 0.5
answering=$!
# Nobody is there, and nobody says so.
nft -f - <<<'table ip silent { chain input { type filter hook input priority 0; ip daddr 192.0.2.15 udp dport 5060 drop; }; }'
enrol silent sip:alice@p2psip.org
expect 0 "$bin/p2p-register" sip:alice@p2psip.org --home "$work/silent" --peer "$entry" \
    --contact sip:alice@192.0.2.15:5060
# rings calls Alice: the call of a phone of example.com.
sipp_with call 198.51.100.11 -i 192.0.2.12 -p 5071 -m 1 -d 100 -key user carol -key callee alice@p2psip.org ||
    fail "the call to four devices"
for one in busy:rejected ringing:cancelled answering:answered; do
    name=${one%:*}
    wait "${!name}" || fail "the device that is $name"
done
for n in 1:rejected 2:cancelled 3:answered; do
    grep -q "\"status\":\"${n#*:}\"" "$work/device${n%:*}.json" || fail "not ${n#*:}: $(cat "$work/device${n%:*}.json")"
done
expect 0 "$bin/p2p-register" sip:alice@p2psip.org --home "$work/silent" --peer "$entry" --remove
say "of four devices one was busy, one rang and was cancelled, one was silent, and one answered"

# A user of example.com whose contact is a user of the overlay (§4.2), so calls from the overlay come back to it.
# at_home USER: registers USER@example.com with the contact USER@p2psip.org.
scenario register-overlay register 's|Contact: <[^>]*>|Contact: <sip:[user]@p2psip.org>|'
at_home() {
    sipp_with register-overlay 198.51.100.11 -i 192.0.2.12 -p 5071 -m 1 -key user "$1" || fail "$1 cannot register"
}
at_home dora
enrol dora sip:dora@p2psip.org
"$bin/p2p-answer" sip:dora@p2psip.org --home "$work/dora" --peer "$entry" --once --json --media 0.5 \
    >"$work/dora.json" 2>"$work/dora.log" &
dora=$!
within 10 grep -q listening "$work/dora.json" || fail "Dora does not register"
expect 0 "$bin/p2p-invite" sip:dora@example.com --from sip:alice@p2psip.org --home "$work/alice" --peer "$entry" --json \
    --media 20
# Her BYE is from dora@example.com, and the proxy peer has to know that this is one of its members.
[[ $output == *'"ended_by":"them","fault":null'* ]] || fail "Dora's BYE: $output"
wait "$dora" || fail "Dora's side: $(cat "$work/dora.json")"
grep -q '"ended_by":"us","fault":null' "$work/dora.json" || fail "Dora's side: $(cat "$work/dora.json")"
say "a call that came back through the proxy peer with another Request-URI (a spiral) was answered, and ended by its callee"

at_home loop
enrol loop sip:loop@p2psip.org
expect 0 "$bin/p2p-register" sip:loop@p2psip.org --home "$work/loop" --peer "$entry" --contact sip:loop@example.com
expect 1 "$bin/p2p-invite" sip:loop@example.com --from sip:alice@p2psip.org --home "$work/alice" --peer "$entry" --json
[[ $output == *'"code":482'* ]] || fail "a loop: $output"
say "a call that came back unchanged (a loop) ended with 482"
scenario tired call 's/ start_rtd="1"//; s|Max-Forwards: 70|Max-Forwards: 1|; s|<recv response="180".*|<recv response="483"/></scenario><!--|; $s|$|-->|'
sipp_with tired 198.51.100.11 -i 192.0.2.12 -p 5071 -m 1 -key user carol -key callee alice@p2psip.org || fail "no 483"
say "a call without hops left ended with 483"

kill "$phone"
well_formed failover
