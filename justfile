# Recipes for daily work; `just` lists them. Everything here is a short name for a plain command.

_list:
    @just --list --unsorted

# All checks and tests; --no-interop leaves real counterparts out
test *arguments:
    scripts/test {{arguments}}

# Unit and integration tests only
unit *filter:
    cargo test --workspace --lib --test all {{filter}}

# Format, then lint
lint:
    cargo fmt --all
    cargo clippy --workspace --all-targets -- -D warnings

# Rewrite what is generated from the command line: manuals, completions, snapshots of help, shapes of JSON
generate:
    cargo run --quiet --example generate -- --write
    UPDATE_SNAPSHOTS=1 cargo test --quiet --test all

# Watch an overlay at work on loopback
lab *arguments:
    cargo run --quiet --bin p2p-lab -- {{arguments}}

# Install the tools, with manuals and completions, below a prefix
install prefix="~/.local":
    cargo install --locked --path . --root {{prefix}}
    install -Dm644 -t {{prefix}}/share/man/man1 man/*.1
    install -Dm644 -t {{prefix}}/share/fish/vendor_completions.d completions/*.fish
    install -Dm644 -t {{prefix}}/share/zsh/site-functions completions/_*
    for tool in completions/*.bash; do install -Dm644 $tool {{prefix}}/share/bash-completion/completions/$(basename $tool .bash); done
