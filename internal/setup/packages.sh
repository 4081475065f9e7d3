#!/bin/sh
# Installs the Debian packages that are missing for build, test or generate.
# Nothing is done where everything is there. Without root it says what to install.
set -eu

build="gcc libc6-dev pkg-config libhyperscan-dev"
test="$build mariadb-server mariadb-client python3-pymysql python3-psycopg2 qemu-system-x86 xz-utils git curl openssl python3 postgresql dbus gnome-keyring libsecret-tools procps iproute2 tmux less vim-tiny vim htop wget openjdk-17-jdk-headless python3-requests python3-httpx python3-websockets python3-h2 nodejs npm python3-pip gh git-lfs xxd bsdextrautils awscli python3-boto3 python3-google-auth rclone restic s3cmd zip zstd redis-server redis-tools python3-redis python3-aiosmtpd dovecot-imapd swaks python3-pymongo openssh-server openssh-client rsync dropbear-bin kubernetes-client strace"
generate="$build clang llvm libbpf-dev"

case "${1:-}" in
build) want=$build ;;
test) want=$test ;;
generate) want=$generate ;;
*) echo "usage: packages.sh build|test|generate" >&2; exit 2 ;;
esac

command -v go >/dev/null || { echo "Go 1.26 or newer is needed: https://go.dev/dl/" >&2; exit 1; }
command -v dpkg-query >/dev/null || exit 0 # not Debian: the pure Go engine builds everywhere

missing=
for p in $want; do
	[ "$p" = nodejs ] && command -v node >/dev/null && continue
	[ "$p" = npm ] && command -v npm >/dev/null && continue
	[ "$p" = kubernetes-client ] && command -v kubectl >/dev/null && continue
	case "$(dpkg-query -W -f '${Status}' "$p" 2>/dev/null)" in
	*"ok installed"*) ;;
	*) missing="$missing $p" ;;
	esac
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "missing Debian packages; install them with: sudo apt-get install$missing" >&2
	[ "${1}" = build ] && exit 0 # the pure Go engine is built instead
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
# A server that the package starts by itself would be left behind: tests start their own.
policy=/usr/sbin/policy-rc.d
made=
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	made=1
fi
trap '[ -z "$made" ] || rm -f "$policy"' EXIT
apt-get install -y --no-install-recommends $missing >/tmp/guard-apt.log 2>&1 ||
	{ apt-get update >/tmp/guard-apt.log 2>&1 && apt-get install -y --no-install-recommends $missing >>/tmp/guard-apt.log 2>&1; } ||
	{ cat /tmp/guard-apt.log >&2; exit 1; }
rm -f /tmp/guard-apt.log
