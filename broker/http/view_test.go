package http

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"guard"
)

// TestBookFollows changes each field of a credential in place: what was worked out
// from the old one must not be used any more.
func TestBookFollows(t *testing.T) {
	creds := []guard.Credential{{Name: "a", Hosts: []string{"a.test"}, Placeholder: "ph_a"}}
	p := &Proxy{cfg: Config{Creds: func() []guard.Credential { return creds }}}
	to := dest{"a.test", 443, true}
	if b := p.look(); b != p.look() || !slices.Equal(p.view(b, to).home, []string{"a"}) || p.view(b, to).away[0] {
		t.Fatal("the credential is not at home, or looked up again although nothing has changed")
	}
	creds[0].Hosts[0] = "b.test"
	if v := p.view(p.look(), to); len(v.home) != 0 || len(v.foreign) != 1 || len(v.told) != 0 {
		t.Errorf("the host has changed and the view has not: %+v", v)
	}
	c := reflect.ValueOf(&creds[0]).Elem()
	for i := range c.NumField() {
		before := p.look()
		switch f := c.Field(i); v := f.Interface().(type) {
		case string:
			f.SetString(v + "x")
		case int:
			f.SetInt(int64(v) + 1)
		case bool:
			f.SetBool(!v)
		case time.Time:
			f.Set(reflect.ValueOf(v.Add(time.Second)))
		case []string:
			f.Set(reflect.ValueOf(append(slices.Clone(v), "x")))
		case []guard.Position:
			f.Set(reflect.ValueOf(append(slices.Clone(v), guard.Position{Place: "path"})))
		default:
			t.Fatalf("%s is of a type that this test does not know", c.Type().Field(i).Name)
		}
		if p.look() == before {
			t.Errorf("%s has changed and the book has not", c.Type().Field(i).Name)
		}
	}
}
