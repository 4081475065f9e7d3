// Package versitygw holds the version of an S3 server for tests. It is a module of its
// own, so that none of it is in guard; internal/setup/s3.sh builds it.
package versitygw
