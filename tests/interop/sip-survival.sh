#!/usr/bin/env bash
# A proxy peer is killed between a 200 and its ACK, or in mid-call; dialogs go on through the other one, which has never
# seen them, whoever called and whoever refreshes or hangs up (R9). What is lost until the DNS has forgotten the dead one
# is counted and shown.
. "$(dirname "${BASH_SOURCE[0]}")/sip/world.bash"

name_server
kamailio_proxy
overlay
enrol alice sip:alice@p2psip.org
capture survival
# Time to kill between the 200 and the ACK.
scenario late-ack call 's|<recv response="200" rrs="true"/>|&<pause milliseconds="2500"/>|'
scenario late-answer answer 's|milliseconds="50"|milliseconds="1500"|'

# both_up: both proxy peers serve, and the DNS names them.
declare -A proxies=()
both_up() {
    local n
    for n in 1 2; do
        [[ -n ${proxies[$n]:-} ]] && continue
        proxy_peer "$n"
        proxies[$n]=$joined
    done
    [[ $listed == "1 2" ]] && return
    dns_lists 1 2
    listed="1 2"
    # What Kamailio remembers of the DNS.
    sleep 1.1
}
listed=

# dies N WHEN: kills proxy peer N.
dies() {
    kill -KILL "${proxies[$1]}"
    wait "${proxies[$1]}" 2>/dev/null || true
    unset "proxies[$1]"
    say "proxy peer $1 is killed $2"
}

# forgotten N: the DNS names only the other one.
forgotten() {
    listed=$((3 - $1))
    dns_lists "$listed"
}

# answers OPTIONS: Alice takes one call, in the background.
answers() {
    rm -f "$work"/alice.{json,pcap}
    "$bin/p2p-answer" sip:alice@p2psip.org --home "$work/alice" --peer "$entry" --once --json --ladder "$@" \
        --pcap "$work/alice.pcap" >"$work/alice.json" 2>"$work/alice.log" &
    alice=$!
    within 10 grep -q listening "$work/alice.json" || fail "Alice does not register"
}

# calls OPTIONS: Alice calls Bob, in the background.
calls() {
    rm -f "$work"/alice.{json,pcap}
    "$bin/p2p-invite" sip:bob@example.com --from sip:alice@p2psip.org --home "$work/alice" --peer "$entry" --json \
        --ladder "$@" --pcap "$work/alice.pcap" >"$work/alice.json" 2>"$work/alice.log" &
    alice=$!
}

# seen WHAT: a message of Alice's begins so.
seen() { grep -aq "$1" "$work/alice.pcap"; }
# came WHAT: how many of these came to Alice.
came() { grep -o "\"to\":0,[^}]*\"what\":\"$1" "$work/alice.json" | wc -l; }

# ends_well WHICH: Bob and Alice say that their call was all right.
ends_well() {
    wait "$bob" || fail "Bob's side of $1"
    wait "$alice" || fail "Alice's side of $1: $(cat "$work/alice.json")"
    grep -q '"status":"answered".*"fault":null' "$work/alice.json" || fail "$1: $(cat "$work/alice.json")"
}

# Bob calls Alice. The INVITE is carried by proxy peer 1, which comes first in the DNS.
bob_calls() {
    both_up
    answers
    sipp_with late-ack 198.51.100.11 -i 192.0.2.11 -p 5070 -m 1 -d 300 -key user bob -key callee alice@p2psip.org &
    bob=$!
    within 5 seen "SIP/2.0 200 OK" || fail "Alice does not answer"
    sleep 0.3
}

bob_calls
dies 1 "between the 200 and Bob's ACK, and the DNS still names it"
ends_well "a call whose proxy peer died before the ACK"
say "Bob's re-INVITE and BYE went through proxy peer 2; $((2 - $(came ACK))) of 2 ACKs were lost"

bob_calls
dies 1 "between the 200 and Bob's ACK, and taken out of the DNS"
forgotten 1
ends_well "a call whose proxy peer died and left the DNS before the ACK"
(($(came ACK) == 2)) || fail "$(came ACK) of 2 ACKs arrived"
say "both ACKs, Bob's re-INVITE and his BYE went through proxy peer 2"

both_up
baresip_phone 192.0.2.12 5072 udp
answers --media 7
baresip_do dial sip:alice@p2psip.org
within 5 seen "ACK sip:alice" || fail "no ACK"
dies 1 "in the middle of Carol's call, and the DNS still names it"
baresip_do hold
refreshed() { (($(grep -ao "INVITE sips\?:alice" "$work/alice.pcap" | wc -l) == 2)); }
within 6 refreshed || fail "Carol's re-INVITE does not arrive"
wait "$alice" || fail "Alice's side of Carol's call"
grep -q '"ended_by":"us","fault":null' "$work/alice.json" || fail "Carol's call: $(cat "$work/alice.json")"
over() { baresip_do listcalls && [[ $answered != *ESTABLISHED* ]]; }
within 3 over || fail "baresip has heard no BYE: $answered"
kill "$phone"
say "Carol's re-INVITE and Alice's BYE went through proxy peer 2"

# Alice calls Bob. Either proxy peer may carry the INVITE: its Via says which.
sipp_with register 198.51.100.11 -i 192.0.2.11 -p 5070 -m 1 -key user bob || fail "Bob cannot register"
# alice_calls SCENARIO OPTIONS: Bob's phone plays the scenario; $carrier is the proxy peer.
alice_calls() {
    both_up
    rm -f "$work/bob.log"
    sipp_with "$1" -i 192.0.2.11 -p 5070 -m 1 -d 1500 -trace_msg -message_file "$work/bob.log" &
    bob=$!
    within 5 listens u "192.0.2.11:5070"
    calls "${@:2}"
    within 5 grep -q "^INVITE" "$work/bob.log" || fail "Bob's phone does not ring: $(cat "$work/alice.json")"
    carrier=$(grep -o -m 1 "198.51.100.2[12]" "$work/bob.log")
    carrier=${carrier: -1}
}

alice_calls late-answer --media 1 --reinvite 0.3
within 5 seen "SIP/2.0 180" || fail "Alice hears no ringing"
# She sleeps while the 200 arrives.
kill -STOP "$alice"
within 5 grep -q "^SIP/2.0 200" "$work/bob.log" || fail "Bob's phone does not answer"
sleep 0.3
dies "$carrier" "between the 200 and Alice's ACK"
kill -CONT "$alice"
ends_well "Alice's call whose proxy peer died before the ACK"
grep -q '"reinvited":200' "$work/alice.json" || fail "no re-INVITE: $(cat "$work/alice.json")"
say "Alice's ACK, re-INVITE and BYE went through proxy peer $((3 - carrier))"

alice_calls answer --media 1.5 --reinvite 1
within 5 seen "ACK sip:" || fail "no ACK"
dies "$carrier" "in the middle of Alice's call"
ends_well "Alice's call whose proxy peer died in the middle"
grep -q '"reinvited":200' "$work/alice.json" || fail "no re-INVITE: $(cat "$work/alice.json")"
say "Alice's re-INVITE and BYE went through proxy peer $((3 - carrier))"

alice_calls answer-refresh --media 30
within 5 seen "ACK sip:" || fail "no ACK"
dies "$carrier" "in the middle of Alice's call, and taken out of the DNS"
forgotten "$carrier"
ends_well "Alice's call whose proxy peer died in the middle"
[[ $(came INVITE) == 1 && $(came BYE) == 1 ]] || fail "no re-INVITE of Bob's: $(cat "$work/alice.json")"
say "Bob's re-INVITE and BYE went through proxy peer $((3 - carrier))"

well_formed survival
