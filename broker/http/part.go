package http

import (
	"bufio"
	"bytes"
	"mime"
	"net/textproto"
	"slices"
	"strings"

	"guard"
	"guard/vault"
)

// stand is what stands for a value, or for a part of it, in a request: of a URL,
// clients use the password by itself.
type stand struct {
	ph   string
	part bool
}

// stands are those of c, the whole first: it has the part in it.
func stands(c guard.Credential) []stand {
	ss := []stand{{ph: c.Placeholder}}
	if w, _, ok := vault.Part(c.Placeholder); ok {
		ss = append(ss, stand{w, true})
	}
	return ss
}

// mentions says whether text has one of ss.
func mentions(text string, ss []stand) bool {
	return slices.ContainsFunc(ss, func(s stand) bool { return strings.Contains(text, s.ph) })
}

// of is what takes its place. A value that has no such part, or one too short to
// be found in a reply, leaves it as it is.
func (s stand) of(value string) string {
	if !s.part {
		return value
	}
	if _, dec, ok := vault.Part(value); ok {
		return dec
	}
	return s.ph
}

// swapMultipart replaces ph in the parts of a multipart form (RFC 7578) that are
// fields called name, not files, and leaves every other byte as it is. A form that
// is not written as the RFC says is left alone: a server may read it in another way.
func swapMultipart(b []byte, contentType, name, ph, value string) ([]byte, int) {
	_, params, err := mime.ParseMediaType(contentType)
	boundary := params["boundary"]
	if err != nil || boundary == "" || strings.Contains(value, boundary) {
		return b, 0
	}
	dash := []byte("--" + boundary)
	var out []byte
	n, last := 0, 0
	at := 0
	if !bytes.HasPrefix(b, dash) {
		i := bytes.Index(b, append([]byte("\r\n"), dash...))
		if i < 0 {
			return b, 0
		}
		at = i + 2
	}
	for {
		at += len(dash)
		if bytes.HasPrefix(b[at:], []byte("--")) {
			return append(out, b[last:]...), n
		}
		if !bytes.HasPrefix(b[at:], []byte("\r\n")) {
			return b, 0
		}
		at += 2
		size := bytes.Index(b[at:], append([]byte("\r\n"), dash...))
		if size < 0 {
			return b, 0
		}
		head, text, ok := bytes.Cut(b[at:at+size], []byte("\r\n\r\n"))
		if ok && isField(head, name) && bytes.Contains(text, []byte(ph)) {
			from := at + len(head) + 4
			out = append(append(out, b[last:from]...), bytes.ReplaceAll(text, []byte(ph), []byte(value))...)
			last = from + len(text)
			n++
		}
		at += size + 2
	}
}

// isField says whether head is that of a plain field called name.
func isField(head []byte, name string) bool {
	h, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(append(bytes.Clone(head), "\r\n\r\n"...)))).ReadMIMEHeader()
	if err != nil || len(h["Content-Disposition"]) != 1 || len(h["Content-Transfer-Encoding"]) > 0 {
		return false
	}
	kind, params, err := mime.ParseMediaType(h.Get("Content-Disposition"))
	_, file := params["filename"]
	return err == nil && kind == "form-data" && params["name"] == name && !file
}
