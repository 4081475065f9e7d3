package matcher

import (
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"strings"
	"testing"
)

// escapes is 1 MiB of data of a kind.
func escapes(kind string) []byte {
	plain := strings.Repeat(strings.ReplaceAll(string(corpus("text")), "\x1b[0m ", " "), 2)
	var b strings.Builder
	switch kind {
	case "plain":
		b.WriteString(plain)
	case "crlf":
		b.WriteString(strings.ReplaceAll(plain, "\n", "\r\n"))
	case "json-u":
		for i := 0; b.Len() < 1<<20; i++ {
			if c := plain[i]; i%3 == 0 {
				fmt.Fprintf(&b, "\\u%04x", c)
			} else {
				b.WriteByte(c)
			}
		}
	case "json-all-u":
		for i := 0; b.Len() < 1<<20; i++ {
			fmt.Fprintf(&b, "\\u%04x", plain[i])
		}
	case "json":
		s, _ := json.Marshal(plain)
		b.Write(s)
	case "form":
		b.WriteString(url.QueryEscape(plain))
	case "html":
		b.WriteString(html.EscapeString(plain))
	case "ansi":
		for i, w := range strings.Fields(plain) {
			fmt.Fprintf(&b, "\x1b[38;5;%dm%s\x1b[0m%s", i%256, w, []string{" ", " ", "\r\n"}[i%3])
		}
	case "code":
		for i, w := range strings.Fields(plain) {
			fmt.Fprintf(&b, "printf(\"%%s\\n\", %s%d && x);%s", w, i, []string{"\t", "\n"}[i%2])
		}
	}
	return []byte(b.String())[:1<<20]
}

// BenchmarkEscapes: MB/s of Stream.Write of 20 values on data of each kind.
func BenchmarkEscapes(b *testing.B) {
	m := mustNew(b, benchValues(20)...)
	for _, kind := range []string{"plain", "crlf", "json", "json-u", "json-all-u", "form", "html", "ansi", "code"} {
		data := escapes(kind)
		for _, chunk := range []int{512, 4 << 10, 64 << 10} {
			b.Run(fmt.Sprintf("%s/chunk=%d", kind, chunk), func(b *testing.B) { benchStream(b, m, data, chunk) })
		}
	}
}
