# The world of the SIP interop scripts: real name server, real Kamailio, members of an overlay, real phones.
#
# Sourced first by a script, this runs the script again in user, network, mount and process namespaces of its own, which
# end with it: addresses of the documentation ranges (RFC 5737) lie on its loopback, BIND serves port 53, and
# /etc/resolv.conf is its own. No privilege is needed, and nothing outside sees any of it.
#
#   198.51.100.53        the name server: example.com, example.org and p2psip.org
#   198.51.100.11        Kamailio, registrar and proxy of example.com, or of example.org
#   198.51.100.21, .22   proxy peers
#   192.0.2.11, .12      phones of example.com
#   127.0.0.1            members of the overlay
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=$(cd "$here/../../.." && pwd)/target/debug
# Debian keeps servers where ordinary users do not look.
PATH=$PATH:/usr/sbin:/sbin

if [[ ${P2PSIP_INTEROP_WORLD:-} != inside ]]; then
    # Without --map-root-user for root itself, the namespace would have no root.
    exec env P2PSIP_INTEROP_WORLD=inside unshare --user --map-root-user --net --mount --pid --fork --mount-proc \
        --kill-child bash "$0" "$@"
fi

work=$(mktemp -d)
trap 'umount -l "$work" && rmdir "$work"' EXIT
mount -t tmpfs world "$work"
chmod 755 "$work"

ip link set lo up
for address in 198.51.100.{11,12,21,22,53} 192.0.2.{11..15}; do
    ip address add "$address/32" dev lo
done
printf 'nameserver 198.51.100.53\noptions timeout:1 attempts:2\n' >"$work/resolv.conf"
mount --bind "$work/resolv.conf" /etc/resolv.conf

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

# expect CODE COMMAND...: runs it, keeps what it prints in $output, and insists on its exit code.
expect() {
    local wanted=$1 code=0
    shift
    output=$("$@" 2>&1) || code=$?
    ((code == wanted)) || fail "exit code $code, not $wanted: ${*/#$bin\//}"$'\n'"$output"
}

# name_server: BIND, with every zone beside this file, or as there is one of its name in $work.
name_server() {
    local zone zones=
    for zone in "$here"/*.zone; do
        zone=${zone##*/}
        [[ -e $work/$zone ]] || cp "$here/$zone" "$work/"
        zones+="zone \"${zone%.zone}\" { type primary; file \"$zone\"; };"$'\n'
    done
    cat >"$work/named.conf" <<CONF
options {
    directory "$work"; pid-file "$work/named.pid"; session-keyfile "$work/session.key";
    listen-on port 53 { 198.51.100.53; }; listen-on-v6 { none; };
    recursion no; allow-transfer { none; }; dnssec-validation no; notify no;
};
controls { };
$zones
CONF
    named -g -c "$work/named.conf" >"$work/named.log" 2>&1 &
    within 10 dig +time=1 +tries=1 +short @198.51.100.53 p2psip.org SOA || fail "BIND does not answer"
}

# kamailio_proxy OPTIONS...: registrar and record-routing proxy of example.com, over UDP and TCP; its options are in
# kamailio.cfg.
kamailio_proxy() {
    mkdir -p "$work/kamailio"
    local listen=(-l udp:198.51.100.11:5060 -l tcp:198.51.100.11:5060)
    kamailio -f "$here/kamailio.cfg" -n 2 -m 64 -M 8 -Y "$work/kamailio" -w "$work/kamailio" \
        -P "$work/kamailio.pid" "${listen[@]}" -E -DD "$@" >"$work/kamailio.log" 2>&1 &
    within 10 test -s "$work/kamailio.pid" || fail "Kamailio does not start"
    within 10 sipsak -s sip:198.51.100.11 || fail "Kamailio does not answer"
}

# sipp_with SCENARIO OPTIONS...: one of the scenarios beside this file.
sipp_with() {
    local scenario=$1
    shift
    (cd "$work" && exec sipp -sf "$here/$scenario.xml" -nostdin -timeout 30 -timeout_error \
        -trace_err -error_file "$work/sipp-$scenario.log" "$@" >/dev/null 2>&1)
}

# overlay: an enrolled overlay p2psip.org whose CA lies in $work/ca, with a first member.
overlay() {
    expect 0 "$bin/p2p-enroll" init p2psip.org --home "$work/ca"
    join first --listen /ip4/127.0.0.1/tcp/4001
    entry=$(sed -n '/tcp\/4001/{p;q;}' "$work/first.out")
    [[ -n $entry ]] || fail "the first member does not say where it is"
}

# enrol HOME NAME...: certificates for names, issued by the CA and installed.
enrol() {
    local home=$work/$1 name
    shift
    for name in "$@"; do
        rm -f "$work/request.csr" "$work/issued.pem"
        expect 0 "$bin/p2p-enroll" request "$name" --home "$home" --out "$work/request.csr"
        expect 0 "$bin/p2p-enroll" issue "$work/request.csr" --home "$work/ca" --out "$work/issued.pem"
        expect 0 "$bin/p2p-enroll" install "$work/issued.pem" "$work/ca/descriptor.toml" --home "$home"
    done
    (($#)) || expect 0 "$bin/p2p-enroll" install "$work/ca/descriptor.toml" --home "$home"
}

# join HOME OPTIONS...: a member; its process id is in $joined.
join() {
    local name=$1
    shift
    [[ -e $work/$name/descriptor.toml ]] || enrol "$name"
    "$bin/p2p-join" --short --home "$work/$name" ${entry:+--peer "$entry"} "$@" \
        >"$work/$name.out" 2>"$work/$name.log" &
    joined=$!
    within 20 test -s "$work/$name.out" || fail "member $name does not come up"
}
entry=
