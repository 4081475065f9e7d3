package supervisor

import (
	"strings"
	"testing"
)

func TestMaskShown(t *testing.T) {
	for _, c := range []struct{ in, name, want string }{
		{"secret-value", "", "************"},
		{"secret-value", "tok", "[tok]*******"},
		{"secret-value", "a-name-too-long", "************"},
		{"sec\x1b[31mret\x1b[0m-value", "", "***\x1b[31m***\x1b[0m******"},
		{"s\x1b[2;3He\x1b[2;2Hc", "t", "[\x1b[2;3Ht\x1b[2;2H]"},
		{"se\bec\r\nret\tx", "", "**\b**\r\n***\t*"},
		{"se\x1b]2;title\x07cret", "", "***" + strings.Repeat("*", 8) + "\x07****"},
		{"s\x1bAe\x1bBc", "", "*******"},                  // what only looks like a sequence may hide a character
		{"se\x1b[3", "", "*****"},                         // not complete
		{"sé漢x", "", "**\x00**\x00*"},                     // é is one column, 漢 two
		{"s\x1b[3\x01mx", "", "****\x01**"},               // not well-formed
		{"\xff\xfex", "", "***"},                          // no UTF-8
		{"a\x1b[38;5;1mb\ncd", "n", "[\x1b[38;5;1mn\n]*"}, // the label as well
	} {
		b := []byte(c.in)
		maskShown(b, c.name)
		if string(b) != c.want {
			t.Errorf("%q became %q, want %q", c.in, b, c.want)
		}
	}
}
