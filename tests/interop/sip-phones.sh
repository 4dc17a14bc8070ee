#!/usr/bin/env bash
# Ordinary phones in the overlay: baresip and SIPp register at adapters, call each other, are called from outside through
# a real Kamailio and a proxy peer, and call out. A call goes on when the proxy peer that had carried it has died.
. "$(dirname "${BASH_SOURCE[0]}")/sip/world.bash"
. "$here/phones.bash"

name_server
kamailio_proxy
overlay
declare -A proxies=()
for n in 1 2; do
    enrol "proxy$n" sip:p2psip.org
    join "proxy$n" --listen "/ip4/127.0.0.1/tcp/401$n" --proxy="198.51.100.2$n:5060"
    proxies[$n]=$joined
done
office=198.51.100.12:5070 home=198.51.100.12:5080
adapter office $office desk=sip:alice@p2psip.org mobile=sip:alice@p2psip.org
adapter home $home bob=sip:bob@p2psip.org
say "BIND, Kamailio, two proxy peers and two adapters are up"

baresip_at desk 192.0.2.12 4451 $office sip:alice@p2psip.org manual
desk=$phone
baresip_at mobile 192.0.2.13 4452 $office sip:alice@p2psip.org auto
sipp_phone phone-register $home bob bob -i 192.0.2.14 -p 5060 || fail "SIPp cannot register"
expect 0 "$bin/p2p-lookup" sip:alice@p2psip.org --home "$work/first" --json
[[ $(grep -o '"instance"' <<<"$output" | wc -l) == 2 ]] || fail "alice's two phones are not in the overlay: $output"
say "two baresip phones of Alice's and a SIPp phone of Bob's are registered, in the overlay too"

# Inside the overlay. Both of Alice's phones ring, the mobile one answers.
sipp_phone phone-call $home bob bob -i 192.0.2.14 -p 5060 -d 400 -key callee alice@p2psip.org &
bob=$!
within 5 grep -q "Incoming call" "$work/desk.log" || fail "the desk phone does not ring"
wait "$bob" || fail "Bob's call to Alice"
within 5 has_none 4451 || fail "the desk phone still rings: $answered"
within 5 has_none 4452 || fail "the mobile phone has not heard the BYE: $answered"
say "Bob called Alice inside the overlay; both her phones rang, one answered, and his re-INVITE came through"

sipp_with answer -i 192.0.2.14 -p 5060 -m 1 &
bob=$!
sleep 0.3
tell 4452 dial sip:bob@p2psip.org
within 5 has 4452 ESTABLISHED || fail "Alice's call to Bob: $answered"
tell 4452 hangup
wait "$bob" || fail "Bob's phone, called by Alice"
say "Alice called Bob inside the overlay, from her mobile phone"

# The same over TCP: Bob's phone registers on one connection, and calls on another.
sipp_phone phone-register $home bob bob -t t1 -i 192.0.2.14 -p 5060 || fail "SIPp cannot register over TCP"
sipp_phone phone-call $home bob bob -t t1 -i 192.0.2.14 -p 5060 -d 100 -key callee alice@p2psip.org ||
    fail "Bob's call to Alice over TCP"
within 5 has_none 4452 || fail "the mobile phone has not heard the BYE: $answered"
say "Bob called Alice over TCP"

# From outside, through Kamailio and a proxy peer; the far side refreshes and hangs up.
sipp_with call 198.51.100.11 -i 192.0.2.11 -p 5070 -m 1 -d 400 -key user carol -key callee alice@p2psip.org ||
    fail "Carol's call to Alice"
within 5 has_none 4452 || fail "Alice has not heard Carol's BYE: $answered"
say "Carol of example.com called Alice through Kamailio and a proxy peer, with a re-INVITE"

# The desk phone is unregistered, and rings no more.
kill "$desk"
gone() { expect 0 "$bin/p2p-lookup" sip:alice@p2psip.org --home "$work/first" --json &&
    [[ $(grep -o '"instance"' <<<"$output" | wc -l) == 1 ]]; }
within 10 gone || fail "the desk phone is still in the overlay: $output"
say "the desk phone has unregistered, and its routing record is gone"

# To the outside. Carol is registered with Kamailio.
sipp_with register 198.51.100.11 -i 192.0.2.11 -p 5070 -m 1 -key user carol || fail "Carol cannot register"
sipp_with answer -i 192.0.2.11 -p 5070 -m 1 -trace_msg -message_file "$work/carol.log" &
carol=$!
within 5 ss -Hlun "src 192.0.2.11:5070"
sipp_phone phone-call $home bob bob -i 192.0.2.14 -p 5060 -d 400 -key callee carol@example.com ||
    fail "Bob's call to Carol"
wait "$carol" || fail "Carol's phone, called by Bob"
grep -q "^Contact: <sip:bob@p2psip.org;gr=" "$work/carol.log" || fail "Carol does not see the overlay URL"
! grep -q "198.51.100.12:50[78]0" "$work/carol.log" || fail "Carol sees the adapter"
say "Bob called Carol through a proxy peer and Kamailio; she saw his overlay URL, and nothing of his adapter"

# The proxy peer that carried the INVITE dies before the re-INVITE.
sipp_with call 198.51.100.11 -i 192.0.2.11 -p 5070 -m 1 -d 3000 -key user carol -key callee alice@p2psip.org &
carol=$!
within 5 has 4452 ESTABLISHED || fail "Carol's second call: $answered"
kill -KILL "${proxies[1]}"
wait "${proxies[1]}" 2>/dev/null || true
wait "$carol" || fail "Carol's call when proxy peer 1 had died"
within 5 has_none 4452 || fail "Alice has not heard Carol's BYE: $answered"
say "proxy peer 1 was killed in the middle of a call; Carol's re-INVITE and BYE went through proxy peer 2"

# Who has no credentials, or somebody else's.
refused() {
    local log=$work/refused.log
    rm -f "$log"
    ! sipp_phone "$@" -trace_msg -message_file "$log" 2>/dev/null
    grep -o "^SIP/2.0 [0-9]*" "$log" | tail -n 1
}
[[ $(refused phone-register $office mallory alice -i 192.0.2.15 -p 5060) == "SIP/2.0 401" ]] ||
    fail "a stranger is not refused"
[[ $(refused phone-register $home bob alice -i 192.0.2.15 -p 5060) == "SIP/2.0 403" ]] ||
    fail "Bob may register as Alice"
say "a stranger is refused, and so is who registers for somebody else"
