#!/bin/sh
# Runs every fuzz target for a minute (FUZZTIME to change it).
set -eu
tags=${1:-}
go list -tags "$tags" ./... | while read -r pkg; do
	go test -tags "$tags" -list '^Fuzz' "$pkg" | grep '^Fuzz' | while read -r target; do
		echo "$pkg $target"
		go test -tags "$tags" -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-60s}" "$pkg" </dev/null
	done
done
