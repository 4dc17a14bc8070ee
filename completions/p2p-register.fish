complete -c p2p-register -l contact -d 'Where the user can be reached; repeat for several. Without it: the member on this machine' -r
complete -c p2p-register -l expires -d 'Seconds for which it holds; the overlay sets the default and the maximum' -r
complete -c p2p-register -l public -d 'Register the user\'s overlay URL there, through a proxy peer, as what this address is bound to' -r
complete -c p2p-register -l auth-user -d 'User name for the registrar [default: that of the address]' -r
complete -c p2p-register -l password-file -d 'File whose first line is the password' -r -F
complete -c p2p-register -l password-fd -d 'File descriptor whose first line is the password' -r
complete -c p2p-register -l overlay -d 'Overlay identifier, such as p2psip.org [env: P2PSIP_OVERLAY]' -r
complete -c p2p-register -l descriptor -d 'Descriptor of the overlay, if not the home\'s' -r -F
complete -c p2p-register -l peer -d 'Ask this member; repeat for several [env: P2PSIP_PEER]' -r
complete -c p2p-register -l socket -d 'Unix socket of the member on this machine [env: P2PSIP_SOCKET]' -r -F
complete -c p2p-register -l dns -d 'DNS server, ADDR or ADDR:PORT; repeat for several [env: P2PSIP_DNS]' -r
complete -c p2p-register -l timeout -d 'Seconds until the first answer, such as 2.5 [default: 5]' -r
complete -c p2p-register -l home -d 'Folder of keys and certificates [env: P2PSIP_HOME]' -r -F
complete -c p2p-register -l config -d 'Configuration file, instead of ./p2psip.toml and the user\'s' -r -F
complete -c p2p-register -l color -d 'Colour: auto, always or never; NO_COLOR means never' -r -f -a "auto\t'If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set'
always\t'Even into a file'
never\t'Not at all'"
complete -c p2p-register -l stay -d 'Stay and refresh until Ctrl-C or SIGTERM; be a member meanwhile if there is none on this machine'
complete -c p2p-register -l remove -d 'Remove what this device registered'
complete -c p2p-register -s 4 -d 'Use IPv4 only'
complete -c p2p-register -s 6 -d 'Use IPv6 only'
complete -c p2p-register -l json -d 'Print JSON, one object a line'
complete -c p2p-register -l short -d 'Print bare values, one a line'
complete -c p2p-register -s q -l quiet -d 'Print results and errors only'
complete -c p2p-register -s v -l verbose -d 'Say what is going on; -vv and -vvv say more'
complete -c p2p-register -s h -l help -d 'Print help'
complete -c p2p-register -s V -l version -d 'Print version'
