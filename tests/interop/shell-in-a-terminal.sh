#!/usr/bin/env bash
# p2p-shell at a real terminal: completion, a lookup, Ctrl-C during events, a log line above the prompt, Ctrl-D.
#
# tmux is the terminal; keys are sent to it, and its screen is read. The overlay runs in p2p-lab.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bin=$PWD/target/debug
work=$(mktemp -d)
terminal=(tmux -S "$work/tmux" -f /dev/null)
lab=
finish() {
    "${terminal[@]}" kill-server 2>/dev/null
    [[ -n $lab ]] && kill "$lab" 2>/dev/null
    wait 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT

screen() {
    "${terminal[@]}" capture-pane -p -J -S -200
}

fail() {
    echo "FAILED: $*; the screen:" >&2
    screen >&2
    exit 1
}

# press KEY...: what tmux calls them; text is typed as it is.
press() {
    "${terminal[@]}" send-keys "$@"
}

# shows WHAT: waits until the screen has it.
shows() {
    for _ in $(seq 100); do
        screen | grep -qF -- "$1" && return
        sleep 0.1
    done
    fail "'$1' does not appear"
}

# shows_coloured WORD: waits until the screen has it in colour from its first letter to its last.
shows_coloured() {
    for _ in $(seq 100); do
        [[ $("${terminal[@]}" capture-pane -p -e) == *$'\e['*"m$1"* ]] && return
        sleep 0.1
    done
    fail "'$1' is not coloured"
}

# at_prompt [TEXT]: waits until the last line is a prompt with the text typed at it.
at_prompt() {
    for _ in $(seq 100); do
        [[ $(screen | grep -v '^$' | tail -n 1) == "p2psip.org> ${1:-}"* ]] && return
        sleep 0.1
    done
    fail "the prompt does not come, or not with '${1:-}'"
}

env -i PATH="$PATH" HOME="$work" "$bin/p2p-lab" up >"$work/lab.env" 2>"$work/lab.err" &
lab=$!
for _ in $(seq 100); do
    grep -q P2PSIP_AOR "$work/lab.env" && break
    sleep 0.1
done
grep -q P2PSIP_AOR "$work/lab.env" || { echo "p2p-lab did not come up: $(cat "$work/lab.err")" >&2; exit 1; }
# shellcheck disable=SC1091
. "$work/lab.env"

env -u P2PSIP_LOG HOME="$work" TERM=xterm-256color "${terminal[@]}" new-session -d -x 140 -y 50 \
    "PS1='done> ' bash --norc --noprofile"
shows 'done>'
press "$bin/p2p-shell" Enter
shows 'attached to 12D3KooW'
at_prompt

press 'status' Enter
shows 'running for'
at_prompt

press 'tabl' Tab
at_prompt 'table'
press Enter
shows '█'
at_prompt

press "register $P2PSIP_AOR" Enter
shows 'stored         '
at_prompt
press 'lookup sip:al' Tab
at_prompt "lookup $P2PSIP_AOR"
press Enter
shows '1 record from'
at_prompt

press "trace $P2PSIP_AOR" Enter
shows 'PATH  HOP'
at_prompt
press "store $P2PSIP_AOR sip:desk@192.0.2.7" Enter
shows 'KEEPS IT ALIVE'
at_prompt

# The rest of an earlier line is offered, and taken with the arrow; what is typed is coloured if it is a command.
press 'stat'
at_prompt 'status'
press Right
shows_coloured 'status'
press C-u Up
at_prompt "store $P2PSIP_AOR"
press C-u
at_prompt

press 'events' Enter
shows 'following what happens'
press C-c
shows 'interrupted'
at_prompt

press 'tim'
sleep 0.3
press C-c
at_prompt
press 'exit' Enter
for _ in $(seq 100); do
    [[ $(screen | grep -v '^$' | tail -n 1) == 'done>'* ]] && break
    sleep 0.1
done
# shellcheck disable=SC2016
press 'echo "exit code $?, $(stty -a | grep -ow -e -icanon -e icanon)"' Enter
shows 'exit code 0, icanon'

history=$P2PSIP_HOME/shell_history
[[ $(stat -c %a "$history") == 600 ]] || fail "the history has mode $(stat -c %a "$history")"
grep -qx 'events' "$history" || fail "the history lacks a command"

# A line of the log while somebody types stands above the prompt, and SIGTERM leaves the terminal as it was.
press "clear; P2PSIP_SOCKET= P2PSIP_HOME=$work/newcomer P2PSIP_LOG=libp2p_swarm=debug,p2psip=debug $bin/p2p-shell" Enter
at_prompt
press "lookup $P2PSIP_AOR" Enter
shows 'through a member'
at_prompt
press 'looku'
at_prompt 'looku'
pkill -TERM -f -P "$("${terminal[@]}" display-message -p '#{pane_pid}')" p2p-shell
for _ in $(seq 100); do
    [[ $(screen | grep -v '^$' | tail -n 1) == *'done>'* ]] && break
    sleep 0.1
done
# shellcheck disable=SC2016
press 'echo "ended with $?, $(stty -a | grep -ow -e -icanon -e icanon)"' Enter
shows 'ended with 130, icanon'

# With an overlay as operand and no member here, the shell is one until it ends.
member="P2PSIP_SOCKET= P2PSIP_HOME=$work/member"
press "clear; $member $bin/p2p-shell p2psip.org" Enter
shows 'joined p2psip.org as 12D3KooW'
at_prompt
press 'status' Enter
shows 'running for'
at_prompt
env P2PSIP_SOCKET= P2PSIP_HOME="$work/member" "$bin/p2p-lookup" --via socket --short "$P2PSIP_AOR" |
    grep -qx 'sip:desk@192.0.2.7' || fail "a tool does not go through the shell's member"
press C-d
for _ in $(seq 100); do
    [[ $(screen | grep -v '^$' | tail -n 1) == *'done>'* ]] && break
    sleep 0.1
done
[[ ! -e $work/member/member.sock ]] || fail "the member's socket is left behind"
echo "$(tmux -V): join, trace, store, hints, colours, status, completion, lookup, Ctrl-C, history, SIGTERM"
