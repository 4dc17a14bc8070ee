complete -c p2p-join -l listen -d 'Listen here; repeat for several. Port 0 is any free one' -r
complete -c p2p-join -l proxy -d 'Be a proxy peer: SIP for the public network over UDP and TCP' -r
complete -c p2p-join -l tls -d 'Be one over TLS too, on this address' -r
complete -c p2p-join -l tls-cert -d 'The TLS certificate, PEM; its names should include the overlay\'s' -r -F
complete -c p2p-join -l tls-key -d 'The key of the TLS certificate, PEM' -r -F
complete -c p2p-join -l publish-address -d 'Enter it at this address, if that is another one than it listens on; repeat for several' -r
complete -c p2p-join -l publish-key -d 'Enter it without a gatekeeper, by this TSIG key of the zone (a file as tsig-keygen writes it)' -r -F
complete -c p2p-join -l publish-server -d 'The zone\'s primary name server, ADDR or ADDR:PORT' -r
complete -c p2p-join -l gatekeeper -d 'Be a gatekeeper: enter other proxy peers into the DNS, as this file says' -r -F
complete -c p2p-join -l adapter -d 'Serve ordinary SIP phones on this address, over UDP and TCP' -r
complete -c p2p-join -l phones -d 'The phones that may register; --print-phones shows such a file' -r -F
complete -c p2p-join -l metrics -d 'Serve metrics for Prometheus on http://ADDR/metrics' -r
complete -c p2p-join -l circuit-seconds -d 'As a relay for members behind NATs, end a circuit after so many seconds [default: 7200]' -r
complete -c p2p-join -l circuit-octets -d 'As a relay, end a circuit that has carried so many octets [default: 33554432]' -r
complete -c p2p-join -l log-format -d 'Log on standard error as text, or as JSON, one object a line' -r -f -a "text\t'For people'
json\t'One object a line, for programs'"
complete -c p2p-join -l overlay -d 'Overlay identifier, such as p2psip.org [env: P2PSIP_OVERLAY]' -r
complete -c p2p-join -l descriptor -d 'Descriptor of the overlay, if not the home\'s' -r -F
complete -c p2p-join -l peer -d 'Ask this member; repeat for several [env: P2PSIP_PEER]' -r
complete -c p2p-join -l socket -d 'Unix socket of the member on this machine [env: P2PSIP_SOCKET]' -r -F
complete -c p2p-join -l dns -d 'DNS server, ADDR or ADDR:PORT; repeat for several [env: P2PSIP_DNS]' -r
complete -c p2p-join -l timeout -d 'Seconds until the first answer, such as 2.5 [default: 5]' -r
complete -c p2p-join -l home -d 'Folder of keys and certificates [env: P2PSIP_HOME]' -r -F
complete -c p2p-join -l config -d 'Configuration file, instead of ./p2psip.toml and the user\'s' -r -F
complete -c p2p-join -l color -d 'Colour: auto, always or never; NO_COLOR means never' -r -f -a "auto\t'If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set'
always\t'Even into a file'
never\t'Not at all'"
complete -c p2p-join -l local -d 'The overlay is purely local: its name need not be a domain name, and it has no proxy peers'
complete -c p2p-join -l no-publish -d 'Do not ask a gatekeeper to enter this proxy peer into the DNS'
complete -c p2p-join -l publish-force -d 'Enter it although it is behind a NAT, which is not recommended'
complete -c p2p-join -l mdns -d 'Announce the member on the local network, and find others there (mDNS)'
complete -c p2p-join -l print-config -d 'Print a configuration file with every key explained, and end'
complete -c p2p-join -l print-gatekeeper -d 'Print a gatekeeper\'s file with every key explained, and end'
complete -c p2p-join -l print-phones -d 'Print a file of phones with every key explained, and end'
complete -c p2p-join -s 4 -d 'Use IPv4 only'
complete -c p2p-join -s 6 -d 'Use IPv6 only'
complete -c p2p-join -l json -d 'Print JSON, one object a line'
complete -c p2p-join -l short -d 'Print bare values, one a line'
complete -c p2p-join -s q -l quiet -d 'Print results and errors only'
complete -c p2p-join -s v -l verbose -d 'Say what is going on; -vv and -vvv say more'
complete -c p2p-join -s h -l help -d 'Print help (see more with \'--help\')'
complete -c p2p-join -s V -l version -d 'Print version'
