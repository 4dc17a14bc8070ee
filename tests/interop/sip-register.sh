#!/usr/bin/env bash
# Alice of the overlay registers with a real Kamailio, the registrar of example.org, through a proxy peer (draft §4.2,
# Figure 8): over UDP and TCP, with and without its NAT handling. Whoever calls sip:alice@example.org is led by Kamailio,
# a real BIND and any proxy peer to her; also after the proxy peer that carried her REGISTER was killed.
# Needs: kamailio, kamcmd, named, sipp, sipsak, script.
. "$(dirname "${BASH_SOURCE[0]}")/sip/world.bash"

name_server
overlay
declare -A proxy_of pid_of
serve() {
    local n=$1
    # What it said when it came up before is no sign that it is up.
    rm -f "$work/proxy$n.out"
    join "proxy$n" --listen "/ip4/127.0.0.1/tcp/400$((n + 1))" --proxy="198.51.100.2$n:5060"
    local peer
    peer=$(sed -n 's#.*/p2p/##p;q' "$work/proxy$n.out")
    proxy_of[$peer]=$n
    pid_of[$n]=$joined
    within 10 sipsak -s sip:p2psip.org -p "198.51.100.2$n" || fail "proxy peer $n does not answer OPTIONS"
}
# killed N: as a crash does it, and without the shell's remark.
killed() {
    disown "${pid_of[$1]}"
    kill -9 "${pid_of[$1]}"
}
for n in 1 2; do
    enrol "proxy$n" sip:p2psip.org
    serve $n
done
enrol alice sip:alice@p2psip.org
alice=(--home "$work/alice" --peer "$entry")
listen() {
    rm -f "$work/calls"
    "$bin/p2p-answer" sip:alice@p2psip.org "${alice[@]}" --json >"$work/calls" 2>"$work/answer.log" &
    listener=$!
    within 10 grep -q listening "$work/calls" || fail "Alice does not listen"
}
echo alicepw >"$work/password"
public=(sip:alice@p2psip.org "${alice[@]}" --public sip:alice@example.org --json)
say "BIND and an overlay with two proxy peers are up"

registrar() {
    kamailio_proxy -A DOMAIN=example.org -A WITH_AUTH -A RPC="$work/kamailio/ctl" "$@"
    within 5 table || fail "Kamailio does not answer kamcmd"
}
end_registrar() {
    local pid
    pid=$(<"$work/kamailio.pid")
    kill "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    rm -f "$work/kamailio.pid"
}
table() { kamcmd -s "unix:$work/kamailio/ctl" ul.dump; }
# field NAME: of Alice's binding, as Kamailio has it.
field() { table | sed -n "s/^[[:space:]]*$1: //p" | head -n 1; }
value() { sed "s/.*\"$1\":\"\\{0,1\\}\\([^,\"]*\\).*/\\1/" <<<"$output"; }

# prefer udp|tcp: which transport example.org would rather have.
prefer() {
    local zone=$work/example.org.zone
    cp "$here/example.org.zone" "$zone"
    [[ $1 == udp ]] || sed -i 's/NAPTR 20/NAPTR 5/' "$zone"
    sed -i "s/hostmaster 1 /hostmaster $((++org_serial)) /" "$zone"
    kill -HUP "$(<"$work/named.pid")"
    within 5 eval "dig +short @198.51.100.53 example.org SOA | grep -q ' $org_serial '" || fail "BIND keeps the old zone"
    # What resolvers remember lives for 2 s.
    sleep 2.2
}
org_serial=1

# called WHAT: Bob of example.com calls Alice at example.org. SIPp insists on the 200s to INVITE, re-INVITE and BYE. While
# the DNS still names a dead proxy peer first, the ACK may be lost there, for nobody answers it and Kamailio cannot know;
# so what Alice makes of such a call is not insisted on, only that she has had it.
calls() { grep -c '"direction":"incoming"' "$work/calls" || true; }
called() {
    local before
    before=$(calls)
    sipp_with call 198.51.100.11 -t u1 -i 192.0.2.11 -p 5070 -m 1 -d 200 -key user bob \
        -key callee alice@example.org || fail "Bob's call: $1"
    within 5 eval "(( \$(calls) > $before ))" || fail "Alice has not heard of it: $1"
    say "  Bob calls sip:alice@example.org, and Alice answers: $1"
}

for mode in "udp" "tcp" "udp nat" "tcp nat"; do
    read -r transport nat <<<"$mode"
    # The passwords are asked for by MD5 here and by SHA-256 there.
    [[ $transport == udp ]] && hash=MD5 || hash=SHA-256
    registrar ${nat:+-A WITH_NAT} -A "WITH_${hash//-/}"
    prefer "$transport"
    listen

    # Who does not know the password gets nowhere.
    echo guess >"$work/guess"
    expect 1 "$bin/p2p-register" "${public[@]}" --password-file "$work/guess"
    [[ $(value code) == 401 && -z $(field Address) ]] || fail "a wrong password: $output"

    # As asked.
    expect 0 "$bin/p2p-register" "${public[@]}" --password-file "$work/password" --expires 300
    [[ $(value status) == registered && $(value expires_in_ms) == 300000 ]] || fail "$output"
    [[ $(value realm) == example.org && $(value algorithm) == "$hash" ]] || fail "no $hash: $output"
    [[ $(field Address) == sip:alice@p2psip.org ]] || fail "bound to $(field Address)"
    [[ $(field Expires) -gt 290 && $(field User-Agent) == p2psip/* ]] || fail "$(table)"
    received=$(field Received)
    carrier=${proxy_of[$(value proxy)]}
    say "$mode: bound through proxy peer $carrier, seen in the location table (received: $received)"
    called "through whichever proxy peer the DNS names first"

    # Kept, and taken over when the proxy peer dies.
    "$bin/p2p-register" "${public[@]}" --password-file "$work/password" --expires 8 --stay \
        >"$work/stay" 2>"$work/stay.log" &
    stay=$!
    within 10 grep -q registered "$work/stay" || fail "no registration: $(<"$work/stay")"
    first=$(field CSeq)
    within 10 eval '(( $(field CSeq) > first ))' || fail "never refreshed: $(table)"
    output=$(tail -n 1 "$work/stay")
    carrier=${proxy_of[$(value proxy)]}
    lines=$(wc -l <"$work/stay")
    killed "$carrier"
    within 3 eval '(( $(wc -l <"$work/stay") > lines ))' || fail "nobody noticed that proxy peer $carrier died"
    output=$(tail -n 1 "$work/stay")
    [[ $(value status) == registered && ${proxy_of[$(value proxy)]} != "$carrier" ]] || fail "$output"
    called "proxy peer $carrier is dead, and $((3 - carrier)) has taken over"
    kill "$stay" && wait "$stay" || fail "p2p-register --stay: $(<"$work/stay.log")"
    serve "$carrier"

    # Without anybody to take over, the binding still leads to the overlay and not to the dead proxy peer, unless
    # Kamailio's NAT handling has bound it to a connection.
    expect 0 "$bin/p2p-register" "${public[@]}" --password-file "$work/password" --expires 300
    carrier=${proxy_of[$(value proxy)]}
    killed "$carrier"
    if [[ $(field Received) == *transport=tcp* ]]; then
        say "  (Kamailio has bound her to a TCP connection of the proxy peer: that takes --stay)"
    else
        called "proxy peer $carrier is dead, and nobody has told Kamailio"
    fi
    serve "$carrier"

    kill "$listener" && wait "$listener" || true
    expect 0 "$bin/p2p-register" "${public[@]}" --password-file "$work/password" --remove
    [[ $(value status) == removed && -z $(field Address) ]] || fail "not removed: $output $(table)"
    say "  removed"
    expect 1 "$bin/p2p-lookup" sip:alice@p2psip.org "${alice[@]}"
    end_registrar
done

# At a terminal the password is asked for, and what is typed is not shown.
registrar
listen
(sleep 1 && echo alicepw && sleep 4) |
    script --quiet --return --command "$bin/p2p-register ${public[*]/--json/--short}" "$work/terminal" >/dev/null ||
    fail "at a terminal: $(<"$work/terminal")"
grep -q "Password of alice at example.org" "$work/terminal" || fail "it was not asked for: $(<"$work/terminal")"
! grep -q alicepw "$work/terminal" || fail "it was shown: $(<"$work/terminal")"
[[ $(field Address) == sip:alice@p2psip.org ]] || fail "not bound: $(<"$work/terminal")"
say "a password typed at a terminal is not shown"
kill "$listener"
end_registrar
