#!/usr/bin/env bash
# Members and callers behind NATs of every kind: registered, found, called from everywhere, and over relays that end
# every circuit after a few seconds.
#
# Needs: unshare, ip, nft, python3. See nat/world.bash for the NATs.
. "$(dirname "${BASH_SOURCE[0]}")/nat/world.bash"

# Circuits end this soon, calls last longer.
circuit=6
call=9
kinds=(full address port symmetric)
# What happens to circuits and holes is told at this level.
verbose=(env P2PSIP_LOG=p2psip=debug)

network internet
host pub1 internet 198.51.100.21/24
host pub2 internet 198.51.100.22/24
host pub3 internet 198.51.100.23/24
octet=1
for kind in "${kinds[@]}"; do
    nat "nat-$kind" "$kind" "198.51.100.10$octet" "10.$octet.0"
    host "$kind" "nat-$kind-lan" "10.$octet.0.2/24" "10.$octet.0.1"
    octet=$((octet + 1))
done

# member HOST OPTION...: a member of the overlay "testnet" there.
member() {
    local host=$1
    shift
    on "$host" "${verbose[@]}" "$bin/p2p-join" --json --log-format json --listen /ip4/0.0.0.0/tcp/4001 \
        --listen /ip4/0.0.0.0/udp/4001/quic-v1 --circuit-seconds "$circuit" "$@" testnet \
        >"$work/$host.json" 2>"$work/member-$host.log" &
}

member pub1 --local
within 15 test -s "$work/pub1.json" || fail "the first member does not start"
peer=$(json 'next(a for a in o["addresses"] if "198.51.100" in a)' <"$work/pub1.json")
descriptor=$work/pub1/.local/share/p2psip/descriptor.toml
for host in pub2 pub3 "${kinds[@]}"; do
    member "$host" --descriptor "$descriptor" --peer "$peer"
done
for host in pub2 pub3 "${kinds[@]}"; do
    within 20 test -s "$work/$host.json" || fail "the member at $host does not start"
done
say "three public members, and one behind each NAT"

# status_says HOST PATTERN: what the member there says of itself.
status_says() {
    on "$1" "$bin/p2p-shell" -c status >"$work/status" 2>&1
    grep -qE -- "$2" "$work/status"
}

# reached HOST HOW WHY: insists on how the member says that it is reached, and why.
reached() {
    within 15 status_says "$1" "^reached +$2: .*$3" || fail "$1 does not say '$2: …$3'"$'\n'"$(cat "$work/status")"
    say "$1: $(sed -n 's/^reached *//p' "$work/status")"
}

for host in pub1 pub2 pub3; do
    reached "$host" "directly" "under its own address 198\.51\.100\."
done
# AutoNAT's testers have been sent traffic to, which is all that the second kind asks for: so the circuits stay.
reached full "through a NAT that lets others in" "a peer that dialled /ip4/198\.51\.100\.101/.* got through"
reached address "through a NAT that lets others in" "a peer that dialled /ip4/198\.51\.100\.102/.* got through"
reached port "through relays" "198\.51\.100\.103.* did not get through"
reached symmetric "through relays" "198\.51\.100\.104.* did not get through"
for host in "${kinds[@]}"; do
    within 5 status_says "$host" "^relays +12D3KooW" || fail "$host holds no place at a relay"
done

# knows HOST NUMBER: that many others route for the member there.
knows() {
    [[ $(on "$1" "$bin/p2p-shell" --json -c status | json 'o["peers"]') == "$2" ]]
}
for host in pub1 pub2 pub3; do
    within 5 knows "$host" 2 || fail "$host does not leave those out that others cannot reach: $(
        on "$host" "$bin/p2p-shell" -c peers
    )"
done

for host in "${kinds[@]}"; do
    on "$host" "$bin/p2p-register" --short "sip:$host@testnet" >"$work/register-$host.log" 2>&1 ||
        fail "sip:$host@testnet cannot be registered"
done
for host in pub3 "${kinds[@]}"; do
    for user in "${kinds[@]}"; do
        found=$(on "$host" "$bin/p2p-lookup" --json "sip:$user@testnet" 2>"$work/lookup.log") ||
            fail "sip:$user@testnet is not found from $host"
        circuits=$(json 'sum("/p2p-circuit" in a for r in o["records"] for c in r["contacts"] for a in c["addresses"])' \
            <<<"$found")
        ((circuits > 0)) || fail "the record of sip:$user@testnet names no circuit: $found"
    done
done
say "each of the four is registered, and found from the public side and from behind every NAT"

for host in "${kinds[@]}"; do
    on "$host" "${verbose[@]}" "$bin/p2p-answer" --json "sip:$host@testnet" \
        >"$work/answer-$host.json" 2>"$work/answer-$host.log" &
done
for host in "${kinds[@]}"; do
    within 15 test -s "$work/answer-$host.json" || fail "p2p-answer at $host does not start"
done

# call HOST CALLEE: from there to the user behind that NAT, for longer than a circuit lasts.
call() {
    local host=$1 callee=$2
    local home=$work/$host-calls-$callee socket=$work/$host/.local/share/p2psip/member.sock
    on "$host" "${verbose[@]}" "$bin/p2p-invite" --home "$home" --socket "$socket" --json --media "$call" \
        --from "sip:$host-calls-$callee@testnet" "sip:$callee@testnet" >"$home.json" 2>"$home.log"
}

pids=() names=()
for callee in "${kinds[@]}"; do
    for host in pub3 "${kinds[@]}"; do
        [[ $host == "$callee" ]] && continue
        call "$host" "$callee" &
        pids+=($!) names+=("$host-calls-$callee")
    done
done
say "${#pids[@]} calls of $call s, over circuits that end after $circuit s"
failed=0
for at in "${!pids[@]}"; do
    wait "${pids[at]}" || failed=$((failed + 1))
    outcome=$work/${names[at]}.json
    told=$(json 'o["status"], "after %.1f s," % (o["answered_ms"] / 1e3), "ended by", o["ended_by"], o["fault"] or ""' \
        <"$outcome") || told=$(tail -n 3 "${outcome%.json}.log")
    printf '       %-22s %s\n' "${names[at]/-calls-/ → }" "$told"
    [[ $told == "answered after "*"ended by us " ]] || failed=$((failed + 1))
done
((failed == 0)) || fail "calls failed"
say "all were answered, and ended in order"

# What the callees saw of their ends: a BYE that came after the circuit of its call had ended.
for host in "${kinds[@]}"; do
    ended=$(grep -c '"ended_by":"them","fault":null' "$work/answer-$host.json") || fail "the BYE did not reach $host"
    ((ended == ${#kinds[@]})) || fail "of the calls to $host only $ended were ended by a BYE"
done
ended=$(cat "$work"/member-pub*.log | grep "a circuit through this member has ended" | grep -c "timed out") ||
    fail "no circuit has come to its end: the calls prove nothing"
punched=$(cat "$work"/*-calls-*.log "$work"/answer-*.log | grep -c "through the NAT: a direct") || true
say "$ended circuits were ended by their relays meanwhile; holes were punched at $punched ends"
