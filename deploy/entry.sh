#!/bin/sh
# The images' entry point: "ready" asks the running service whether it is; a command of albert-serve is that command,
# such as "models" or "verify"; anything else are flags of serve.
set -eu
case "${1:-}" in
ready) exec python -I -S /usr/local/lib/ready.py ;;
serve | models | key | convert | verify | export | evaluate | compare | robustness | bias | batch | bench | train | pretrain | split | new-model | shrink-bert | share-layer | completion)
    exec albert-serve "$@" ;;
*) exec albert-serve serve "$@" ;;
esac
