# Ordinary phones at an adapter, for scripts that have sourced world.bash.

# adapter NAME ADDRESS USER=AOR...: a member whose adapter is at ADDRESS, with these phones; each password is the user
# with "pw" behind.
adapter() {
    local name=$1 address=$2 phone
    shift 2
    (umask 077; : >"$work/$name.toml")
    for phone in "$@"; do
        enrol "$name/phones/${phone%%=*}" "${phone#*=}"
        printf '[[phone]]\naor = "%s"\nuser = "%s"\npassword = "%spw"\n' "${phone#*=}" "${phone%%=*}" "${phone%%=*}" \
            >>"$work/$name.toml"
    done
    join "$name" --adapter "$address" --phones "$work/$name.toml"
    within 10 sipsak -s "sip:p2psip.org" -p "${address%:*}" -r "${address#*:}" || fail "the adapter $name does not answer"
}

# baresip_at NAME ADDRESS CONTROL ADAPTER AOR MODE: a baresip at ADDRESS:5060 that registers AOR as the phone NAME, and
# answers calls by MODE (auto or manual); it takes orders at the TCP port CONTROL. Its process id is in $phone.
baresip_at() {
    local name=$1 address=$2 control=$3 adapter=$4 aor=$5 mode=$6 folder=$work/$1
    mkdir -p "$folder"
    cat >"$folder/config" <<CONF
poll_method epoll
sip_listen $address:5060
audio_source aubridge,null
audio_player aubridge,null
audio_alert aubridge,null
module_path /usr/lib/baresip/modules
module g711.so
module aubridge.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen 127.0.0.1:$control
CONF
    printf '<%s>;auth_user=%s;auth_pass=%spw;answermode=%s;regint=60;outbound="sip:%s"\n' \
        "$aor" "$name" "$name" "$mode" "$adapter" >"$folder/accounts"
    : >"$folder/contacts"
    baresip -4 -f "$folder" >"$work/$name.log" 2>&1 &
    phone=$!
    within 10 grep -q "200 OK" "$work/$name.log" || fail "the phone $name does not register"
}

# tell CONTROL COMMAND [PARAMETERS]: has a baresip dial, hang up and so on; what it answers is in $answered.
tell() {
    local request="{\"command\":\"$2\",\"params\":\"${3:-}\",\"token\":\"t\"}" line length
    exec {line}<>"/dev/tcp/127.0.0.1/$1"
    printf '%d:%s,' "${#request}" "$request" >&"$line"
    answered=
    # Events may come before the answer; each is a netstring.
    while [[ $answered != *'"response":true'* ]]; do
        IFS= read -r -t 5 -d : length <&"$line" || fail "baresip does not answer '$2'"
        IFS= read -r -N $((length + 1)) answered <&"$line"
    done
    exec {line}>&-
}

# has CONTROL WHAT: a baresip's list of calls says so.
has() {
    tell "$1" listcalls
    [[ $answered == *"$2"* ]]
}

# has_none CONTROL: a baresip has no call.
has_none() {
    ! has "$1" ESTABLISHED && ! has "$1" INCOMING && ! has "$1" RINGING
}

# sipp_phone SCENARIO ADAPTER USER AOR-USER OPTIONS...: SIPp as a phone.
sipp_phone() {
    local scenario=$1 adapter=$2 user=$3 of=$4
    shift 4
    sipp_with "$scenario" "$adapter" -m 1 -au "$user" -ap "${user}pw" -key user "$of" "$@"
}
