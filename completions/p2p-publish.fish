# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_p2p_publish_global_optspecs
    string join \n server= overlay= descriptor= peer= socket= dns= timeout= 4 6 home= config= json short q/quiet v/verbose color= h/help V/version
end

function __fish_p2p_publish_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_p2p_publish_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_p2p_publish_using_subcommand
    set -l cmd (__fish_p2p_publish_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -l server -d 'Primary name server of the zone, ADDR or ADDR:PORT' -r
complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -l overlay -d 'Overlay identifier, such as p2psip.org [env: P2PSIP_OVERLAY]' -r
complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -l descriptor -d 'Descriptor of the overlay, if not the home\'s' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -l peer -d 'Ask this member; repeat for several [env: P2PSIP_PEER]' -r
complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -l socket -d 'Unix socket of the member on this machine [env: P2PSIP_SOCKET]' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -l dns -d 'DNS server, ADDR or ADDR:PORT; repeat for several [env: P2PSIP_DNS]' -r
complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -l timeout -d 'Seconds until the first answer, such as 2.5 [default: 5]' -r
complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -l home -d 'Folder of keys and certificates [env: P2PSIP_HOME]' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -l config -d 'Configuration file, instead of ./p2psip.toml and the user\'s' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -l color -d 'Colour: auto, always or never; NO_COLOR means never' -r -f -a "auto\t'If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set'
always\t'Even into a file'
never\t'Not at all'"
complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -s 4 -d 'Use IPv4 only'
complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -s 6 -d 'Use IPv6 only'
complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -l json -d 'Print JSON, one object a line'
complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -l short -d 'Print bare values, one a line'
complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -s q -l quiet -d 'Print results and errors only'
complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -s v -l verbose -d 'Say what is going on; -vv and -vvv say more'
complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -s h -l help -d 'Print help'
complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -s V -l version -d 'Print version'
complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -f -a "add" -d 'Publish a proxy peer, or renew and change what is published'
complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -f -a "remove" -d 'Take a proxy peer out of the DNS'
complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -f -a "list" -d 'Show the proxy peers of DNS and overlay side by side'
complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -f -a "sync" -d 'Make the DNS say what the overlay says'
complete -c p2p-publish -n "__fish_p2p_publish_needs_command" -f -a "export" -d 'Print lines for a zone that is written by hand: of one proxy peer, or of all that the overlay has'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -l host -d 'Its host name; one label is below the overlay identifier' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -l address -d 'Its address; repeat for several' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -l transport -d 'Its transport, udp, tcp or tls, or TRANSPORT:PORT; repeat for several [default: udp and tcp]. tls takes a certificate for the overlay identifier' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -l port -d 'Port of the transports that have none of their own [default: 5060, with tls 5061]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -l ttl -d 'Seconds for which caches may keep the records: at most 30, and half of the lease [default: as many]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -l lease -d 'Seconds for which the records stay without being renewed' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -l dnsaddr -d 'Where it can be dialled as a member, ending in /p2p/PEER; repeat for several' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -l key -d 'File with the TSIG key, as tsig-keygen writes it, of mode 0600' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -l server -d 'Primary name server of the zone, ADDR or ADDR:PORT' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -l overlay -d 'Overlay identifier, such as p2psip.org [env: P2PSIP_OVERLAY]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -l descriptor -d 'Descriptor of the overlay, if not the home\'s' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -l peer -d 'Ask this member; repeat for several [env: P2PSIP_PEER]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -l socket -d 'Unix socket of the member on this machine [env: P2PSIP_SOCKET]' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -l dns -d 'DNS server, ADDR or ADDR:PORT; repeat for several [env: P2PSIP_DNS]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -l timeout -d 'Seconds until the first answer, such as 2.5 [default: 5]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -l home -d 'Folder of keys and certificates [env: P2PSIP_HOME]' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -l config -d 'Configuration file, instead of ./p2psip.toml and the user\'s' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -l color -d 'Colour: auto, always or never; NO_COLOR means never' -r -f -a "auto\t'If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set'
always\t'Even into a file'
never\t'Not at all'"
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -l force -d 'Publish private addresses, too, and take over what is somebody else\'s'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -l dry-run -d 'Send nothing; print the script with which nsupdate would do it'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -s 4 -d 'Use IPv4 only'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -s 6 -d 'Use IPv6 only'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -l json -d 'Print JSON, one object a line'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -l short -d 'Print bare values, one a line'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -s q -l quiet -d 'Print results and errors only'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -s v -l verbose -d 'Say what is going on; -vv and -vvv say more'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand add" -s h -l help -d 'Print help'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand remove" -l host -d 'Its host name; one label is below the overlay identifier' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand remove" -l key -d 'File with the TSIG key, as tsig-keygen writes it, of mode 0600' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand remove" -l server -d 'Primary name server of the zone, ADDR or ADDR:PORT' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand remove" -l overlay -d 'Overlay identifier, such as p2psip.org [env: P2PSIP_OVERLAY]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand remove" -l descriptor -d 'Descriptor of the overlay, if not the home\'s' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand remove" -l peer -d 'Ask this member; repeat for several [env: P2PSIP_PEER]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand remove" -l socket -d 'Unix socket of the member on this machine [env: P2PSIP_SOCKET]' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand remove" -l dns -d 'DNS server, ADDR or ADDR:PORT; repeat for several [env: P2PSIP_DNS]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand remove" -l timeout -d 'Seconds until the first answer, such as 2.5 [default: 5]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand remove" -l home -d 'Folder of keys and certificates [env: P2PSIP_HOME]' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand remove" -l config -d 'Configuration file, instead of ./p2psip.toml and the user\'s' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand remove" -l color -d 'Colour: auto, always or never; NO_COLOR means never' -r -f -a "auto\t'If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set'
always\t'Even into a file'
never\t'Not at all'"
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand remove" -l force -d 'Publish private addresses, too, and take over what is somebody else\'s'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand remove" -l dry-run -d 'Send nothing; print the script with which nsupdate would do it'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand remove" -s 4 -d 'Use IPv4 only'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand remove" -s 6 -d 'Use IPv6 only'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand remove" -l json -d 'Print JSON, one object a line'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand remove" -l short -d 'Print bare values, one a line'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand remove" -s q -l quiet -d 'Print results and errors only'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand remove" -s v -l verbose -d 'Say what is going on; -vv and -vvv say more'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand remove" -s h -l help -d 'Print help'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand list" -l server -d 'Primary name server of the zone, ADDR or ADDR:PORT' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand list" -l overlay -d 'Overlay identifier, such as p2psip.org [env: P2PSIP_OVERLAY]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand list" -l descriptor -d 'Descriptor of the overlay, if not the home\'s' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand list" -l peer -d 'Ask this member; repeat for several [env: P2PSIP_PEER]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand list" -l socket -d 'Unix socket of the member on this machine [env: P2PSIP_SOCKET]' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand list" -l dns -d 'DNS server, ADDR or ADDR:PORT; repeat for several [env: P2PSIP_DNS]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand list" -l timeout -d 'Seconds until the first answer, such as 2.5 [default: 5]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand list" -l home -d 'Folder of keys and certificates [env: P2PSIP_HOME]' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand list" -l config -d 'Configuration file, instead of ./p2psip.toml and the user\'s' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand list" -l color -d 'Colour: auto, always or never; NO_COLOR means never' -r -f -a "auto\t'If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set'
always\t'Even into a file'
never\t'Not at all'"
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand list" -l check -d 'Exit 1 if they differ'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand list" -l dns-only -d 'Do not ask the overlay'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand list" -l pending -d 'Show instead who waits at the gatekeeper on this machine, and why'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand list" -s 4 -d 'Use IPv4 only'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand list" -s 6 -d 'Use IPv6 only'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand list" -l json -d 'Print JSON, one object a line'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand list" -l short -d 'Print bare values, one a line'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand list" -s q -l quiet -d 'Print results and errors only'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand list" -s v -l verbose -d 'Say what is going on; -vv and -vvv say more'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand list" -s h -l help -d 'Print help'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand sync" -l lease -d 'Seconds for which the records stay without being renewed' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand sync" -l key -d 'File with the TSIG key, as tsig-keygen writes it, of mode 0600' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand sync" -l server -d 'Primary name server of the zone, ADDR or ADDR:PORT' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand sync" -l overlay -d 'Overlay identifier, such as p2psip.org [env: P2PSIP_OVERLAY]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand sync" -l descriptor -d 'Descriptor of the overlay, if not the home\'s' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand sync" -l peer -d 'Ask this member; repeat for several [env: P2PSIP_PEER]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand sync" -l socket -d 'Unix socket of the member on this machine [env: P2PSIP_SOCKET]' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand sync" -l dns -d 'DNS server, ADDR or ADDR:PORT; repeat for several [env: P2PSIP_DNS]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand sync" -l timeout -d 'Seconds until the first answer, such as 2.5 [default: 5]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand sync" -l home -d 'Folder of keys and certificates [env: P2PSIP_HOME]' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand sync" -l config -d 'Configuration file, instead of ./p2psip.toml and the user\'s' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand sync" -l color -d 'Colour: auto, always or never; NO_COLOR means never' -r -f -a "auto\t'If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set'
always\t'Even into a file'
never\t'Not at all'"
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand sync" -l dns-only -d 'Do not ask the overlay: only take out what has a lease that is over'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand sync" -l force -d 'Publish private addresses, too, and take over what is somebody else\'s'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand sync" -l dry-run -d 'Send nothing; print the script with which nsupdate would do it'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand sync" -s 4 -d 'Use IPv4 only'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand sync" -s 6 -d 'Use IPv6 only'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand sync" -l json -d 'Print JSON, one object a line'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand sync" -l short -d 'Print bare values, one a line'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand sync" -s q -l quiet -d 'Print results and errors only'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand sync" -s v -l verbose -d 'Say what is going on; -vv and -vvv say more'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand sync" -s h -l help -d 'Print help'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -l host -d 'Its host name; one label is below the overlay identifier' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -l address -d 'Its address; repeat for several' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -l transport -d 'Its transport, udp, tcp or tls, or TRANSPORT:PORT; repeat for several [default: udp and tcp]. tls takes a certificate for the overlay identifier' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -l port -d 'Port of the transports that have none of their own [default: 5060, with tls 5061]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -l ttl -d 'Seconds for which caches may keep the records: at most 30, and half of the lease [default: as many]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -l lease -d 'Seconds for which the records stay without being renewed' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -l dnsaddr -d 'Where it can be dialled as a member, ending in /p2p/PEER; repeat for several' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -l server -d 'Primary name server of the zone, ADDR or ADDR:PORT' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -l overlay -d 'Overlay identifier, such as p2psip.org [env: P2PSIP_OVERLAY]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -l descriptor -d 'Descriptor of the overlay, if not the home\'s' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -l peer -d 'Ask this member; repeat for several [env: P2PSIP_PEER]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -l socket -d 'Unix socket of the member on this machine [env: P2PSIP_SOCKET]' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -l dns -d 'DNS server, ADDR or ADDR:PORT; repeat for several [env: P2PSIP_DNS]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -l timeout -d 'Seconds until the first answer, such as 2.5 [default: 5]' -r
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -l home -d 'Folder of keys and certificates [env: P2PSIP_HOME]' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -l config -d 'Configuration file, instead of ./p2psip.toml and the user\'s' -r -F
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -l color -d 'Colour: auto, always or never; NO_COLOR means never' -r -f -a "auto\t'If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set'
always\t'Even into a file'
never\t'Not at all'"
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -l force -d 'Print what nobody outside can reach, too'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -s 4 -d 'Use IPv4 only'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -s 6 -d 'Use IPv6 only'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -l json -d 'Print JSON, one object a line'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -l short -d 'Print bare values, one a line'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -s q -l quiet -d 'Print results and errors only'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -s v -l verbose -d 'Say what is going on; -vv and -vvv say more'
complete -c p2p-publish -n "__fish_p2p_publish_using_subcommand export" -s h -l help -d 'Print help'
