# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_p2p_lab_global_optspecs
    string join \n peers= quic folder= json short q/quiet v/verbose color= h/help V/version
end

function __fish_p2p_lab_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_p2p_lab_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_p2p_lab_using_subcommand
    set -l cmd (__fish_p2p_lab_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c p2p-lab -n "__fish_p2p_lab_needs_command" -l peers -d 'Members of the overlay' -r
complete -c p2p-lab -n "__fish_p2p_lab_needs_command" -l folder -d 'Keep the homes in this folder instead of a temporary one' -r -F
complete -c p2p-lab -n "__fish_p2p_lab_needs_command" -l color -d 'Colour: auto, always or never; NO_COLOR means never' -r -f -a "auto\t'If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set'
always\t'Even into a file'
never\t'Not at all'"
complete -c p2p-lab -n "__fish_p2p_lab_needs_command" -l quic -d 'Let members speak QUIC as well as TCP'
complete -c p2p-lab -n "__fish_p2p_lab_needs_command" -l json -d 'Print JSON, one object a line'
complete -c p2p-lab -n "__fish_p2p_lab_needs_command" -l short -d 'Print bare values, one a line'
complete -c p2p-lab -n "__fish_p2p_lab_needs_command" -s q -l quiet -d 'Print results and errors only'
complete -c p2p-lab -n "__fish_p2p_lab_needs_command" -s v -l verbose -d 'Say what is going on; -vv and -vvv say more'
complete -c p2p-lab -n "__fish_p2p_lab_needs_command" -s h -l help -d 'Print help'
complete -c p2p-lab -n "__fish_p2p_lab_needs_command" -s V -l version -d 'Print version'
complete -c p2p-lab -n "__fish_p2p_lab_needs_command" -f -a "run" -d 'Play the figures, register users, look everything up, show it, and end (the default)'
complete -c p2p-lab -n "__fish_p2p_lab_needs_command" -f -a "up" -d 'Print `export NAME=value` lines and stay until SIGTERM'
complete -c p2p-lab -n "__fish_p2p_lab_using_subcommand run" -l peers -d 'Members of the overlay' -r
complete -c p2p-lab -n "__fish_p2p_lab_using_subcommand run" -l folder -d 'Keep the homes in this folder instead of a temporary one' -r -F
complete -c p2p-lab -n "__fish_p2p_lab_using_subcommand run" -l color -d 'Colour: auto, always or never; NO_COLOR means never' -r -f -a "auto\t'If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set'
always\t'Even into a file'
never\t'Not at all'"
complete -c p2p-lab -n "__fish_p2p_lab_using_subcommand run" -l quic -d 'Let members speak QUIC as well as TCP'
complete -c p2p-lab -n "__fish_p2p_lab_using_subcommand run" -l json -d 'Print JSON, one object a line'
complete -c p2p-lab -n "__fish_p2p_lab_using_subcommand run" -l short -d 'Print bare values, one a line'
complete -c p2p-lab -n "__fish_p2p_lab_using_subcommand run" -s q -l quiet -d 'Print results and errors only'
complete -c p2p-lab -n "__fish_p2p_lab_using_subcommand run" -s v -l verbose -d 'Say what is going on; -vv and -vvv say more'
complete -c p2p-lab -n "__fish_p2p_lab_using_subcommand run" -s h -l help -d 'Print help'
complete -c p2p-lab -n "__fish_p2p_lab_using_subcommand up" -l peers -d 'Members of the overlay' -r
complete -c p2p-lab -n "__fish_p2p_lab_using_subcommand up" -l folder -d 'Keep the homes in this folder instead of a temporary one' -r -F
complete -c p2p-lab -n "__fish_p2p_lab_using_subcommand up" -l color -d 'Colour: auto, always or never; NO_COLOR means never' -r -f -a "auto\t'If a terminal reads it, and neither NO_COLOR nor TERM=dumb is set'
always\t'Even into a file'
never\t'Not at all'"
complete -c p2p-lab -n "__fish_p2p_lab_using_subcommand up" -l quic -d 'Let members speak QUIC as well as TCP'
complete -c p2p-lab -n "__fish_p2p_lab_using_subcommand up" -l json -d 'Print JSON, one object a line'
complete -c p2p-lab -n "__fish_p2p_lab_using_subcommand up" -l short -d 'Print bare values, one a line'
complete -c p2p-lab -n "__fish_p2p_lab_using_subcommand up" -s q -l quiet -d 'Print results and errors only'
complete -c p2p-lab -n "__fish_p2p_lab_using_subcommand up" -s v -l verbose -d 'Say what is going on; -vv and -vvv say more'
complete -c p2p-lab -n "__fish_p2p_lab_using_subcommand up" -s h -l help -d 'Print help'
