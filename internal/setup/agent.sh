#!/bin/sh
# Fetches an AI agent with a full terminal interface into .cache/agent, for the
# test that compares its screen with and without guard. Which version, and its
# checksum, is in internal/setup/agent. It never runs a package's own scripts.
# Where the registry cannot be reached, or Node.js is older than 20, it says so,
# and the test is skipped.
set -eu
cd "$(dirname "$0")/../.."
want=internal/setup/agent/package-lock.json
cmp -s "$want" .cache/agent/package-lock.json && [ -e .cache/agent/node_modules/.bin/gemini ] && exit 0
command -v npm >/dev/null && [ "$(node -p 'process.versions.node.split(".")[0] >= 20')" = true ] || { echo "agent.sh: no npm, or Node.js before 20: the test with an AI agent's screen is skipped" >&2; exit 0; }
mkdir -p .cache
dir=$(mktemp -d .cache/agent.XXXXXX)
trap 'rm -rf "$dir"' EXIT
cp internal/setup/agent/package.json "$want" "$dir"
if (cd "$dir" && timeout 240 npm ci --ignore-scripts --omit=optional --no-audit --no-fund --fetch-retries 1 >log 2>&1); then
	rm -rf .cache/agent
	chmod 755 "$dir"
	mv "$dir" .cache/agent
else
	tail -n 3 "$dir/log" >&2
	echo "agent.sh: the npm registry did not give the agent: the test with its screen is skipped" >&2
fi
