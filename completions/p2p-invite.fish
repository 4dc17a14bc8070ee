complete -c p2p-invite -l from -d 'Who calls [env: P2PSIP_AOR]' -r
complete -c p2p-invite -l as -d 'Where the caller is: overlay, or public [default: as the caller\'s name says]' -r -f -a "overlay\t'In the overlay'
public\t'In the public SIP network'"
complete -c p2p-invite -l proxy -d 'Send calls there first, HOST, HOST:PORT or a SIP URI such as sip:192.0.2.1;transport=tcp' -r
complete -c p2p-invite -l media -d 'Seconds to stay on the line [default: 2]' -r
complete -c p2p-invite -l ring-timeout -d 'Seconds that it may ring [default: 60]' -r
complete -c p2p-invite -l reinvite -d 'Refresh the session so many seconds after the answer' -r
complete -c p2p-invite -l count -d 'How many calls to place' -r
complete -c p2p-invite -l interval -d 'Seconds from one call to the next, whether that is over or not [default: one after the other]' -r
complete -c p2p-invite -l auth-user -d 'User name for those that ask for one [default: the caller\'s]' -r
complete -c p2p-invite -l password-file -d 'File whose first line is the password' -r -F
complete -c p2p-invite -l pcap -d 'Write the messages to a file that Wireshark and sngrep read' -r -F
complete -c p2p-invite -l overlay -d 'Overlay identifier, such as p2psip.org [env: P2PSIP_OVERLAY]' -r
complete -c p2p-invite -l descriptor -d 'Descriptor of the overlay, if not the home\'s' -r -F
complete -c p2p-invite -l peer -d 'Ask this member; repeat for several [env: P2PSIP_PEER]' -r
complete -c p2p-invite -l socket -d 'Unix socket of the member on this machine [env: P2PSIP_SOCKET]' -r -F
complete -c p2p-invite -l dns -d 'DNS server, ADDR or ADDR:PORT; repeat for several [env: P2PSIP_DNS]' -r
complete -c p2p-invite -l timeout -d 'Seconds until the first answer, such as 2.5 [default: 5]' -r
complete -c p2p-invite -l home -d 'Folder of keys and certificates [env: P2PSIP_HOME]' -r -F
complete -c p2p-invite -l config -d 'Configuration file, instead of ./p2psip.toml and the user\'s' -r -F
complete -c p2p-invite -l color -d 'Colour: auto, always or never; NO_COLOR means never' -r -f -a "auto\t'If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set'
always\t'Even into a file'
never\t'Not at all'"
complete -c p2p-invite -l ladder -d 'Draw the messages of each call, and the hops that they took'
complete -c p2p-invite -s 4 -d 'Use IPv4 only'
complete -c p2p-invite -s 6 -d 'Use IPv6 only'
complete -c p2p-invite -l json -d 'Print JSON, one object a line'
complete -c p2p-invite -l short -d 'Print bare values, one a line'
complete -c p2p-invite -s q -l quiet -d 'Print results and errors only'
complete -c p2p-invite -s v -l verbose -d 'Say what is going on; -vv and -vvv say more'
complete -c p2p-invite -s h -l help -d 'Print help'
complete -c p2p-invite -s V -l version -d 'Print version'
