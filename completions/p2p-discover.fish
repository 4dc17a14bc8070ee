complete -c p2p-discover -s n -l number -d 'How many to find, of all kinds together; all there are if not given' -r
complete -c p2p-discover -l via -d 'Whom to ask: the member on this machine (socket), a remote one (peer), the storers (walk), or auto' -r -f -a "auto\t'The best of what there is'
socket\t'Only the member on this machine'
peer\t'Only a remote member'
walk\t'Only a walk of its own'"
complete -c p2p-discover -l overlay -d 'Overlay identifier, such as p2psip.org [env: P2PSIP_OVERLAY]' -r
complete -c p2p-discover -l descriptor -d 'Descriptor of the overlay, if not the home\'s' -r -F
complete -c p2p-discover -l peer -d 'Ask this member; repeat for several [env: P2PSIP_PEER]' -r
complete -c p2p-discover -l socket -d 'Unix socket of the member on this machine [env: P2PSIP_SOCKET]' -r -F
complete -c p2p-discover -l dns -d 'DNS server, ADDR or ADDR:PORT; repeat for several [env: P2PSIP_DNS]' -r
complete -c p2p-discover -l timeout -d 'Seconds until the first answer, such as 2.5 [default: 5]' -r
complete -c p2p-discover -l home -d 'Folder of keys and certificates [env: P2PSIP_HOME]' -r -F
complete -c p2p-discover -l config -d 'Configuration file, instead of ./p2psip.toml and the user\'s' -r -F
complete -c p2p-discover -l color -d 'Colour: auto, always or never; NO_COLOR means never' -r -f -a "auto\t'If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set'
always\t'Even into a file'
never\t'Not at all'"
complete -c p2p-discover -l no-probe -d 'Do not ask the endpoints whether they answer'
complete -c p2p-discover -s 4 -d 'Use IPv4 only'
complete -c p2p-discover -s 6 -d 'Use IPv6 only'
complete -c p2p-discover -l json -d 'Print JSON, one object a line'
complete -c p2p-discover -l short -d 'Print bare values, one a line'
complete -c p2p-discover -s q -l quiet -d 'Print results and errors only'
complete -c p2p-discover -s v -l verbose -d 'Say what is going on; -vv and -vvv say more'
complete -c p2p-discover -s h -l help -d 'Print help'
complete -c p2p-discover -s V -l version -d 'Print version'
