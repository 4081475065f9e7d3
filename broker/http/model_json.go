package http

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonText is a string of a JSON text (RFC 8259).
type jsonText struct {
	from, to int    // of what is between its quotes, in bytes of the text
	path     string // names of members from the top; "*" for the elements of an array
	key      string // the last name of path; an array's elements have their array's
	scope    int32  // the object it is in: an index of jsonDoc.scopes
	name     bool   // it is a member's name, not a value
}

// jsonScope is an object, for telling apart texts of one path.
type jsonScope struct {
	parent int32  // -1: none
	index  string // members that say which of several things it is about: "index=1,"
	last   bool   // it says that what it is about is complete
}

// jsonDoc is what parseJSON found.
type jsonDoc struct {
	texts  []jsonText
	scopes []jsonScope
}

// maxDepth is how deep values may be nested, and maxTexts how many strings there
// may be: more is not taken for JSON.
const (
	maxDepth = 256
	maxTexts = 4 << 20
)

// parseJSON reads a sequence of JSON values, without or with white space between
// them (RFC 7464 without its separators, JSON lines), and says whether b is one.
func parseJSON(b []byte) (*jsonDoc, bool) {
	p := &jsonParser{b: b, doc: &jsonDoc{}, paths: map[string]string{}}
	for p.space(); p.i < len(b); p.space() {
		if !p.value(-1, "", "", 0) {
			return nil, false
		}
	}
	return p.doc, true
}

type jsonParser struct {
	b     []byte
	i     int
	doc   *jsonDoc
	paths map[string]string // one copy of each
}

func (p *jsonParser) space() {
	for p.i < len(p.b) {
		switch p.b[p.i] {
		case ' ', '\t', '\r', '\n':
			p.i++
		default:
			return
		}
	}
}

func (p *jsonParser) next(c byte) bool {
	p.space()
	if p.i < len(p.b) && p.b[p.i] == c {
		p.i++
		return true
	}
	return false
}

// text is the string that begins at i; from and to are between its quotes.
func (p *jsonParser) text() (from, to int, ok bool) {
	if !p.next('"') {
		return 0, 0, false
	}
	from = p.i
	for p.i < len(p.b) {
		switch c := p.b[p.i]; {
		case c == '"':
			p.i++
			return from, p.i - 1, true
		case c == '\\':
			n := escapeLen(p.b[p.i:])
			if n <= 0 {
				return 0, 0, false
			}
			p.i += n
		case c < ' ':
			return 0, 0, false
		default:
			p.i++
		}
	}
	return 0, 0, false
}

func (p *jsonParser) join(path, name string) string {
	full := name
	if path != "" {
		full = path + "." + name
	}
	if s, ok := p.paths[full]; ok {
		return s
	}
	p.paths[full] = full
	return full
}

func (p *jsonParser) value(scope int32, path, key string, depth int) bool {
	p.space()
	if p.i >= len(p.b) || depth > maxDepth || len(p.doc.texts) > maxTexts {
		return false
	}
	switch c := p.b[p.i]; {
	case c == '{':
		return p.object(scope, path, depth)
	case c == '[':
		p.i++
		path = p.join(path, "*")
		if p.next(']') {
			return true
		}
		for p.value(scope, path, key, depth+1) {
			if p.next(']') {
				return true
			}
			if !p.next(',') {
				return false
			}
		}
		return false
	case c == '"':
		from, to, ok := p.text()
		p.doc.texts = append(p.doc.texts, jsonText{from: from, to: to, path: path, key: key, scope: scope})
		return ok
	}
	return p.scalar() != ""
}

// scalar is the number or literal at i, "" if there is none.
func (p *jsonParser) scalar() string {
	from := p.i
	for p.i < len(p.b) {
		c := p.b[p.i]
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c == '-' || c == '+' || c == '.' || c == 'E' {
			p.i++
			continue
		}
		break
	}
	s := string(p.b[from:p.i])
	switch s {
	case "true", "false", "null":
		return s
	}
	if s == "" || s[0] != '-' && (s[0] < '0' || s[0] > '9') {
		return ""
	}
	if len(s) < 32 {
		if _, err := strconv.ParseFloat(s, 64); err != nil && !strings.Contains(err.Error(), "range") {
			return ""
		}
		return s
	}
	if strings.Trim(s, "0123456789+-.eE") != "" {
		return ""
	}
	return s
}

func (p *jsonParser) object(parent int32, path string, depth int) bool {
	p.i++
	scope := int32(len(p.doc.scopes))
	p.doc.scopes = append(p.doc.scopes, jsonScope{parent: parent})
	if p.next('}') {
		return true
	}
	for {
		from, to, ok := p.text()
		if !ok || !p.next(':') {
			return false
		}
		name := string(p.b[from:to])
		if strings.IndexByte(name, '\\') >= 0 {
			name = string(decodeJSON(p.b[from:to]))
		}
		sub := p.join(path, name)
		p.doc.texts = append(p.doc.texts, jsonText{from: from, to: to, path: sub, key: name, scope: scope, name: true})
		p.space()
		start, n := p.i, len(p.doc.texts)
		if !p.value(scope, sub, name, depth+1) {
			return false
		}
		if scalar := len(p.doc.texts) == n || p.b[start] == '"'; scalar {
			p.about(scope, name, p.b[start:p.i])
		}
		if p.next('}') {
			return true
		}
		if !p.next(',') {
			return false
		}
	}
}

// about takes down what a member says of its object, in the words of the APIs of
// Anthropic, OpenAI, Google and those that are like them.
func (p *jsonParser) about(scope int32, name string, v []byte) {
	s := &p.doc.scopes[scope]
	switch name {
	case "index", "output_index", "content_index", "summary_index", "item_id":
		if len(v) <= 256 {
			s.index += name + "=" + string(v) + ","
		}
	case "type":
		switch t := strings.Trim(string(v[:min(len(v), 256)]), `"`); {
		case strings.HasSuffix(t, "_stop"), strings.HasSuffix(t, ".done"), strings.HasSuffix(t, ".completed"), strings.HasSuffix(t, ".incomplete"), strings.HasSuffix(t, ".failed"):
			s.last = true
		}
	case "finish_reason", "finishReason":
		s.last = s.last || len(v) > 2 && v[0] == '"'
	case "done":
		s.last = s.last || string(v) == "true"
	}
}

// scopeKey tells what scope is about: the indexes of it and the objects around it.
func (d *jsonDoc) scopeKey(scope int32) string {
	if scope < 0 {
		return ""
	}
	return d.scopeKey(d.scopes[scope].parent) + d.scopes[scope].index
}

// escapeLen is the length of the escape that b begins with: 2, 6, or 12 for a pair
// of surrogates; 0 if b ends inside it, -1 if it is none.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
	default:
		return -1
	}
	r, n := hex4(b[2:])
	if n <= 0 {
		return n
	}
	if r < 0xd800 || r >= 0xdc00 {
		return 6
	}
	switch rest := b[6:]; {
	case len(rest) == 0, len(rest) == 1 && rest[0] == '\\':
		return 0
	case rest[0] == '\\' && rest[1] == 'u':
		if low, n := hex4(rest[2:]); n > 0 && low >= 0xdc00 && low < 0xe000 {
			return 12
		} else if n == 0 {
			return 0
		}
	}
	return 6
}

// hex4 reads 4 hex digits; n is 0 where b ends before, -1 where one is none.
func hex4(b []byte) (r rune, n int) {
	for i := range 4 {
		if i == len(b) {
			return 0, 0
		}
		h := unhex(b[i])
		if h < 0 {
			return 0, -1
		}
		r = r<<4 | rune(h)
	}
	return r, 4
}

// unit is the first character of the inside of a JSON string: its raw length, and
// its text.
func unit(b []byte, text []byte) (int, []byte) {
	if b[0] != '\\' {
		if b[0] < utf8.RuneSelf {
			return 1, append(text, b[0])
		}
		_, n := utf8.DecodeRune(b)
		return n, append(text, b[:n]...)
	}
	n := escapeLen(b)
	switch {
	case n <= 0:
		return len(b), append(text, b...)
	case n == 2:
		c := b[1]
		if i := strings.IndexByte("bfnrt", c); i >= 0 {
			c = "\b\f\n\r\t"[i]
		}
		return 2, append(text, c)
	}
	r, _ := hex4(b[2:])
	if n == 12 {
		low, _ := hex4(b[8:])
		r = utf16.DecodeRune(r, low)
	}
	return n, utf8.AppendRune(text, r)
}

// appendText appends what the inside of a JSON string means to text.
func appendText(text, b []byte) []byte {
	for len(b) > 0 {
		if i := escapeAt(b); i > 0 {
			text = append(text, b[:i]...)
			b = b[i:]
			continue
		}
		var n int
		n, text = unit(b, text)
		b = b[n:]
	}
	return text
}

func decodeJSON(b []byte) []byte { return appendText(nil, b) }

// escapeAt is where the first escape in b is; its length if there is none.
func escapeAt(b []byte) int {
	for i, c := range b {
		if c == '\\' {
			return i
		}
	}
	return len(b)
}

// patchText carries the masks of text over to raw, the inside of the JSON string
// that it was decoded from: was is the text before. A character of which any byte
// is another one is masked as a whole, and raw keeps its length.
func patchText(raw, was, text []byte) {
	var buf [16]byte
	for len(raw) > 0 {
		n, u := unit(raw, buf[:0])
		k := min(len(u), len(was), len(text))
		if string(was[:k]) != string(text[:k]) {
			switch {
			case n == 1:
				raw[0] = plainByte(text[0])
			case n == 6 && k == 1:
				putData(raw[:n], plainByte(text[0]))
			default:
				for i := range n {
					raw[i] = '*'
				}
			}
		}
		raw, was, text = raw[n:], was[k:], text[k:]
	}
}

// plainByte is c, or a mask where c could not stand in a JSON string by itself.
func plainByte(c byte) byte {
	if c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
		return '*'
	}
	return c
}

// mend makes masked, which a filter made of the JSON text was, a JSON text again:
// what is structure stays, and a character is masked whole or not at all. doc is
// that of was.
func mend(doc *jsonDoc, was, masked []byte) {
	at := 0
	outside := func(to int) {
		for i := at; i < to; i++ {
			if masked[i] == was[i] {
				continue
			}
			masked[i] = was[i]
			if c := was[i]; c >= '0' && c <= '9' {
				masked[i] = '1' // a number goes on being one
			}
		}
	}
	for _, s := range doc.texts {
		outside(s.from)
		at = s.to
		raw, out := was[s.from:s.to], masked[s.from:s.to]
		if string(raw) == string(out) {
			continue
		}
		data := isData(s.key, raw)
		var buf [16]byte
		for len(raw) > 0 {
			n, _ := unit(raw, buf[:0])
			mendUnit(raw[:n], out[:n], data)
			raw, out = raw[n:], out[n:]
		}
	}
	outside(len(was))
}

// mendUnit masks all of the character was of which out has another byte. In base64
// the mask is a letter of it.
func mendUnit(was, out []byte, data bool) {
	if string(was) == string(out) {
		return
	}
	is := plainByte(out[0])
	if data {
		copy(out, was)
		putData(out, 'A')
		return
	}
	for i := range out {
		out[i] = '*'
		if len(was) == 1 {
			out[i] = is
		}
	}
}
