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
    # P2PSIP_KEEP=DIR keeps logs and captures of the world that failed.
    [[ -z ${P2PSIP_KEEP:-} ]] || cp -r "$work" "$P2PSIP_KEEP" || true
    for log in "$work"/*.log; do
        [[ -s $log ]] && printf -- '── the end of %s\n%s\n' "${log##*/}" "$(tail -n 30 "$log")" >&2
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

# listens u|t ADDRESS:PORT: somebody is there on UDP or TCP. As the command of `within`.
listens() {
    [[ -n $(ss -Hln"$1" "src $2") ]]
}

# expect CODE COMMAND...: runs it, keeps what it prints in $output, and insists on its exit code.
expect() {
    local wanted=$1 code=0
    shift
    output=$("$@" 2>&1) || code=$?
    ((code == wanted)) || fail "exit code $code, not $wanted: ${*/#$bin\//}"$'\n'"$output"
}

# dns_lists N...: from now on the DNS names only these proxy peers, in this order.
serial=1
dns_lists() {
    local service n priority=0
    serial=$((serial + 1))
    {
        grep -v SRV "$here/p2psip.org.zone" | sed "s/hostmaster [0-9]*/hostmaster $serial/"
        for n in "$@"; do
            priority=$((priority + 10))
            for service in _sip._udp:5060 _sip._tcp:5060 _sips._tcp:5061; do
                echo "${service%:*} IN SRV $priority 10 ${service#*:} proxy$n"
            done
        done
    } >"$work/p2psip.org.zone"
    [[ -s $work/named.pid ]] || return 0
    kill -HUP "$(cat "$work/named.pid")"
    listed() { [[ $(dig +short @198.51.100.53 p2psip.org SOA) == *" $serial "* ]]; }
    within 5 listed || fail "BIND does not load the new zone"
}

# name_server: BIND, with every zone beside this file, or as there is one of its name in $work. If there is a
# $work/gatekeeper.key, whoever has that may change p2psip.org.
name_server() {
    local include='' updates='' zone zones=''
    if [[ -e $work/gatekeeper.key ]]; then
        include="include \"$work/gatekeeper.key\";"
        updates='update-policy { grant gatekeeper zonesub ANY; };'
    fi
    for zone in "$here"/*.zone; do
        zone=${zone##*/}
        [[ -e $work/$zone ]] || cp "$here/$zone" "$work/"
        zones+="zone \"${zone%.zone}\" { type primary; file \"$zone\"; "
        [[ $zone != p2psip.org.zone ]] || zones+=$updates
        zones+=$'};\n'
    done
    cat >"$work/named.conf" <<CONF
$include
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

# certificate NAME DNS-NAME...: one of the test's own CA, for these domains, in $work/NAME.pem and NAME.key.
certificate() {
    local name=$1 names
    shift
    if [[ ! -e $work/tls-ca.pem ]]; then
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=test CA" \
            -addext keyUsage=keyCertSign -keyout "$work/tls-ca.key" -out "$work/tls-ca.pem" 2>/dev/null
        # The system's roots, as far as the utilities are concerned.
        export SSL_CERT_FILE=$work/tls-ca.pem
    fi
    names=$(printf ',DNS:%s' "$@")
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$work/$name.key" 2>/dev/null |
        openssl x509 -req -days 2 -CA "$work/tls-ca.pem" -CAkey "$work/tls-ca.key" -out "$work/$name.pem" \
            -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "${names#,}") 2>/dev/null
    [[ -s $work/$name.pem ]] || fail "no certificate for $*"
}

# kamailio_proxy OPTIONS...: registrar and record-routing proxy of example.com, over UDP and TCP, and over TLS if there
# is a certificate of the name kamailio; its options are in kamailio.cfg.
kamailio_proxy() {
    mkdir -p "$work/kamailio"
    local listen=(-l udp:198.51.100.11:5060 -l tcp:198.51.100.11:5060)
    if [[ -e $work/kamailio.pem ]]; then
        # In Record-Route it shows the name that its certificate proves.
        listen+=(-l tls:198.51.100.11:5061/kamailio.example.com:5061 -A "TLS_FILES=$work/kamailio"
            -A "TLS_CA=$work/tls-ca.pem")
    fi
    kamailio -f "$here/kamailio.cfg" -n 2 -m 64 -M 8 -Y "$work/kamailio" -w "$work/kamailio" \
        -P "$work/kamailio.pid" "${listen[@]}" -E -DD "$@" >"$work/kamailio.log" 2>&1 &
    within 10 test -s "$work/kamailio.pid" || fail "Kamailio does not start"
    within 10 sipsak -s sip:198.51.100.11 || fail "Kamailio does not answer"
}

# capture NAME: records what goes over UDP and to and from port 5060 of TCP from now on, until `well_formed NAME`.
capture() {
    dumpcap -q -i lo -f "udp port 5060 or tcp port 5060 or udp portrange 5070-5079" -w "$work/$1.pcapng" \
        >"$work/dumpcap.log" 2>&1 &
    capturing=$!
    within 5 test -s "$work/$1.pcapng" || fail "dumpcap does not start"
}

# well_formed NAME: ends the capture, and holds what tshark says of it against us.
well_formed() {
    # Packets reach the file after a moment.
    sleep 0.5
    kill -INT "$capturing" && wait "$capturing" || true
    no_malformed "$work/$1.pcapng"
}

# no_malformed FILE...: tshark reads each as SIP, and finds nothing wrong.
no_malformed() {
    local file seen wrong ports
    ports=$(printf -- ' -d udp.port==%s,sip -d tcp.port==%s,sip' 507{0..9}{,})
    for file in "$@"; do
        # shellcheck disable=SC2086 # several arguments
        seen=$(tshark -r "$file" $ports -Y sip 2>/dev/null | wc -l)
        ((seen > 0)) || fail "tshark finds no SIP in ${file##*/}"
        # shellcheck disable=SC2086
        wrong=$(tshark -r "$file" $ports -Y '(sip && (_ws.malformed || _ws.expert.severity >= "Warning" ||
            sip.content_length.invalid || sip.Via.sent-by.port.invalid || sip.Status-Code.invalid)) ||
            (udp && !sip && !dns && udp.length > 12)' 2>"$work/tshark.log") || fail "tshark cannot read ${file##*/}"
        [[ -z $wrong ]] || fail "tshark on ${file##*/}:"$'\n'"$wrong"
        say "tshark finds nothing malformed in ${file##*/} ($seen messages)"
    done
}

# proxy_peer N OPTIONS...: proxy peer N at 198.51.100.2N; its process id is in $joined.
proxy_peer() {
    local n=$1 address=198.51.100.2$1
    shift
    [[ -e $work/proxy$n ]] || enrol "proxy$n" sip:p2psip.org
    [[ -e $work/proxies.pem ]] && set -- "$@" --tls="$address:5061" --tls-cert="$work/proxies.pem" \
        --tls-key="$work/proxies.key"
    join "proxy$n" --listen "/ip4/127.0.0.1/tcp/401$n" --proxy="$address:5060" "$@"
    within 10 sipsak -s sip:p2psip.org -p "$address" || fail "proxy peer $n does not answer OPTIONS"
}

# scenario NAME FROM SED-SCRIPT: a scenario of the script's own, made of one beside this file.
scenario() {
    sed -E "$3" "$here/$2.xml" >"$work/$1.xml"
    ! cmp -s "$here/$2.xml" "$work/$1.xml" || fail "$1 is no other scenario than $2"
}

# sipp_with SCENARIO OPTIONS...: one of the scenarios beside this file, or of the script's own.
sipp_with() {
    local scenario=$1 file=$here/$1.xml
    shift
    [[ -e $file ]] || file=$work/$scenario.xml
    (cd "$work" && exec sipp -sf "$file" -nostdin -timeout 30 -timeout_error \
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

# baresip_phone ADDRESS PORT TRANSPORT: the phone of carol@example.com, registered with Kamailio, which answers calls.
baresip_phone() {
    local address=$1 port=$2 transport=$3 proxy=198.51.100.11
    [[ $transport == tls ]] && proxy=kamailio.example.com
    mkdir -p "$work/baresip"
    # Over TLS Kamailio calls it on a connection of its own.
    [[ -e $work/carol.pem ]] || certificate carol carol.example.com
    cat "$work/carol.pem" "$work/carol.key" >"$work/baresip/carol.pem"
    cat >"$work/baresip/config" <<CONF
poll_method epoll
sip_listen $address:$port
sip_certificate $work/baresip/carol.pem
audio_source ausine,440
audio_player aubridge,null
audio_alert aubridge,null
module_path /usr/lib/baresip/modules
module g711.so
module ausine.so
module aubridge.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen 127.0.0.1:4444
CONF
    printf '<sip:carol@example.com;transport=%s>;answermode=auto;regint=60;outbound="sip:%s;transport=%s"\n' \
        "$transport" "$proxy" "$transport" >"$work/baresip/accounts"
    : >"$work/baresip/contacts"
    baresip -4 -f "$work/baresip" >"$work/baresip.log" 2>&1 &
    phone=$!
    within 10 grep -q "200 OK" "$work/baresip.log" || fail "baresip does not register over $transport"
}

# baresip_do COMMAND [PARAMETERS]: has the phone dial, hang up and so on; what it answers is in $answered.
baresip_do() {
    local request="{\"command\":\"$1\",\"params\":\"${2:-}\",\"token\":\"t\"}" line length
    exec {line}<>/dev/tcp/127.0.0.1/4444
    printf '%d:%s,' "${#request}" "$request" >&"$line"
    answered=
    # Events may come before the answer; each is a netstring.
    while [[ $answered != *'"response":true'* ]]; do
        IFS= read -r -t 5 -d : length <&"$line" || fail "baresip does not answer '$1'"
        IFS= read -r -N $((length + 1)) answered <&"$line"
    done
    exec {line}>&-
}
