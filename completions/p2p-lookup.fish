complete -c p2p-lookup -l via -d 'Whom to ask: the member on this machine (socket), a remote one (peer), the storers (walk), or auto' -r -f -a "auto\t'The best of what there is'
socket\t'Only the member on this machine'
peer\t'Only a remote member'
walk\t'Only a walk of its own'"
complete -c p2p-lookup -l as -d 'Take the URI for an overlay\'s name (overlay) or for another domain\'s (public), or find out (auto)' -r -f -a "auto\t'Whatever it is'
overlay\t'A name in an overlay'
public\t'A SIP URI of another domain'"
complete -c p2p-lookup -l pin -d 'Believe only this device\'s key for the URI from now on, and other pinned ones (for overlays of policy open)' -r
complete -c p2p-lookup -l overlay -d 'Overlay identifier, such as p2psip.org [env: P2PSIP_OVERLAY]' -r
complete -c p2p-lookup -l descriptor -d 'Descriptor of the overlay, if not the home\'s' -r -F
complete -c p2p-lookup -l peer -d 'Ask this member; repeat for several [env: P2PSIP_PEER]' -r
complete -c p2p-lookup -l socket -d 'Unix socket of the member on this machine [env: P2PSIP_SOCKET]' -r -F
complete -c p2p-lookup -l dns -d 'DNS server, ADDR or ADDR:PORT; repeat for several [env: P2PSIP_DNS]' -r
complete -c p2p-lookup -l timeout -d 'Seconds until the first answer, such as 2.5 [default: 5]' -r
complete -c p2p-lookup -l home -d 'Folder of keys and certificates [env: P2PSIP_HOME]' -r -F
complete -c p2p-lookup -l config -d 'Configuration file, instead of ./p2psip.toml and the user\'s' -r -F
complete -c p2p-lookup -l color -d 'Colour: auto, always or never; NO_COLOR means never' -r -f -a "auto\t'If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set'
always\t'Even into a file'
never\t'Not at all'"
complete -c p2p-lookup -l trace -d 'Walk, ask every storer, and show each request: whom, told of by whom, how long, what it holds, who disagrees'
complete -c p2p-lookup -s 4 -d 'Use IPv4 only'
complete -c p2p-lookup -s 6 -d 'Use IPv6 only'
complete -c p2p-lookup -l json -d 'Print JSON, one object a line'
complete -c p2p-lookup -l short -d 'Print bare values, one a line'
complete -c p2p-lookup -s q -l quiet -d 'Print results and errors only'
complete -c p2p-lookup -s v -l verbose -d 'Say what is going on; -vv and -vvv say more'
complete -c p2p-lookup -s h -l help -d 'Print help'
complete -c p2p-lookup -s V -l version -d 'Print version'
