complete -c p2p-answer -l ring -d 'Seconds to ring [default: 0]' -r
complete -c p2p-answer -l status -d 'Final response: 200 to answer, or 300 to 699' -r
complete -c p2p-answer -l media -d 'Seconds after which to hang up [default: the caller does]' -r
complete -c p2p-answer -l listen -d 'Listen on this address, UDP and TCP, as an ordinary user agent: ADDR or ADDR:PORT' -r
complete -c p2p-answer -l count -d 'End after so many calls' -r
complete -c p2p-answer -l pcap -d 'Write the messages to a file that Wireshark and sngrep read' -r -F
complete -c p2p-answer -l overlay -d 'Overlay identifier, such as p2psip.org [env: P2PSIP_OVERLAY]' -r
complete -c p2p-answer -l descriptor -d 'Descriptor of the overlay, if not the home\'s' -r -F
complete -c p2p-answer -l peer -d 'Ask this member; repeat for several [env: P2PSIP_PEER]' -r
complete -c p2p-answer -l socket -d 'Unix socket of the member on this machine [env: P2PSIP_SOCKET]' -r -F
complete -c p2p-answer -l dns -d 'DNS server, ADDR or ADDR:PORT; repeat for several [env: P2PSIP_DNS]' -r
complete -c p2p-answer -l timeout -d 'Seconds until the first answer, such as 2.5 [default: 5]' -r
complete -c p2p-answer -l home -d 'Folder of keys and certificates [env: P2PSIP_HOME]' -r -F
complete -c p2p-answer -l config -d 'Configuration file, instead of ./p2psip.toml and the user\'s' -r -F
complete -c p2p-answer -l color -d 'Colour: auto, always or never; NO_COLOR means never' -r -f -a "auto\t'If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set'
always\t'Even into a file'
never\t'Not at all'"
complete -c p2p-answer -l once -d 'End after one call'
complete -c p2p-answer -l ladder -d 'Draw the messages of each call, and the hops that they took'
complete -c p2p-answer -s 4 -d 'Use IPv4 only'
complete -c p2p-answer -s 6 -d 'Use IPv6 only'
complete -c p2p-answer -l json -d 'Print JSON, one object a line'
complete -c p2p-answer -l short -d 'Print bare values, one a line'
complete -c p2p-answer -s q -l quiet -d 'Print results and errors only'
complete -c p2p-answer -s v -l verbose -d 'Say what is going on; -vv and -vvv say more'
complete -c p2p-answer -s h -l help -d 'Print help'
complete -c p2p-answer -s V -l version -d 'Print version'
