//go:build linux

package main

import (
	"encoding/base64"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"guard/internal/testutil"
)

// registry NAME VAR: private packages at https://NAME for the token in $VAR.
// $REG_PORT is its port. $AUTH is "user:" and the token in base64, as clients keep
// it, and looked for as the canaries are; $GOPATHS has a folder of the go command.
func cmdRegistry(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "registry NAME VAR")
	s := stateOf(ts)
	tok := ts.Getenv(args[1])
	s.reg = testutil.RegistryServer(s.t.T, authority(ts, s), tok, args[0])
	ts.Setenv("REG_PORT", portOf(s.reg.URL))
	auth := base64.StdEncoding.EncodeToString([]byte("user:" + tok))
	s.t.plant("AUTH", auth)
	ts.Setenv("AUTH", auth)
	if p, err := exec.LookPath("go"); err == nil {
		ts.Setenv("GODIR", filepath.Dir(p))
	}
}

// registrysaw KIND VAR: requests under KIND came, and all had $VAR for the token.
func cmdRegistrySaw(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "registrysaw KIND VAR")
	seen := stateOf(ts).reg.Seen(args[0])
	if len(seen) == 0 {
		ts.Fatalf("no token came for %s", args[0])
	}
	for i, tok := range seen {
		if tok != ts.Getenv(args[1]) {
			ts.Fatalf("token %d of %d for %s is not $%s", i+1, len(seen), args[0], args[1])
		}
	}
}

// [!] registrygot PATH PATTERN: the last body at PATH matches.
func cmdRegistryGot(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "[!] registrygot PATH PATTERN")
	re, err := regexp.Compile(args[1])
	ts.Check(err)
	if got := re.MatchString(stateOf(ts).reg.Body(args[0])); got == neg {
		ts.Fatalf("%s got %s: %v", args[0], args[1], got)
	}
}

// cargoVersion is the first that takes a token for a sparse index.
const cargoVersion = 74

// cargoProgram finds a cargo that is new enough; "": there is none. rustup's own is
// a script that needs the home of who installed it.
func cargoProgram() string {
	path, err := exec.LookPath("cargo")
	if err != nil {
		return ""
	}
	if out, err := exec.Command("rustup", "which", "cargo").Output(); err == nil {
		path = strings.TrimSpace(string(out))
	}
	out, err := exec.Command(path, "--version").Output()
	m := regexp.MustCompile(`^cargo 1\.(\d+)\.`).FindStringSubmatch(string(out))
	if err != nil || m == nil {
		return ""
	}
	if n, err := strconv.Atoi(m[1]); err != nil || n < cargoVersion {
		return ""
	}
	return path
}

// cargo DIR: a copy of cargo in DIR, and a rustc that says what cargo asks before it
// fetches, and compiles nothing.
func cmdCargo(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 1, "cargo DIR")
	from, err := os.Open(cargoProgram())
	ts.Check(err)
	defer from.Close()
	ts.Check(os.MkdirAll(ts.MkAbs(args[0]), 0o755))
	to, err := os.OpenFile(filepath.Join(ts.MkAbs(args[0]), "cargo"), os.O_WRONLY|os.O_CREATE, 0o755)
	ts.Check(err)
	_, err = io.Copy(to, from)
	ts.Check(err)
	ts.Check(to.Close())
	const rustc = `#!/bin/sh
case "$*" in
*--print=file-names*) printf '%s\n' ___ lib___.rlib lib___.so lib___.so lib___.a lib___.so /usr off packed unpacked ___ ___ 'target_arch="x86_64"' 'target_os="linux"' unix ;;
*) printf '%s\n' 'rustc 1.99.0' 'binary: rustc' 'host: x86_64-unknown-linux-gnu' 'release: 1.99.0' ;;
esac
`
	ts.Check(os.WriteFile(filepath.Join(ts.MkAbs(args[0]), "rustc"), []byte(rustc), 0o755))
}
