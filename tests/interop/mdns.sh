#!/usr/bin/env bash
# Members of one local network that were told of nobody: those with --mdns find each other, the one without stays alone.
#
# Needs: unshare, ip, python3. See nat/world.bash.
. "$(dirname "${BASH_SOURCE[0]}")/nat/world.bash"

network lan
host one lan 192.0.2.1/24
host two lan 192.0.2.2/24
host shy lan 192.0.2.3/24

# member HOST OPTION...: a member of the overlay "testnet" there, which is told of no other.
member() {
    local host=$1
    shift
    on "$host" "$bin/p2p-join" --json "$@" testnet >"$work/$host.json" 2>"$work/$host.log" &
    within 15 test -s "$work/$host.json" || fail "the member at $host does not start"
}

# knows HOST PEERS: that many others are known to the member there.
knows() {
    [[ $(on "$1" "$bin/p2p-shell" --json -c status | json 'o["peers"]') == "$2" ]]
}

member one --local --mdns
descriptor=$work/one/.local/share/p2psip/descriptor.toml
member shy --descriptor "$descriptor"
knows one 0 && knows shy 0 || fail "somebody is known already"
say "one member, and another without --mdns: they do not know each other"
member two --descriptor "$descriptor" --mdns
within 15 knows two 1 || fail "the members with --mdns do not find each other"
within 5 knows one 1 || fail "the first member does not know the one that found it"
say "a third, with --mdns: it and the first have found each other"

on one "$bin/p2p-register" --short sip:alice@testnet >"$work/register.log" 2>&1 || fail "alice cannot be registered"
on two "$bin/p2p-lookup" --short sip:alice@testnet >"$work/lookup.log" 2>&1 || fail "alice is not found from the other"
say "a user of the first is found at the third"
sleep 3
knows shy 0 || fail "the member without --mdns was found"
code=0
on shy "$bin/p2p-lookup" --short sip:alice@testnet >"$work/lookup.log" 2>&1 || code=$?
((code != 0)) || fail "alice is found where nobody is known"
say "the member without --mdns is still alone"
