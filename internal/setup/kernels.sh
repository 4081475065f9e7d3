#!/bin/sh
# Unpacks Debian's cloud kernels (6.1 and 6.12 on Debian 12, 5.10 of Debian 11), for the tests that
# boot them, and prints where they are, as GUARD_TEST_KERNELS wants them. They are
# unpacked in .cache, never installed: the image, and beside it the module for
# overlayfs. Prints nothing where there is no apt-get or no network.
set -eu
cd "$(dirname "$0")/../.."
command -v apt-get >/dev/null && command -v qemu-system-x86_64 >/dev/null && [ "$(uname -m)" = x86_64 ] || exit 0
mkdir -p .cache/kernels
list=
# fetch PACKAGE SERIES: its .deb into this folder. apt drops root for downloads, and then cannot write here: let it be root.
fetch() {
	case $2 in
	5.10) # Debian 11's: by name, with the hash that Debian's signed index has for it
		/usr/lib/apt/apt-helper -o APT::Sandbox::User=root download-file "http://deb.debian.org/debian/pool/main/l/linux/$1" "$1" \
			SHA256:b1fb8d34c26105a2ba1271a3df868a9eea460657df98c77fd08822ef4908c9db ;;
	*) apt-get -o APT::Sandbox::User=root download "$1" ;;
	esac
}
for series in 5.10 6.1 6.12; do
	image=$(ls .cache/kernels/"$series"/boot/vmlinuz-* 2>/dev/null | tail -n 1 || true)
	if [ -z "$image" ] || [ ! -s ".cache/kernels/$series/boot/overlay.ko" ]; then
		if [ "$series" = 5.10 ]; then
			package=linux-image-5.10.0-32-cloud-amd64-unsigned_5.10.223-1_amd64.deb
		else
			[ -n "$(apt-cache search --names-only '^linux-image-.*cloud-amd64-unsigned$')" ] || apt-get update >&2 || true
			package=$(apt-cache search --names-only "^linux-image-$series[.].*cloud-amd64-unsigned\$" | cut -d' ' -f1 | sort -V | tail -n 1)
		fi
		[ -n "$package" ] || { echo "kernels.sh: no Linux $series in Debian's packages" >&2; continue; }
		dir=$(mktemp -d .cache/kernels/download.XXXXXX)
		if (cd "$dir" && fetch "$package" "$series" >&2) && dpkg -x "$dir"/*.deb "$dir/root" >&2; then
			overlay=$(find "$dir/root" -path '*/fs/overlayfs/overlay.ko*' | head -n 1)
			case "$overlay" in
			*.xz) xz -dc "$overlay" >"$dir/root/boot/overlay.ko" ;;
			*.ko) cp "$overlay" "$dir/root/boot/overlay.ko" ;;
			esac
			rm -rf ".cache/kernels/$series"
			mkdir ".cache/kernels/$series"
			mv "$dir/root/boot" ".cache/kernels/$series/boot"
			image=$(ls .cache/kernels/"$series"/boot/vmlinuz-* | tail -n 1)
		fi
		rm -rf "$dir"
	fi
	[ -z "$image" ] || list="$list${list:+:}$PWD/$image"
done
printf '%s' "$list"
