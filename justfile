# Every chore. `just ci` is what CI runs.

_default:
    @just --list

# Everything a change must pass.
ci:
    cargo xtask ci

# All tests.
test:
    cargo xtask test

# Format the code.
fmt:
    cargo fmt --all

# Clippy with warnings denied.
lint:
    cargo xtask lint

# Check the documents against the code.
docs:
    cargo xtask docs

# The API documentation, in a browser.
doc:
    cargo doc --workspace --no-deps --open

# The whole path in one command: fill, rebuild under traffic, flip, roll back, flip again, clean up.
demo *ARGS:
    cargo demo {{ARGS}}

# Speed, as ratios to floors measured in the same run; the table goes to docs/performance.md.
bench *ARGS:
    cargo run --release --package dacapo-bench -- {{ARGS}}

# The simulator: `just sim --seeds 50`, `just sim --seed 37`, `just sim --planted`.
sim *ARGS:
    cargo xtask sim {{ARGS}}

# Clusters of real processes, killed, stopped and cut off: the long forms.
chaos *ARGS:
    cargo xtask chaos {{ARGS}}

# Licences, bans and sources of dependencies.
deny:
    cargo deny check licenses bans sources
