#!/bin/sh
# Builds versitygw, an S3 server for tests, from its Go modules (internal/testutil/versitygw
# has the version and the checksums) into .cache: under a minute, once. Where the
# modules cannot be had it says so, and these tests are skipped.
set -eu
cd "$(dirname "$0")/../.."
want=internal/testutil/versitygw/go.sum
cmp -s "$want" .cache/versitygw.sum && [ -x .cache/versitygw ] && exit 0
mkdir -p .cache
if (cd internal/testutil/versitygw && CGO_ENABLED=0 timeout 600 "${GO:-go}" build -trimpath -o ../../../.cache/versitygw.new github.com/versity/versitygw/cmd/versitygw >../../../.cache/versitygw.log 2>&1); then
	mv .cache/versitygw.new .cache/versitygw
	cp "$want" .cache/versitygw.sum
	rm -f .cache/versitygw.log
else
	tail -n 3 .cache/versitygw.log >&2
	echo "s3.sh: the S3 server could not be built: tests with it are skipped" >&2
fi
