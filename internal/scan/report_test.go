package scan

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestSARIF checks what sarif-schema-2.1.0.json requires of what guard writes: the
// required properties of each object, their types, enumerations and bounds.
func TestSARIF(t *testing.T) {
	s := NewSARIF("1.2.3")
	for _, f := range []Finding{
		{File: "a b/c:d#e%?.txt", Line: 3, Column: 7, Rule: "x-key", Provider: "x", Kind: "key", Why: "looks so", Encoding: "raw", Confidence: "high", Fingerprint: "00"},
		{File: "a:b", Line: 1, Column: 1, Rule: "x-key", Why: "w", Confidence: "low"},
		{File: "/abs/é", Line: 1, Column: 1, Credential: "tok", Context: "c", Why: "known", Confidence: "known"},
		{File: "n", Credential: "tok", In: "name", Why: "known", Confidence: "known", Commit: "abc"},
	} {
		s.Add(&f)
	}
	var b bytes.Buffer
	if err := s.Write(&b, []Problem{{"f", "permission denied"}}, true); err != nil {
		t.Fatal(err)
	}
	var log map[string]any
	if err := json.Unmarshal(b.Bytes(), &log); err != nil {
		t.Fatal(err)
	}
	object := func(v any, required ...string) map[string]any {
		t.Helper()
		m, ok := v.(map[string]any)
		if !ok {
			t.Fatalf("%v is no object", v)
		}
		for _, r := range required {
			if _, ok := m[r]; !ok {
				t.Fatalf("%v has no %s", m, r)
			}
		}
		return m
	}
	object(log, "version", "runs")
	if log["version"] != "2.1.0" || !strings.HasPrefix(log["$schema"].(string), "https://") {
		t.Errorf("%v %v", log["version"], log["$schema"])
	}
	run := object(log["runs"].([]any)[0], "tool", "results")
	driver := object(object(run["tool"], "driver")["driver"], "name", "rules")
	rules := driver["rules"].([]any)
	ids := map[string]bool{}
	for _, r := range rules {
		id := object(r, "id")["id"].(string)
		object(object(r)["shortDescription"], "text")
		if ids[id] {
			t.Errorf("rule %s is there twice", id)
		}
		ids[id] = true
	}
	inv := object(run["invocations"].([]any)[0], "executionSuccessful")
	for _, n := range inv["toolExecutionNotifications"].([]any) {
		object(object(n, "message")["message"], "text")
	}
	results := run["results"].([]any)
	if len(results) != 4 || len(rules) != 2 {
		t.Fatalf("%d results, %d rules", len(results), len(rules))
	}
	wantURI := []string{"a%20b/c:d%23e%25%3F.txt", "./a:b", "file:///abs/%C3%A9", "n"}
	for i, v := range results {
		r := object(v, "message", "ruleId", "ruleIndex", "level", "locations", "partialFingerprints")
		object(r["message"], "text")
		if object(rules[int(r["ruleIndex"].(float64))])["id"] != r["ruleId"] {
			t.Errorf("result %d: the index of its rule is another's", i)
		}
		if l := r["level"].(string); l != "none" && l != "note" && l != "warning" && l != "error" {
			t.Errorf("level %q", l)
		}
		for k, f := range r["partialFingerprints"].(map[string]any) {
			if _, ok := f.(string); !ok {
				t.Errorf("fingerprint %s is no string", k)
			}
		}
		loc := object(object(r["locations"].([]any)[0])["physicalLocation"], "artifactLocation")
		uri := object(loc["artifactLocation"], "uri")["uri"].(string)
		if _, err := url.Parse(uri); err != nil || uri != wantURI[i] {
			t.Errorf("uri %q, want %q, %v", uri, wantURI[i], err)
		}
		if region, ok := loc["region"]; ok {
			g := object(region, "startLine", "startColumn")
			if g["startLine"].(float64) < 1 || g["startColumn"].(float64) < 1 {
				t.Errorf("region %v", g)
			}
		} else if i != 3 {
			t.Errorf("result %d has no region", i)
		}
	}
	// Of nothing: arrays, not null.
	b.Reset()
	if err := NewSARIF("x").Write(&b, nil, true); err != nil || !strings.Contains(b.String(), `"results": []`) || !strings.Contains(b.String(), `"rules": []`) {
		t.Errorf("%v %s", err, b.String())
	}
}

func TestAllow(t *testing.T) {
	list, err := LoadAllow(strings.NewReader(`
[[allow]]
reason = "r"
rule = "a"
path = "testdata/"
[[allow]]
reason = "r"
fingerprint = "ff"
expires = 2027-01-31
[[allow]]
reason = "r"
path = "*.lock"
expires = "2027-01-31"
[[allow]]
reason = "r"
credential = "tok"
expires = 2027-01-31T12:00:00Z
`), "x.toml")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		f     Finding
		entry int // 0: none
	}{
		{Finding{File: "x/testdata/y", Rule: "a"}, 1},
		{Finding{File: "testdata/y", Rule: "a"}, 1},
		{Finding{File: "testdata", Rule: "a"}, 0}, // a file
		{Finding{File: "testdata/y", Rule: "b"}, 0},
		{Finding{File: "my-testdata/y", Rule: "a"}, 0},
		{Finding{File: "q", Rule: "z", Fingerprint: "ff"}, 2},
		{Finding{File: "q", Credential: "c", Fingerprint: "ff"}, 2},
		{Finding{File: "a.zip!in/x.lock", Rule: "z"}, 3},
		{Finding{File: "/abs/x.lock", Rule: "z"}, 3},
		{Finding{File: "../x.lock", Rule: "z"}, 3},
		{Finding{File: "x.lock", Credential: "c"}, 0}, // a known value needs more than a path
		{Finding{File: "x.lock", Credential: "tok"}, 4},
		{Finding{File: "x.lock2", Rule: "z"}, 0},
	} {
		got := 0
		if a := Allows(list, &c.f); a != nil {
			got = a.Entry
		}
		if got != c.entry {
			t.Errorf("%+v: allowed by %d, want %d", c.f, got, c.entry)
		}
	}
	day := func(d, h int) time.Time { return time.Date(2027, 1, d, h, 0, 0, 0, time.Local) }
	for at, n := range map[time.Time]int{day(1, 0): 4, day(31, 23): 3, day(32, 0): 1} {
		if live, expired := Live(list, at); len(live) != n || len(expired) != 4-n {
			t.Errorf("%v: %d live, %d expired", at, len(live), len(expired))
		}
	}
	for _, bad := range []string{
		"[[allow]]\nrule = 'x'", "[[allow]]\nreason = ' '\nrule = 'x'", "[[allow]]\nreason = 'x'", "[[allow]]\nreason = 'x'\npath = '!a'",
		"[[allow]]\nreason = 'x'\nrule = 'x'\nexpires = 'soon'", "[[allow]]\nreason = 'x'\nrule = 'x'\nexpires = 5", "[[allow]]\nreason = 'x'\nrules = 'x'", "[[allow", "allow = 3",
	} {
		if _, err := LoadAllow(strings.NewReader(bad), "x.toml"); err == nil || !strings.HasPrefix(err.Error(), "x.toml") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
