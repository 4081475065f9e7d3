#!/bin/sh
# Builds HashiCorp Vault for tests from its Go modules (internal/testutil/hashivault has the
# version and the checksums), and prints the program's path. It takes minutes and 1 GB of
# modules, once: it stays in the user's cache folder, by the version and by what is built.
set -eu
cd "$(dirname "$0")/../testutil/hashivault"
version=$(sed -n 's/^	github.com\/hashicorp\/vault v//p' go.mod)
of=$(cat go.mod go.sum main.go | sha256sum | cut -c1-12)
dir=${XDG_CACHE_HOME:-$HOME/.cache}/guard-test
program=$dir/vault-$version-$of
if [ ! -x "$program" ]; then
	mkdir -p "$dir"
	echo "vault.sh: building HashiCorp Vault $version into $program: this takes minutes, once" >&2
	# Without the clients of clouds and of databases that no test has.
	"${GO:-go}" build -trimpath -tags minimal -ldflags='-s -w' -o "$program.new.$$" . >&2
	mv "$program.new.$$" "$program"
	for old in "$dir"/vault-*; do
		[ "$old" = "$program" ] || rm -f "$old"
	done
fi
echo "$program"
