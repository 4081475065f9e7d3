package audit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestShow(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	at := time.Date(2026, 2, 26, 14, 22, 1, 0, time.UTC)
	push := Record{Type: TypeUse, Session: "s1", Credential: "github-pat", Profile: "daemon", Task: "CI failure handler", Scope: "repo:push", Resource: "whisperclick-dev", Decision: "pass"}
	for _, r := range []Record{
		{Type: TypeSessionStart, Session: "s1", Profile: "daemon", Task: "CI failure handler", Context: "whisperclick/dev", Exe: "/usr/bin/claude", Reason: "contained"},
		push,
		{Type: TypeUse, Session: "s1", Credential: "api-key", Profile: "interactive", Exe: "/usr/bin/curl", Scope: "http:read", Decision: "pass"},
		{Type: TypeResult, Session: "s1", Of: 2, Result: "success", Reason: "commit pushed", DurationMS: 3210, Wiped: true},
		{Type: TypeResult, Session: "s1", Of: 3, Result: "401", DurationMS: 12.4},
		{Type: TypeUse, Session: "s1", Credential: "prod-db", Profile: "interactive", Exe: "psql", Scope: "db:write", Resource: "orders", Decision: "block", Rule: "default-deny", Reason: "no --allow names prod-db"},
		{Type: TypeLeak, Session: "s1", Credential: "github-pat", Channel: "terminal", Encoding: "base64", Class: "live", Decision: "redact", Rule: "default", Profile: "daemon", Task: "CI failure handler"},
		{Type: TypeLeak, Session: "s1", Credential: "api-key", Channel: "http", Encoding: "raw", Class: "live", Host: "evil.example", Method: "POST", Path: "/x", Decision: "warn", Rule: "flag --on-leak", Incident: "i1"},
		{Type: TypeRotation, Session: "s1", Credential: "github-pat", Step: "verify-dead", Version: 2, Incident: "i1", DurationMS: 2100, Result: "dead"},
		{Type: TypeApproval, Session: "s1", Credential: "npm", Scope: "write", Host: "registry.npmjs.org", Decision: "pass", Rule: "approved once", Result: "approved"},
		{Type: TypeTamper, Path: "/home/u/.claude.json", Reason: "guard.toml changed during the session", Decision: "block"},
		{Type: TypeUse, Session: "s2", Credential: "slow", Profile: "interactive", Exe: "curl", Decision: "pass"},
		{Type: TypeUse, Session: "s1", Credential: "late", Profile: "interactive", Exe: "curl", Decision: "pass"},
		{Type: TypeSessionEnd, Session: "s1", DurationMS: 65000, Result: "0"},
	} {
		r.Time = at
		at = at.Add(time.Second)
		mustAppend(t, l, r)
	}
	mustClose(t, l)
	var b strings.Builder
	if err := (ShowOptions{Location: time.UTC}).Show(&b, dir, Filter{}); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "show.golden")
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("got\n%s\nwant (%s)\n%s", b.String(), golden, want)
	}

	b.Reset()
	zone := time.FixedZone("", 3600)
	if err := (ShowOptions{Location: zone}).Show(&b, dir, Filter{Credential: "github-pat", Type: TypeUse}); err != nil {
		t.Fatal(err)
	}
	if want := `[2026-02-26 15:22:02] CREDENTIAL ACCESS: github-pat
    Requested by: daemon (CI failure handler)
    Scope: repo:push (whisperclick-dev)
    Duration: 3.2 seconds
    Result: success (commit pushed)
    Credential wiped from memory: confirmed
`; b.String() != want {
		t.Errorf("one use, in another zone: got\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	dead := ShowOptions{Alive: func(s string) bool { return false }}
	if err := dead.Show(&b, dir, Filter{Credential: "slow"}); err != nil || !strings.Contains(b.String(), "Result: unknown: guard ended before the answer") {
		t.Errorf("a session that is gone: %v\n%s", err, b.String())
	}

	b.Reset()
	for _, r := range records(t, dir, Filter{Type: TypeResult}) {
		if err := ShowRecord(&b, r); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(b.String(), "] CREDENTIAL RESULT\n    Use: 2\n    Duration: 3.2 seconds\n    Result: success (commit pushed)\n") {
		t.Errorf("outcomes by themselves:\n%s", b.String())
	}
}
