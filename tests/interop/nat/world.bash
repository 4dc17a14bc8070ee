# The world of nat.sh and mdns.sh: hosts, a public network, and NATs of every kind, in network namespaces.
#
# Sourced first by a script, this runs the script again in user, network, mount and process namespaces of its own, which
# end with it. No privilege is needed, and nothing outside sees any of it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=$(cd "$here/../../.." && pwd)/target/debug
# Debian keeps servers where ordinary users do not look.
PATH=$PATH:/usr/sbin:/sbin

if [[ ${P2PSIP_INTEROP_WORLD:-} != inside ]]; then
    exec env P2PSIP_INTEROP_WORLD=inside unshare --user --map-root-user --net --mount --pid --fork --mount-proc \
        --kill-child bash "$0" "$@"
fi

# ip(8) keeps its namespaces in /run/netns; this one's /run is its own.
mount -t tmpfs run /run
mkdir /run/netns
work=$(mktemp -d)
trap 'umount -l "$work" && rmdir "$work"' EXIT
mount -t tmpfs world "$work"

# say WHAT: a step, with the seconds since the start.
say() {
    printf '%3d s  %s\n' "$SECONDS" "$*"
}

fail() {
    echo "FAILED: $*" >&2
    for log in "$work"/*.log; do
        [[ -s $log ]] && printf -- '── the end of %s\n%s\n' "${log##*/}" "$(tail -n 15 "$log")" >&2
    done
    exit 1
}

# within SECONDS COMMAND...: waits until the command succeeds.
within() {
    local until=$((SECONDS + $1 + 1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < until)) || return 1
        sleep 0.1
    done
}

# json EXPRESSION: the value, in Python, of a JSON object o on standard input.
json() {
    python3 -c 'import json, sys; o = json.loads(sys.stdin.readline()); v = eval(sys.argv[1]); print(*v if isinstance(v, tuple) else (v,))' "$1"
}

# on HOST COMMAND...: runs a command there, with a home of its own.
on() {
    local host=$1
    shift
    ip netns exec "$host" env -i PATH="$PATH" HOME="$work/$host" "$@"
}

# network NAME: a switch.
network() {
    ip netns add "$1"
    ip -n "$1" link add br0 type bridge
    ip -n "$1" link set br0 up
}

# host NAME NETWORK ADDRESS/LENGTH [GATEWAY]
host() {
    local name=$1 network=$2 address=$3 gateway=${4:-}
    ip netns add "$name"
    mkdir -p "$work/$name"
    ip -n "$name" link set lo up
    plug "$name" eth0 "$network" "$address"
    [[ -z $gateway ]] || ip -n "$name" route add default via "$gateway"
}

# plug NAME INTERFACE NETWORK ADDRESS/LENGTH
plug() {
    ip link add "$2" netns "$1" type veth peer name "p-$1" netns "$3"
    ip -n "$3" link set "p-$1" master br0 up
    ip -n "$1" address add "$4" dev "$2"
    ip -n "$1" link set "$2" up
}

# nat NAME KIND ADDRESS PREFIX: a NAT that has the address on the internet, and PREFIX.1 on a network of its own. The
# kinds are those of RFC 3489 §5; in the words of RFC 4787 §4 and §5:
#   full        mapping endpoint-independent, filtering endpoint-independent
#   address     mapping endpoint-independent, filtering address-dependent
#   port        mapping endpoint-independent, filtering address and port-dependent
#   symmetric   mapping and filtering address and port-dependent
nat() {
    local name=$1 kind=$2 address=$3 inside=$4
    network "$name-lan"
    ip netns add "$name"
    ip -n "$name" link set lo up
    plug "$name" public internet "$address/24"
    plug "$name" lan "$name-lan" "$inside.1/24"
    on "$name" sysctl -qw net.ipv4.ip_forward=1
    local random= rules=
    case $kind in
    full | address)
        # What was sent from a port comes back to its sender: from anybody, or from the addresses sent to.
        local from= seen=
        if [[ $kind == address ]]; then
            from="ip saddr . meta l4proto . th dport @sent"
            seen="update @sent { ip daddr . meta l4proto . th sport }"
        fi
        rules="
            map back { type inet_proto . inet_service : ipv4_addr; flags dynamic,timeout; timeout 120s; size 65535; }
            set sent { type ipv4_addr . inet_proto . inet_service; flags dynamic,timeout; timeout 120s; size 65535; }
            chain in {
                type nat hook prerouting priority dstnat;
                iifname public meta l4proto { tcp, udp } $from dnat to meta l4proto . th dport map @back
            }
            chain out {
                type filter hook forward priority filter - 1;
                iifname lan meta l4proto { tcp, udp } update @back { meta l4proto . th sport : ip saddr } $seen
            }"
        ;;
    port) ;;
    symmetric) random=random,fully-random ;;
    *) fail "no such kind of NAT: $kind" ;;
    esac
    # What nobody asked for is dropped without an answer, also where it is for the NAT itself.
    on "$name" nft -f - <<RULES
table ip nat {
    $rules
    chain post { type nat hook postrouting priority srcnat; oifname public masquerade $random; }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname lan accept
        ct status dnat accept
    }
    chain input {
        type filter hook input priority filter; policy accept;
        iifname public ct state established,related accept
        iifname public drop
    }
}
RULES
}
