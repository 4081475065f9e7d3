#!/bin/sh
# Fetches npm packages that speak HTTP, WebSocket, server-sent events and Redis into
# .cache/clients, for tests of what they do in a session. Which versions, and their
# checksums, is in internal/setup/clients. It never runs a package's own scripts.
# Where the registry cannot be reached, or Node.js is older than 20, it says so, and
# these tests are skipped.
set -eu
cd "$(dirname "$0")/../.."
want=internal/setup/clients/package-lock.json
cmp -s "$want" .cache/clients/package-lock.json && [ -e .cache/clients/node_modules/axios/package.json ] && exit 0
command -v npm >/dev/null && [ "$(node -p 'process.versions.node.split(".")[0] >= 20')" = true ] || { echo "clients.sh: no npm, or Node.js before 20: tests with npm's clients are skipped" >&2; exit 0; }
mkdir -p .cache
dir=$(mktemp -d .cache/clients.XXXXXX)
trap 'rm -rf "$dir"' EXIT
cp internal/setup/clients/package.json "$want" "$dir"
if (cd "$dir" && timeout 120 npm ci --ignore-scripts --no-audit --no-fund --fetch-retries 1 >log 2>&1); then
	rm -rf .cache/clients
	chmod 755 "$dir"
	mv "$dir" .cache/clients
else
	tail -n 3 "$dir/log" >&2
	echo "clients.sh: the npm registry did not give the clients: tests with them are skipped" >&2
fi
