package matcher

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// value adds a value and its parts.
func (x *expander) value(core []byte) {
	if bytes.HasPrefix(core, []byte("{")) && x.object(core, 0) {
		// Most of a key file is the same for everybody: only its secret fields,
		// and the file as a whole, if that is one needle.
		if len(core) <= maxNeedle {
			x.all(core)
		}
		return
	}
	blocks, public := pemBlocks(core)
	if !public || len(blocks) == 0 {
		x.text(core, len(blocks) == 0 && core[0] != '{')
	}
	for _, b := range blocks {
		if public {
			x.text(b, false)
		}
		x.pem(b)
	}
	x.url(core)
}

// text adds b as a whole, with LF and with CRLF line ends, and, with lines set,
// each line that is long enough and no comment.
func (x *expander) text(b []byte, lines bool) {
	x.all(b)
	if !bytes.ContainsRune(b, '\n') {
		return
	}
	lf := x.temp(len(b))
	for i, c := range b {
		if c != '\r' || i+1 == len(b) || b[i+1] != '\n' {
			lf = append(lf, c)
		}
	}
	crlf := appendEscaped(x.temp(2*len(lf)), lf, '\n', "\r\n")
	x.all(lf)
	x.basic(crlf)
	for _, slash := range []bool{false, true} {
		x.room(len(crlf))
		x.a = appendJSON(x.a[:0], crlf, jsonStyle{slash: slash, digits: hexLower})
		x.add(encJSON, x.a)
	}
	if !lines {
		return
	}
	for line := range bytes.SplitSeq(lf, []byte("\n")) {
		line = bytes.TrimSpace(line)
		comment := bytes.HasPrefix(line, []byte("#")) || bytes.HasPrefix(line, []byte("//")) || bytes.HasPrefix(line, []byte(";"))
		if len(line) >= minLine && !comment && refuse(line) == nil {
			x.basic(line)
		}
	}
}

// pemBlocks returns the private blocks of a PEM file (RFC 7468), markers
// included, and whether it has blocks that everybody may see.
func pemBlocks(b []byte) (private [][]byte, public bool) {
	const begin, end = "-----BEGIN ", "-----END "
	for {
		i := bytes.Index(b, []byte(begin))
		if i < 0 {
			return private, public
		}
		b = b[i:]
		label, _, ok := bytes.Cut(b[len(begin):], []byte("-----"))
		if !ok || bytes.ContainsAny(label, "\r\n") {
			b = b[len(begin):]
			continue
		}
		stop := end + string(label) + "-----"
		j := bytes.Index(b, []byte(stop))
		if j < 0 {
			j, stop = len(b), "" // cut off: all of the rest is the block
		}
		if bytes.Contains(label, []byte("CERTIFICATE")) || bytes.Contains(label, []byte("PUBLIC")) || bytes.Contains(label, []byte("PARAMETERS")) {
			public = true
		} else {
			private = append(private, b[:j+len(stop)])
		}
		b = b[j+len(stop):]
	}
}

// pem adds the lines of a private block that are its own, and its body without
// line breaks.
func (x *expander) pem(block []byte) {
	joined := x.temp(len(block))
	for line := range bytes.SplitSeq(block, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if bytes.HasPrefix(line, []byte("-----")) || bytes.Contains(line, []byte(": ")) {
			continue // a marker or a header (RFC 1421)
		}
		joined = append(joined, line...)
		// Every OpenSSH key begins with the same bytes ("openssh-key-v1", no
		// cipher, one key, its type), which fill the first line.
		if len(line) >= minLine && refuse(line) == nil && !bytes.HasPrefix(line, []byte("b3BlbnNzaC1rZXktdjE")) {
			x.basic(line)
		}
	}
	x.add(encRaw, joined)
}

// url adds the password of scheme://user:password@host, as it is written and
// percent-decoded, if it can be looked for.
func (x *expander) url(b []byte) {
	scheme, rest, ok := bytes.Cut(b, []byte("://"))
	if !ok {
		return
	}
	if i := bytes.IndexAny(rest, "/?#\r\n"); i >= 0 {
		// A "/" that is not encoded may be in the password all the same: then
		// there is no "@" before it.
		if bytes.IndexByte(rest[:i], '@') >= 0 {
			rest = rest[:i]
		}
	}
	at := bytes.LastIndexByte(rest, '@')
	if at < 0 {
		return
	}
	user, password, ok := bytes.Cut(rest[:at], []byte(":"))
	if !ok && bytes.HasPrefix(scheme, []byte("http")) {
		password = user // https://token@host, as git takes it
	}
	if refuse(password) == nil {
		x.all(password)
	}
	if plain := unpercent(x.temp(len(password)), password); refuse(plain) == nil {
		x.all(plain)
	}
}

// unpercent decodes %XX and leaves what is malformed.
func unpercent(dst, b []byte) []byte {
	for i := 0; i < len(b); i++ {
		if b[i] == '%' && i+2 < len(b) {
			if hi, lo := unhex(b[i+1]), unhex(b[i+2]); hi >= 0 && lo >= 0 {
				dst = append(dst, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		dst = append(dst, b[i])
	}
	return dst
}

func unhex(c byte) int { return strings.IndexByte(hexLower, c|0x20*(c>>6&1)) }

// object adds the fields of a JSON object whose names say that they hold a
// secret, and says whether there is one.
func (x *expander) object(b []byte, depth int) (found bool) {
	var fields map[string]json.RawMessage
	if depth > 8 || json.Unmarshal(b, &fields) != nil {
		return false
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) { // the same needles in the same order every time
		raw := fields[name]
		x.temps = append(x.temps, raw)
		switch {
		case len(raw) > 2 && raw[0] == '{':
			found = x.object(raw, depth+1) || found
		case len(raw) > 2 && raw[0] == '"' && secretField(name):
			v := trim(unquote(x.temp(len(raw)), raw[1:len(raw)-1]))
			if refuse(v) == nil {
				x.value(v)
				found = true
			}
		}
	}
	return found
}

func secretField(name string) bool {
	name = strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(name))
	if strings.HasSuffix(name, "id") || strings.HasSuffix(name, "uri") || strings.HasSuffix(name, "url") && !strings.HasPrefix(name, "database") {
		return false
	}
	for _, w := range []string{"secret", "password", "passwd", "token", "privatekey", "apikey", "accesskey", "databaseurl", "credential"} {
		if strings.Contains(name, w) {
			return true
		}
	}
	return name == "key" || name == "auth"
}

// unquote decodes the inside of a valid JSON string. Surrogate pairs, which no
// credential has, become U+FFFD.
func unquote(dst, b []byte) []byte {
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' || i+1 >= len(b) {
			dst = append(dst, b[i])
			continue
		}
		i++
		switch b[i] {
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'u':
			var r rune
			for n := 0; n < 4 && i+1 < len(b); n++ {
				i++
				r = r<<4 | rune(unhex(b[i])&15)
			}
			dst = utf8.AppendRune(dst, r)
		default:
			dst = append(dst, b[i])
		}
	}
	return dst
}
