package audit

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

// asJSON is a line as package encoding/json writes it: what a log's hashes are over.
func asJSON(t testing.TB, r Record) string {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func TestARecordIsWrittenAsEver(t *testing.T) {
	const golden = `{"time":"2026-01-02T03:04:05.006007Z","session":"s-1","seq":7,"type":"credential.use","credential":"github-pat","channel":"http","context":"shop/dev","task":"a \"task\" \\ <b>&","pid":4711,"exe":"/usr/bin/node","host":"api.github.com","method":"GET","path":"/user","decision":"pass","rule":"--allow","result":"","duration_ms":1.25,"wiped":true,"version":3,"scope":"http:read","of":6,"reason":"grün  ` + `\u2028","exe_sha256":"00"}`
	r := Record{
		Time: time.Date(2026, 1, 2, 3, 4, 5, 6007000, time.UTC), Session: "s-1", Seq: 7, Type: TypeUse, Credential: "github-pat", Channel: "http", Context: "shop/dev", Task: `a "task" \ <b>&`,
		PID: 4711, Exe: "/usr/bin/node", Host: "api.github.com", Method: "GET", Path: "/user", Decision: "pass", Rule: "--allow", DurationMS: 1.25, Wiped: true, Version: 3, Scope: "http:read", Of: 6,
		Reason: "grün  \u2028", ExeSHA256: "00",
	}
	if b, err := appendRecord(nil, &r); err != nil || string(b) != golden {
		t.Errorf("%v\n%s\n%s", err, b, golden)
	}

	// Every field by itself, also one that is added some day.
	texts := []string{"x", `"\/`, "\x00\x01\b\f\n\r\t\x1f\x7f", "\xff\xc3", "é\u2027\u2028\u2029\u202a😀\ufffd", "<>&'", "a\xe2\x80", strings.Repeat("y", 3000)}
	numbers := []float64{0, 1, 0.001, 1e-6, 9.99e-7, 1e-9, 1.5e-10, 1e20, 1e21, 1.7976931348623157e308, 123456.789, 1.0 / 3, math.Copysign(0, -1), -2.5}
	check := func(r Record) {
		t.Helper()
		got, err := appendRecord([]byte("before"), &r)
		if want := asJSON(t, r); err != nil || string(got) != "before"+want {
			t.Fatalf("%v\n%s\n%s", err, got, want)
		}
	}
	check(Record{})
	fields := reflect.TypeFor[Record]().NumField()
	set := func(r *Record, i int, pick func(n int) int) {
		switch f := reflect.ValueOf(r).Elem().Field(i); f.Interface().(type) {
		case string:
			f.SetString(texts[pick(len(texts))])
		case bool:
			f.SetBool(pick(2) == 0)
		case float64:
			f.SetFloat(numbers[pick(len(numbers))])
		case uint64:
			f.SetUint([]uint64{1, 0, math.MaxUint64}[pick(3)])
		case int, int64:
			f.SetInt([]int64{1, 0, -5, math.MaxInt64}[pick(4)])
		case time.Time:
			f.Set(reflect.ValueOf([]time.Time{time.Unix(1, 0).UTC(), {}, time.Unix(1e9, 1).UTC(), time.Unix(1e9, 120).In(time.FixedZone("", 3600)), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)}[pick(5)]))
		default:
			t.Fatalf("a field of type %T", f.Interface())
		}
	}
	for i := range fields {
		for n := range 20 {
			var r Record
			set(&r, i, func(max int) int { return n % max })
			check(r)
		}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		var r Record
		for i := range fields {
			if rnd.IntN(3) > 0 {
				set(&r, i, rnd.IntN)
			}
		}
		check(r)
	}
	for _, r := range []Record{{DurationMS: math.NaN()}, {DurationMS: math.Inf(1)}, {Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}} {
		if b, err := appendRecord(nil, &r); err == nil {
			t.Errorf("%s", b)
		}
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add("a\u2028\xff\"\\\x00")
	f.Fuzz(func(t *testing.T, s string) {
		r := Record{Type: s, Reason: s}
		if b, err := appendRecord(nil, &r); err != nil || string(b) != asJSON(t, r) {
			t.Errorf("%v\n%s\n%s", err, b, asJSON(t, r))
		}
	})
}
