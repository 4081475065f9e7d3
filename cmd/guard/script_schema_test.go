//go:build linux

package main

import (
	"bytes"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"guard/audit"
)

// records FILE: every line of FILE is a record, as the schema has it.
func cmdRecords(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 1, "records FILE")
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(audit.Schema()))
	ts.Check(err)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	ts.Check(c.AddResource("record.schema.json", doc))
	s, err := c.Compile("record.schema.json")
	ts.Check(err)
	n := 0
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
		ts.Check(err)
		if err := s.Validate(v); err != nil {
			ts.Fatalf("%v\n%s", err, line)
		}
		n++
	}
	if n == 0 {
		ts.Fatalf("%s holds no line", args[0])
	}
}
