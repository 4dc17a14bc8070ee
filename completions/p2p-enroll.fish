# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_p2p_enroll_global_optspecs
    string join \n home= config= json short q/quiet v/verbose color= h/help V/version
end

function __fish_p2p_enroll_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_p2p_enroll_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_p2p_enroll_using_subcommand
    set -l cmd (__fish_p2p_enroll_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c p2p-enroll -n "__fish_p2p_enroll_needs_command" -l home -d 'Folder of keys and certificates [env: P2PSIP_HOME]' -r -F
complete -c p2p-enroll -n "__fish_p2p_enroll_needs_command" -l config -d 'Configuration file, instead of ./p2psip.toml and the user\'s' -r -F
complete -c p2p-enroll -n "__fish_p2p_enroll_needs_command" -l color -d 'Colour: auto, always or never; NO_COLOR means never' -r -f -a "auto\t'If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set'
always\t'Even into a file'
never\t'Not at all'"
complete -c p2p-enroll -n "__fish_p2p_enroll_needs_command" -l json -d 'Print JSON, one object a line'
complete -c p2p-enroll -n "__fish_p2p_enroll_needs_command" -l short -d 'Print bare values, one a line'
complete -c p2p-enroll -n "__fish_p2p_enroll_needs_command" -s q -l quiet -d 'Print results and errors only'
complete -c p2p-enroll -n "__fish_p2p_enroll_needs_command" -s v -l verbose -d 'Say what is going on; -vv and -vvv say more'
complete -c p2p-enroll -n "__fish_p2p_enroll_needs_command" -s h -l help -d 'Print help'
complete -c p2p-enroll -n "__fish_p2p_enroll_needs_command" -s V -l version -d 'Print version'
complete -c p2p-enroll -n "__fish_p2p_enroll_needs_command" -f -a "init" -d 'Make an overlay: its descriptor and its CA, in the home'
complete -c p2p-enroll -n "__fish_p2p_enroll_needs_command" -f -a "request" -d 'Ask for a certificate for users of this device, or for services of this peer'
complete -c p2p-enroll -n "__fish_p2p_enroll_needs_command" -f -a "issue" -d 'Issue certificates for requests, with the CA in the home'
complete -c p2p-enroll -n "__fish_p2p_enroll_needs_command" -f -a "install" -d 'Put certificates, a descriptor or a revocation list into the home'
complete -c p2p-enroll -n "__fish_p2p_enroll_needs_command" -f -a "show" -d 'Show what files and homes hold, and whether to trust it'
complete -c p2p-enroll -n "__fish_p2p_enroll_needs_command" -f -a "revoke" -d 'Take certificates back, with the CA in the home'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand init" -l replication -d 'Keep each record on N storers [default: 8]' -r
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand init" -l max-lifetime -d 'Let records hold for at most S seconds [default: 86400]' -r
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand init" -l home -d 'Folder of keys and certificates [env: P2PSIP_HOME]' -r -F
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand init" -l config -d 'Configuration file, instead of ./p2psip.toml and the user\'s' -r -F
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand init" -l color -d 'Colour: auto, always or never; NO_COLOR means never' -r -f -a "auto\t'If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set'
always\t'Even into a file'
never\t'Not at all'"
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand init" -l open -d 'Believe whoever signs; without it, only whom the CA certifies'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand init" -l local -d 'The overlay is purely local: its name need not be a domain name'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand init" -l json -d 'Print JSON, one object a line'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand init" -l short -d 'Print bare values, one a line'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand init" -s q -l quiet -d 'Print results and errors only'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand init" -s v -l verbose -d 'Say what is going on; -vv and -vvv say more'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand init" -s h -l help -d 'Print help'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand request" -l out -d 'Write the request here, instead of standard output' -r -F
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand request" -l home -d 'Folder of keys and certificates [env: P2PSIP_HOME]' -r -F
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand request" -l config -d 'Configuration file, instead of ./p2psip.toml and the user\'s' -r -F
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand request" -l color -d 'Colour: auto, always or never; NO_COLOR means never' -r -f -a "auto\t'If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set'
always\t'Even into a file'
never\t'Not at all'"
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand request" -l json -d 'Print JSON, one object a line'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand request" -l short -d 'Print bare values, one a line'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand request" -s q -l quiet -d 'Print results and errors only'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand request" -s v -l verbose -d 'Say what is going on; -vv and -vvv say more'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand request" -s h -l help -d 'Print help'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand issue" -l name -d 'Certify this name instead of those asked for; repeat for several' -r
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand issue" -l days -d 'Days for which the certificates are valid' -r
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand issue" -l out -d 'Write the certificates here, instead of standard output' -r -F
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand issue" -l into -d 'Install them in this home, with the overlay\'s descriptor' -r -F
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand issue" -l home -d 'Folder of keys and certificates [env: P2PSIP_HOME]' -r -F
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand issue" -l config -d 'Configuration file, instead of ./p2psip.toml and the user\'s' -r -F
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand issue" -l color -d 'Colour: auto, always or never; NO_COLOR means never' -r -f -a "auto\t'If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set'
always\t'Even into a file'
never\t'Not at all'"
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand issue" -l json -d 'Print JSON, one object a line'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand issue" -l short -d 'Print bare values, one a line'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand issue" -s q -l quiet -d 'Print results and errors only'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand issue" -s v -l verbose -d 'Say what is going on; -vv and -vvv say more'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand issue" -s h -l help -d 'Print help'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand install" -l home -d 'Folder of keys and certificates [env: P2PSIP_HOME]' -r -F
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand install" -l config -d 'Configuration file, instead of ./p2psip.toml and the user\'s' -r -F
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand install" -l color -d 'Colour: auto, always or never; NO_COLOR means never' -r -f -a "auto\t'If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set'
always\t'Even into a file'
never\t'Not at all'"
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand install" -l replace -d 'Take a descriptor that differs from the home\'s'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand install" -l json -d 'Print JSON, one object a line'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand install" -l short -d 'Print bare values, one a line'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand install" -s q -l quiet -d 'Print results and errors only'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand install" -s v -l verbose -d 'Say what is going on; -vv and -vvv say more'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand install" -s h -l help -d 'Print help'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand show" -l home -d 'Folder of keys and certificates [env: P2PSIP_HOME]' -r -F
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand show" -l config -d 'Configuration file, instead of ./p2psip.toml and the user\'s' -r -F
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand show" -l color -d 'Colour: auto, always or never; NO_COLOR means never' -r -f -a "auto\t'If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set'
always\t'Even into a file'
never\t'Not at all'"
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand show" -l json -d 'Print JSON, one object a line'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand show" -l short -d 'Print bare values, one a line'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand show" -s q -l quiet -d 'Print results and errors only'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand show" -s v -l verbose -d 'Say what is going on; -vv and -vvv say more'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand show" -s h -l help -d 'Print help'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand revoke" -l home -d 'Folder of keys and certificates [env: P2PSIP_HOME]' -r -F
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand revoke" -l config -d 'Configuration file, instead of ./p2psip.toml and the user\'s' -r -F
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand revoke" -l color -d 'Colour: auto, always or never; NO_COLOR means never' -r -f -a "auto\t'If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set'
always\t'Even into a file'
never\t'Not at all'"
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand revoke" -l json -d 'Print JSON, one object a line'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand revoke" -l short -d 'Print bare values, one a line'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand revoke" -s q -l quiet -d 'Print results and errors only'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand revoke" -s v -l verbose -d 'Say what is going on; -vv and -vvv say more'
complete -c p2p-enroll -n "__fish_p2p_enroll_using_subcommand revoke" -s h -l help -d 'Print help'
