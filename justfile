# The front door. What is checked is written once, in .ci/run; these recipes call it.

# The list of recipes.
default:
    @just --list

# What the compiler and the house have to say: tidy, format, clippy, docs.
check:
    .ci/run check

# The tests, by the README's own command.
test:
    .ci/run test

# The tests with many more random cases, and a long demo.
deep cases="4096" rounds="100":
    PROPTEST_CASES={{cases}} .ci/run test
    cargo run --locked --release -- demo --rounds {{rounds}} --seconds 2

# The throughput program: `just bench update --threads 8 --control`.
bench *arguments:
    cargo run --locked --release -p lockstone-benches -- {{arguments}}

# Kill the engine again and again, and count what it kept: `just demo --rounds 5`.
demo *arguments:
    cargo run --locked --release -- demo {{arguments}}

# Everything that must pass before a change lands.
ci:
    .ci/run
