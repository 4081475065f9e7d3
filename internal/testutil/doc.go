// Package testutil is what guard's tests share: a canary and the search for it,
// the check that a test leaves nothing behind, an ordinary user, and real
// servers on loopback (PostgreSQL, HTTPS, git, a Secret Service), each owned by
// the test that starts it.
//
// A helper that needs a program that is not installed skips the test, naming
// the package that has it, unless GUARD_TEST_ALL is set: then it fails.
package testutil
