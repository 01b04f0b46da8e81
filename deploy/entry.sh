#!/bin/sh
# The images' entry point: "ready" asks the running service whether it is; anything else are flags of serve.
set -eu
if [ "${1:-}" = ready ]; then
    exec python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/ready', timeout=2)"
fi
exec albert-serve serve --host 0.0.0.0 --port 8000 --model-repo "${ALBERT_SERVE_MODEL_REPO:-/models}" "$@"
