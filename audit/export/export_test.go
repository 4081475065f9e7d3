package export

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"guard/audit"
)

var source = Source{Host: "laptop", Version: "1.2.3"}

// samples are records of every type, and one with every field set.
func samples() []audit.Record {
	at := time.Date(2026, 3, 1, 12, 0, 0, 5e8, time.UTC)
	full := audit.Record{Type: audit.TypeLeak}
	v := reflect.ValueOf(&full).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			if f.String() == "" {
				f.SetString(fmt.Sprintf(`v%d=a|b\c "d] e`, i))
			}
		case reflect.Int, reflect.Int64:
			f.SetInt(int64(100 + i))
		case reflect.Uint64:
			f.SetUint(uint64(100 + i))
		case reflect.Float64:
			f.SetFloat(12.5)
		case reflect.Bool:
			f.SetBool(true)
		}
	}
	full.Time = at
	out := []audit.Record{full}
	for i, typ := range []string{
		audit.TypeSessionStart, audit.TypeUse, audit.TypeResult, audit.TypeLeak, audit.TypeRotation, audit.TypeApproval, audit.TypeTamper,
		audit.TypeHealed, audit.TypePruned, "secret.set", "secret.rm", "secret.edit", "secret.reveal", "egress.refused", "anything.else", audit.TypeSessionEnd,
	} {
		out = append(out, audit.Record{Type: typ, Seq: uint64(i + 1), Time: at, Session: "s1", Credential: "github-pat", Context: "acme/dev", Channel: "http",
			Host: "api.github.com", Method: "GET", Path: "/user", Decision: "pass", Exe: "/usr/bin/curl", PID: 42, DurationMS: 51.25})
	}
	return out
}

// The attributes that OCSF 1.6 requires of each class, beyond those of every event.
var required = map[int][]string{
	classBase: {}, classFinding: {"finding_info"}, classAuthorize: {"user"}, classEntity: {"entity"},
	classActivity: {"actor", "api", "src_endpoint"}, classLifecycle: {"app"},
}

func TestOCSF(t *testing.T) {
	seen := map[int]bool{}
	for _, r := range samples() {
		b, err := marshal(OCSF(source, r))
		if err != nil {
			t.Fatal(err)
		}
		var e map[string]any
		if err := json.Unmarshal(b, &e); err != nil {
			t.Fatal(err)
		}
		class := int(e["class_uid"].(float64))
		seen[class] = true
		for _, k := range append([]string{"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"}, required[class]...) {
			if e[k] == nil {
				t.Errorf("%s: class %d has no %s", r.Type, class, k)
			}
		}
		if got := int(e["type_uid"].(float64)); got != class*100+int(e["activity_id"].(float64)) {
			t.Errorf("%s: type_uid %d", r.Type, got)
		}
		back, err := json.Marshal(e["unmapped"])
		if err != nil {
			t.Fatal(err)
		}
		var same audit.Record
		if err := json.Unmarshal(back, &same); err != nil || !reflect.DeepEqual(same, r) {
			t.Errorf("%s: the record does not come back: %v", r.Type, err)
		}
	}
	if len(seen) != len(required) {
		t.Errorf("classes: %v", seen)
	}
}

// Nothing that a record holds can end a field, and begin one that it does not have.
func TestCEFAndSyslogCannotBeBroken(t *testing.T) {
	evil := `x|y=z\ "]` + " act=pass spid=1 \n CEF:0|"
	r := audit.Record{Type: audit.TypeUse, Seq: 7, Time: time.Now(), Credential: evil, Host: evil, Path: evil, Exe: evil, Reason: evil, Task: evil, Decision: "block"}
	cef := CEF(Source{Host: evil, Version: evil}, r)
	if strings.Count(cef, "\n") != 0 {
		t.Errorf("more than one line: %q", cef)
	}
	if n := len(regexp.MustCompile(`(^|[^\\])(\\\\)*\|`).FindAllString(strings.SplitN(cef, " rt=", 2)[0], -1)); n < 7 {
		t.Errorf("header of %d fields: %s", n, cef)
	}
	ext := cef[strings.LastIndex(cef, "rt="):]
	keys := regexp.MustCompile(`(?:^| )([A-Za-z0-9]+)=`).FindAllStringSubmatch(ext, -1)
	seen := map[string]int{}
	for _, k := range keys {
		seen[k[1]]++
	}
	for k, n := range seen {
		if n > 1 {
			t.Errorf("%s is there %d times: %s", k, n, ext)
		}
	}
	msg := Syslog(Source{Host: evil}, r)
	m := regexp.MustCompile(`^<\d+>1 \S+ \S+ guard \S+ \S+ \[guard@32473((?: [a-z_0-9]+="(?:[^"\\\]]|\\["\\\]])*")*)\] `).FindStringSubmatch(msg)
	if m == nil {
		t.Fatalf("not RFC 5424: %q", msg)
	}
	if n := strings.Count(m[1], `decision="`); n != 1 {
		t.Errorf("%d decisions: %s", n, m[1])
	}
}

func TestOTLP(t *testing.T) {
	recs := samples()
	b, err := marshal(Logs(source, recs))
	if err != nil {
		t.Fatal(err)
	}
	// Every field of a full record is an attribute.
	typ := reflect.TypeFor[audit.Record]()
	for i := range typ.NumField() {
		name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		if name != "time" && name != "wiped" && !bytes.Contains(b, []byte(`"key":"guard.`+name+`"`)) {
			t.Errorf("%s is in no attribute", name)
		}
	}
	tr, n := Traces(source, recs)
	if n != 2 {
		t.Fatalf("%d spans", n)
	}
	use, root := tr.ResourceSpans[0].ScopeSpans[0].Spans[0], tr.ResourceSpans[0].ScopeSpans[0].Spans[1]
	if use.TraceID != root.TraceID || use.ParentSpanID != root.SpanID || len(use.TraceID) != 32 || len(use.SpanID) != 16 {
		t.Errorf("%+v\n%+v", use, root)
	}
	if spanID(audit.Record{Session: "s1", Seq: 9}) != spanID(audit.Record{Session: "s1", Seq: 10, Of: 9}) {
		t.Error("a use and its outcome are two spans")
	}
}

func TestPrometheus(t *testing.T) {
	var c Counts
	for _, r := range samples() {
		c.Add(r)
		c.Add(r)
	}
	var b bytes.Buffer
	if err := c.Prometheus(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`guard_uses_total{credential="github-pat",context="acme/dev",channel="http",decision="pass"} 2` + "\n",
		"# TYPE guard_leaks_total counter\n", "guard_audit_records 102\n", `guard_use_seconds_total{credential="github-pat",context="acme/dev",channel="http"} 0.1025` + "\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	line := regexp.MustCompile(`^(# (HELP|TYPE) .+|[a-z_]+(\{([a-z]+="([^"\\]|\\.)*",?)+\})? [0-9.e+-]+)$`)
	for l := range strings.Lines(b.String()) {
		if !line.MatchString(strings.TrimSuffix(l, "\n")) {
			t.Errorf("not the text format: %s", l)
		}
	}
	m, err := marshal(c.Metrics(source, time.Now()))
	if err != nil || !bytes.Contains(m, []byte(`"isMonotonic":true`)) {
		t.Errorf("%s %v", m, err)
	}
}

func TestFormats(t *testing.T) {
	for _, f := range Formats() {
		var b bytes.Buffer
		w, err := New(&b, f, source)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range samples() {
			if err := w.Write(r); err != nil {
				t.Fatal(err)
			}
		}
		if n := strings.Count(b.String(), "\n"); n != len(samples()) {
			t.Errorf("%s: %d lines", f, n)
		}
	}
	if _, err := New(nil, "xml", source); err == nil {
		t.Error("xml is a format")
	}
}
