#!/usr/bin/env bash
# A proxy peer, a process as any operator runs it, against floods and rubbish from real tools: it serves others
# meanwhile, and its memory stays bounded.
. "$(dirname "${BASH_SOURCE[0]}")/sip/world.bash"

name_server
kamailio_proxy
overlay
proxy_peer 1
peer=$joined
# Three users of one phone; it is Alice's, whoever is called.
for user in anna berta alice; do
    enrol "$user" "sip:$user@p2psip.org"
    expect 0 "$bin/p2p-register" "sip:$user@p2psip.org" --home "$work/$user" --peer "$entry" --json \
        --contact "sip:$user@192.0.2.11:5070"
done
gr=$(sed 's/.*"instance":"\([^"]*\)".*/\1/' <<<"$output")
sipp_with answer-overlay -i 192.0.2.11 -p 5070 -timeout 120 -key user alice -key gr "$gr" &
phone=$!
within 5 listens u 192.0.2.11:5070

# resident: the proxy peer's memory in KiB.
resident() { awk '/^VmRSS/ { print $2 }' "/proc/$peer/status"; }
# served WHOM WHEN: Bob's call through Kamailio goes well.
served() {
    sipp_with call 198.51.100.11 -i 192.0.2.12 -p 5071 -m 1 -d 50 -key user bob -key callee "$1@p2psip.org" ||
        fail "Bob's call $2"
}
served alice "before all"
before=$(resident)

for file in "$here"/../../data/torture/*.sip; do
    cat "$file" >/dev/udp/198.51.100.21/5060
    # Some are requests that are answered, and some close the connection.
    timeout 1 bash -c 'cat "$0" >/dev/tcp/198.51.100.21/5060' "$file" 2>/dev/null || true
done
served alice "after the torture"
say "the torture's messages, over UDP and TCP, harm nobody"

# flood SCENARIO RATE: calls a second from one address for four seconds, while another address is served.
flood() {
    (cd "$work" && exec timeout 4 sipp 198.51.100.21:5060 -sf "$work/$1.xml" -i 192.0.2.13 -p 5074 -r "$2" -l 200000 \
        -nostdin -default_behaviors none -key user mallory -key callee alice@p2psip.org >/dev/null 2>&1) &
    local flooding=$!
    sleep 1
    # Whom the proxy peer has to look up while it is busy with others.
    served anna "during the flood of $1"
    served berta "during the flood of $1"
    local code=0
    wait "$flooding" || code=$?
    ((code == 124)) || fail "the flood of $1 ended by itself, with $code"
}
# Only INVITEs, each to somebody else who is not there, and nothing acknowledged.
scenario strangers call 's|sip:\[callee\] SIP|sip:stranger-[call_number]@p2psip.org SIP|; s| retrans="500" start_rtd="1"||; s|<recv response="100".*|</scenario><!--|; $s|$|-->|'
flood strangers 300
say "300 calls a second to users who do not exist, all from one address: $before KiB before, $(resident) KiB after"
(($(resident) < before + 131072)) || fail "$(resident) KiB after a flood, $before KiB before"
served alice "after the flood"

# ICMP that says that nobody listens on the phone's port, as anybody can forge it who knows where calls go: it quotes a
# datagram between the right ports, and no request that was ever sent. It must end none of the calls.
cat >"$work/forge.py" <<'PY'
import os, socket, struct, sys, time
proxy, phone, seconds = socket.inet_aton(sys.argv[1]), socket.inet_aton(sys.argv[2]), float(sys.argv[3])
icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
def forged(payload):
    udp = struct.pack("!HHHH", 5060, 5070, 8 + len(payload), 0) + payload
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, socket.IPPROTO_UDP, 0) + proxy + phone
    body = struct.pack("!I", 0) + ip + udp + b"\0" * (len(udp) % 2)
    total = 0x0303 + sum(struct.unpack(f"!{len(body) // 2}H", body))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return struct.pack("!BBH", 3, 3, ~total & 0xffff) + body
def invite():
    branch = "z9hG4bK%02x%s%s" % (sent % 16, os.urandom(12).hex(), os.urandom(8).hex())
    return f"INVITE sip:alice@192.0.2.11:5070 SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.21:5060;branch={branch}\r\n".encode()
sent, until = 0, time.time() + seconds
while time.time() < until:
    icmp.sendto(forged(invite() if sent % 2 else b""), (sys.argv[1], 0))
    sent += 1
print(sent)
PY
# ticks: the proxy peer's CPU time, in hundredths of a second.
ticks() { awk '{ print $14 + $15 }' "/proc/$peer/stat"; }
before=$(ticks)
python3 "$work/forge.py" 198.51.100.21 192.0.2.11 4 >"$work/forged" &
forging=$!
sipp_with call 198.51.100.11 -i 192.0.2.12 -p 5071 -m 60 -r 20 -d 50 -key user bob -key callee alice@p2psip.org ||
    fail "calls while ICMP is forged"
wait "$forging"
say "60 calls among $(<"$work/forged") forged ICMP messages, none of them ended: $(($(ticks) - before)) ticks of CPU"
kill "$phone"
