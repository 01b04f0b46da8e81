#!/usr/bin/env bash
# make images-check: builds the images with the Docker engine that is there, runs them as compose does, asks, stops.
#   TARGETS="cpu gpu"   what is built; the GPU image is some gigabytes, and is built only, not run
#   PORT=8765           the first of the ports on this machine that it takes
# Exit status: 0 where every line says ok.
set -uo pipefail
cd "$(dirname "$0")/.."
export PORT=${PORT:-8765} COMPOSE_PROJECT_NAME=albert-check
failed=0
work=$(mktemp -d)
leave() { docker compose --profile cpu down -t 5 >/dev/null 2>&1; docker rm -f albert-check-hard >/dev/null 2>&1; rm -rf "$work"; }
trap leave EXIT
check() { # NAME COMMAND...
    local name=$1; shift
    if "$@" >"$work/log" 2>&1; then echo "ok    $name"
    else failed=$((failed + 1)); echo "FAIL  $name: $(tail -c 300 "$work/log" | tr '\n' ' ')"; fi
}
until_ready() { for _ in $(seq 600); do curl -fsS -o /dev/null "127.0.0.1:$1/health/ready" && return; sleep 0.2; done; return 1; }
answers() { # TEXT CURL-ARGUMENTS...
    local text=$1; shift; curl -sS -m 60 -o "$work/answer" "$@" && grep -q -- "$text" "$work/answer"; }
ends() { # CONTAINER PORT: what runs is answered, exit 0
    local texts; texts=$(printf '"%s",' $(seq 400) | sed 's/,$//')
    curl -sS -m 90 -o /dev/null -w '%{http_code}' "127.0.0.1:$2/classify" -d "{\"inputs\": [$texts]}" >"$work/code" & local asked=$!
    sleep 0.2; docker stop -t 45 "$1"; wait "$asked"
    echo "request $(cat "$work/code"), exit $(docker inspect "$1" --format '{{.State.ExitCode}}')"
    [ "$(cat "$work/code")" = 200 ] && [ "$(docker inspect "$1" --format '{{.State.ExitCode}}')" = 0 ]; }
refuses() { # TEXT FLAGS...
    local text=$1 said; shift; said=$(docker run --rm --network none albert-serve:cpu "$@" 2>&1) && return 1
    echo "$said"; grep -q -- "$text" <<<"$said"; }

docker info >/dev/null 2>&1 || { echo "no Docker engine answers: start one, or set DOCKER_HOST"; exit 1; }
check "compose's file, with and without the profile" sh -c 'docker compose config -q && docker compose --profile cpu config -q'
for target in ${TARGETS:-cpu}; do check "build $target" docker compose build "$([ "$target" = gpu ] && echo albert-serve || echo cpu)"; done
check "up" docker compose up -d cpu
check "ready" until_ready "$PORT"
check "/classify" answers '"label":"positive"' "127.0.0.1:$PORT/classify" -d '{"inputs": "a gorgeous, witty, seductive movie"}'
check "/qa" answers parameters "127.0.0.1:$PORT/qa" -d '{"question": "What does ALBERT share?", "context": "ALBERT shares the parameters of all its layers."}'
check "/v2" answers '"ready":true' "127.0.0.1:$PORT/v2/health/ready"
check "/metrics" answers 'route="/qa",status="200"' "127.0.0.1:$PORT/metrics"
check "the probe" docker compose exec cpu entry ready
check "models, key and batch through the entry point" docker compose exec cpu sh -c 'entry models --model-repo /models && entry key x && entry batch --help'
check "a numeric user, nothing to write but /tmp" docker compose exec cpu sh -c 'test "$(id -u)" = 10001 && touch /tmp/x && ! touch /models/x'
check "a stop lets a request end, exit 0" ends "$(docker compose ps -q cpu)" "$PORT"
docker run -d --name albert-check-hard --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
    -p "127.0.0.1:$((PORT + 1)):9001" albert-serve:cpu --workers 2 --port 9001 >/dev/null
check "hardened, two workers, another port: ready" until_ready $((PORT + 1))
check "its probe follows the port" docker exec albert-check-hard entry ready
check "its stop lets a request end, exit 0" ends albert-check-hard $((PORT + 1))
check "without a GPU it says so" refuses 'does not work' --device cuda
check "without a model it says so" refuses 'holds no model' --model-repo /tmp
[ "$failed" = 0 ] && echo "all ok" || { echo "$failed failed"; exit 1; }
