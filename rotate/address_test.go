package rotate

import (
	"strings"
	"testing"

	"guard"
)

func TestNewValueKeepsTheShape(t *testing.T) {
	for _, old := range []string{
		"plain-password-1", "postgres://app:first-one@db.test:5432/shop?sslmode=require", "redis://:first-one@cache.test/0", "mysql://a%40b:p%3Aw%40d@h.test/x@y",
	} {
		s, err := NewValue(guard.NewSecret([]byte(old)), 40)
		must(t, err)
		got := string(s.Reveal())
		user, pw, err := Password(guard.Credential{Name: "c", User: "u"}, s)
		must(t, err)
		if pw.Len() != 40 || strings.Contains(got, "first-one") {
			t.Errorf("%s: %d letters", old, pw.Len())
		}
		if got = strings.Replace(got, string(pw.Reveal()), "X", 1); old == "plain-password-1" && (got != "X" || user != "u") {
			t.Errorf("%s: %s", old, got)
		}
		for before, after := range map[string]string{"first-one": "X", "p%3Aw%40d": "X"} {
			if strings.Contains(old, before) && got != strings.Replace(old, before, after, 1) {
				t.Errorf("%s became %s", old, got)
			}
		}
		if strings.HasPrefix(old, "mysql") && user != "a@b" {
			t.Errorf("user %q", user)
		}
	}
	for _, old := range []string{"https://hooks.test/only-a-path", "x://\x7f"} {
		if _, err := NewValue(guard.NewSecret([]byte(old)), 40); err == nil || strings.Contains(err.Error(), "only-a-path") {
			t.Errorf("%q: %v", old, err)
		}
	}
}
