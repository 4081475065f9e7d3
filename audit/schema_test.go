package audit

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("record.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("record.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func valid(t *testing.T, s *jsonschema.Schema, line []byte) error {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(v)
}

// Every field of a record is in the schema, and a record with every string as
// hostile as it gets is valid once Append has it.
func TestSchema(t *testing.T) {
	s := compiled(t)
	var doc struct {
		Properties map[string]any `json:"properties"`
	}
	if err := json.Unmarshal(Schema(), &doc); err != nil {
		t.Fatal(err)
	}
	typ := reflect.TypeFor[Record]()
	for f := range typ.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if doc.Properties[name] == nil {
			t.Errorf("%s is not in the schema", name)
		}
		delete(doc.Properties, name)
	}
	for name := range doc.Properties {
		t.Errorf("the schema has %s, and records do not", name)
	}

	hostile := strings.Repeat("a\x1b[31m\n\x00\u202e?q=1#f@\xff é", 200)
	r := use(1)
	v := reflect.ValueOf(&r).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.String && !strings.Contains("decision class fingerprint exe_sha256", strings.Split(typ.Field(i).Tag.Get("json"), ",")[0]) {
			f.SetString(hostile)
		}
	}
	r.Time, r.Of, r.Through = time.Now(), 1, 1
	dir := t.TempDir()
	l := open(t, dir)
	mustAppend(t, l, r)
	mustAppend(t, l, Record{Type: TypeSessionStart})
	mustClose(t, l)
	for line := range bytes.Lines(load(t, dir)[logFile]) {
		if err := valid(t, s, line); err != nil {
			t.Errorf("%v\n%s", err, line)
		}
	}
	for _, bad := range []string{
		`{}`, `{"time":"now"}`, `{"time":"2026-01-01T00:00:00Z","session":"","seq":0}`,
		strings.Replace(string(bytes.TrimSpace(load(t, dir)[logFile][bytes.IndexByte(load(t, dir)[logFile], '\n')+1:])), `"wiped"`, `"value":"x","wiped"`, 1),
	} {
		if valid(t, s, []byte(bad)) == nil {
			t.Errorf("%s is valid", bad)
		}
	}
}
