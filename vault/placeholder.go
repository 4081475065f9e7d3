package vault

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// placeholder makes what an agent sees in place of plain: deterministic in key
// and name, of the same length and shape, and telling nothing about plain but
// that. Where the shape has fixed parts (a prefix, a URL without its password,
// the armour of a PEM file), they are kept; of the rest, no 8 bytes in a row
// are in plain.
//
// The characters are drawn from HMAC-SHA256(key, name, counters), evenly from
// an alphabet that depends on which sorts of characters plain has, never on
// where they are.
func placeholder(key []byte, name string, plain []byte) (string, error) {
	defer clear(key)
	windows := map[uint64]bool{}
	for i := 0; i+8 <= len(plain); i++ {
		windows[binary.BigEndian.Uint64(plain[i:])] = true
	}
	for try := range uint32(64) {
		d := &draft{like: plain, rnd: stream{key: key, name: name, try: try}}
		d.shape()
		if !d.shares(windows) {
			return string(d.out), nil
		}
	}
	return "", errors.New("no placeholder can be made that differs enough from the value")
}

// stream is an endless source of bytes.
type stream struct {
	key        []byte
	name       string
	try, block uint32
	buf        []byte
}

func (s *stream) next() byte {
	if len(s.buf) == 0 {
		m := hmac.New(sha256.New, s.key)
		m.Write(binary.BigEndian.AppendUint32(nil, s.try))
		m.Write(binary.BigEndian.AppendUint32(nil, s.block))
		m.Write([]byte(s.name))
		s.buf = m.Sum(nil)
		s.block++
	}
	b := s.buf[0]
	s.buf = s.buf[1:]
	return b
}

// pick draws one character, each as likely as the others.
func (s *stream) pick(alphabet string) byte {
	top := 256 - 256%len(alphabet)
	for {
		if b := int(s.next()); b < top {
			return alphabet[b%len(alphabet)]
		}
	}
}

// draft is a placeholder in the making: out so far, and which of its bytes
// were kept as they are in the value.
type draft struct {
	like []byte
	out  []byte
	kept []bool
	rnd  stream
}

func (d *draft) keep(b []byte) {
	for _, c := range b {
		d.out, d.kept = append(d.out, c), append(d.kept, true)
	}
}

func (d *draft) fresh(b ...byte) {
	for _, c := range b {
		d.out, d.kept = append(d.out, c), append(d.kept, false)
	}
}

func (d *draft) random(n int, alphabet string) {
	for range n {
		d.fresh(d.rnd.pick(alphabet))
	}
}

// shares says whether 8 bytes in a row that were not kept are in the value.
func (d *draft) shares(windows map[uint64]bool) bool {
	if bytes.Equal(d.out, d.like) {
		return true
	}
	run := 0
	for i, k := range d.kept {
		if run++; k {
			run = 0
		}
		if run >= 8 && windows[binary.BigEndian.Uint64(d.out[i-7:])] {
			return true
		}
	}
	return false
}

var (
	jwtPattern  = regexp.MustCompile(`^(ghs_[0-9]+_)?(eyJ[A-Za-z0-9_-]+)\.(eyJ[A-Za-z0-9_-]*)\.([A-Za-z0-9_-]*)$`)
	uuidPattern = regexp.MustCompile(`^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$`)
)

// shape fills the draft.
func (d *draft) shape() {
	p := d.like
	if m := jwtPattern.FindSubmatch(p); m != nil && len(m[2])%4 != 1 && len(m[3])%4 != 1 {
		d.jwt(m)
		return
	}
	if _, f, ok := match(p); ok {
		d.format(f)
		return
	}
	if u, ok := splitURL(p); ok {
		web := bytes.HasPrefix(p, []byte("https://")) || bytes.HasPrefix(p, []byte("http://"))
		if _, _, password := urlPassword(p); password || web {
			d.url(u)
			return
		}
	}
	switch {
	case bytes.Contains(p, []byte("-----BEGIN ")):
		d.pem()
	case uuidPattern.Match(p):
		d.runs(p, classes(bytes.ReplaceAll(p, []byte("-"), nil)), "-")
	case bytes.ContainsAny(p, "\r\n"):
		d.runs(p, classes(p), "\r\n")
	default:
		d.plain(p)
	}
}

// format makes a token of a known shape.
func (d *draft) format(f Format) {
	d.keep([]byte(f.Prefix))
	rest := d.like[len(f.Prefix):]
	if f.Keep == "" {
		d.random(len(rest), f.Alphabet)
	} else {
		for i, run := range splitKeep(rest, f.Keep) {
			switch {
			case i%2 == 1:
				d.keep(run)
			case f.Keep == "-" && all(run, digits):
				d.random(len(run), digits)
			default:
				d.random(len(run), f.Alphabet)
			}
		}
	}
	from, to := f.Check.fix(f.Prefix, d.out, d.like)
	for i := from; i < to; i++ {
		d.kept[i] = true
	}
}

// splitKeep cuts b into runs outside and inside of keep, in turn, the first
// one outside.
func splitKeep(b []byte, keep string) [][]byte {
	var out [][]byte
	in := false
	start := 0
	for i, c := range b {
		if k := strings.IndexByte(keep, c) >= 0; k != in {
			out = append(out, b[start:i])
			start, in = i, k
		}
	}
	return append(out, b[start:])
}

// runs keeps the characters of keep, and makes the others anew.
func (d *draft) runs(p []byte, alphabet, keep string) {
	for i, run := range splitKeep(p, keep) {
		if i%2 == 1 {
			d.keep(run)
		} else {
			d.random(len(run), alphabet)
		}
	}
}

// plain makes a value of no known shape.
func (d *draft) plain(p []byte) {
	body := bytes.TrimRight(p, "=")
	pad := len(p) - len(body)
	if pad == 0 || pad > 2 || len(p)%4 != 0 || !all(body, base62+"+/-_") {
		d.random(len(p), classes(p))
		return
	}
	// Padded base64. A strict decoder wants the bits that pad the last
	// character to be zero.
	d.random(len(body)-1, base62)
	last := "AEIMQUYcgkosw048"
	if pad == 2 {
		last = "AQgw"
	}
	d.random(1, last)
	d.keep(p[len(body):])
}

// classes is the alphabet that has the sorts of characters that p has. Signs
// become '-' and '_', which read the same in URLs, forms and JSON.
func classes(p []byte) string {
	if len(p) > 0 && all(p, digits) {
		return digits
	}
	if len(p) >= 16 && all(p, hexa) {
		return hexa
	}
	if len(p) >= 16 && all(p, strings.ToUpper(hexa)) {
		return strings.ToUpper(hexa)
	}
	var a string
	if bytes.ContainsAny(p, digits) {
		a += digits
	}
	if bytes.ContainsAny(p, upper) {
		a += upper
	}
	if bytes.ContainsAny(p, lower) {
		a += lower
	}
	if a == "" {
		a = base62
	}
	for _, c := range p {
		if strings.IndexByte(base62+"\r\n", c) < 0 {
			return a + "-_"
		}
	}
	return a
}

// pem keeps the armour and the lines of a PEM file.
func (d *draft) pem() {
	for line := range bytes.Lines(d.like) {
		if bytes.HasPrefix(line, []byte("-----")) {
			d.keep(line)
		} else {
			d.runs(line, base62, "\r\n=")
		}
	}
}

// url keeps everything of a URL but the password; where there is none but a
// user name, that; where there is neither, everything but the path and query.
func (d *draft) url(u urlParts) {
	p := d.like
	from, to := u.user, u.userEnd
	if f, t, ok := urlPassword(p); ok {
		from, to = f, t
	}
	if from == to { // only of a scheme whose hosts are no secret, see shape
		d.keep(p[:u.hostEnd])
		d.runs(p[u.hostEnd:], classes(bytes.Trim(p[u.hostEnd:], "/?&=#.")), "/?&=#")
		return
	}
	d.keep(p[:from])
	n := to - from
	if n < minValue {
		n = 12 // a URL has no fixed length, and this could be mistaken for ordinary text
	}
	d.random(n, strings.TrimSuffix(classes(p[from:to]), "-_"))
	d.keep(p[to:])
}

// urlParts are offsets into a URL: scheme://[user@]host
type urlParts struct{ scheme, user, userEnd, host, hostEnd int }

// splitURL finds the parts of p (RFC 3986, section 3) if it is a URL with a
// host. It is lenient about what a password may hold, as libpq is.
func splitURL(p []byte) (u urlParts, ok bool) {
	u.scheme = bytes.Index(p, []byte("://"))
	if u.scheme < 1 || u.scheme > 32 || !all(p[:u.scheme], base62+"+-.") || bytes.ContainsAny(p, " \r\n\t") {
		return u, false
	}
	u.user = u.scheme + 3
	u.hostEnd = len(p)
	if i := bytes.IndexAny(p[u.user:], "/?#"); i >= 0 {
		u.hostEnd = u.user + i
	}
	u.userEnd, u.host = u.user, u.user
	if i := bytes.LastIndexByte(p[u.user:u.hostEnd], '@'); i >= 0 {
		u.userEnd = u.user + i
		u.host = u.userEnd + 1
	}
	return u, u.host < u.hostEnd
}

// urlPassword finds the password in a URL.
func urlPassword(p []byte) (from, to int, ok bool) {
	u, ok := splitURL(p)
	if !ok {
		return 0, 0, false
	}
	i := bytes.IndexByte(p[u.user:u.userEnd], ':')
	if i < 0 || u.user+i+1 == u.userEnd {
		return 0, 0, false
	}
	return u.user + i + 1, u.userEnd, true
}

// jwt makes a token (RFC 7519) that decodes, does not verify, and expires in
// 2100, so that a client does not try to renew it.
func (d *draft) jwt(m [][]byte) {
	d.keep(m[1])
	var h struct {
		Alg string `json:"alg"`
	}
	if b, err := base64.RawURLEncoding.DecodeString(string(m[2])); err != nil || json.Unmarshal(b, &h) != nil || len(h.Alg) > 8 || !all([]byte(h.Alg), base62) {
		h.Alg = "HS256"
	}
	// The header says how tokens are signed: the same for all of an issuer's.
	d.object(len(m[2]), true, []string{`{"alg":"` + h.Alg + `","typ":"JWT","kid":"`, `{"alg":"` + h.Alg + `","kid":"`}, `"}`, `{"alg":"`+h.Alg+`"}`)
	d.fresh('.')
	// Which name comes first is another with each try: the value may have the
	// same.
	names := []string{"jti", "sub", "nonce", "id"}
	n := names[int(d.rnd.try)%len(names)]
	exp := 4102444800
	if d.rnd.try > 0 {
		exp = 4000000000 + 12345678*int(d.rnd.try)
	}
	// "exp", written so that its base64 is not that of the value's "exp".
	d.object(len(m[3]), false, []string{`{"` + n + `":"`}, fmt.Sprintf(`","ex\u0070":%d}`, exp), `{}`)
	d.fresh('.')
	d.random(len(m[4]), b64url)
}

// object adds a JSON object that is n characters long in base64url: the first
// of heads that leaves room, random letters, tail; else short, with spaces.
// open says that head and short tell nothing that has to differ.
func (d *draft) object(n int, open bool, heads []string, tail, short string) {
	size := base64.RawURLEncoding.DecodedLen(n)
	var b []byte
	fixed := 0
	for _, h := range heads {
		if room := size - len(h) - len(tail); room >= 4 {
			b = append(b, h...)
			fixed = len(h)
			for range room {
				b = append(b, d.rnd.pick(base62))
			}
			b = append(b, tail...)
			break
		}
	}
	if b == nil {
		if len(short) > size {
			short = "{}"
		}
		b = []byte(short[:len(short)-1] + strings.Repeat(" ", max(0, size-len(short))) + "}")
		fixed = len(b)
	}
	text := []byte(base64.RawURLEncoding.EncodeToString(b))
	if !open {
		fixed = 0
	}
	fixed = (fixed*8 + 5) / 6 // characters that bits of the fixed bytes are in
	d.keep(text[:fixed])
	d.fresh(text[fixed:]...)
}
