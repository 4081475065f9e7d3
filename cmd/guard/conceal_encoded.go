package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"

	"guard"
	"guard/matcher"
)

// standIn is what the session sees in the place of the hit h of b, and from
// where to where: the placeholder in the encoding that the value had, so that the
// program whose file it is reads the placeholder, and sends it. ok is false where
// there is none; then a mask takes its place.
func (c *conceal) standIn(b []byte, h matcher.Hit) (from, to int64, text []byte, ok bool) {
	from, to = h.Start, h.End
	seen := b[from:to]
	if p, ok := c.placeholder(h.ID, len(seen)); ok && plainly(h) {
		return from, to, []byte(p), true
	}
	switch h.Encoding {
	case "percent": // a password in a URL
		plain, err := url.PathUnescape(string(seen))
		if p, ok := c.placeholder(h.ID, len(plain)); err == nil && ok {
			return from, to, []byte(strings.ReplaceAll(url.QueryEscape(p), "+", "%20")), true
		}
	case "json":
		var plain string
		if json.Unmarshal(slices.Concat([]byte(`"`), seen, []byte(`"`)), &plain) != nil {
			break
		}
		if p, ok := c.placeholder(h.ID, len(plain)); ok {
			var out bytes.Buffer
			e := json.NewEncoder(&out)
			e.SetEscapeHTML(false)
			if e.Encode(p) == nil {
				return from, to, bytes.Trim(out.Bytes(), "\"\n"), true
			}
		}
	}
	if strings.Contains(h.Encoding, "base64") {
		return c.inBase64(b, h)
	}
	return from, to, nil, false
}

// plainly says that a hit as long as the value is the value as it is: one that has
// an escape in it, such as %20, is found with its escapes decoded, too.
func plainly(h matcher.Hit) bool {
	return h.Encoding == "raw" || h.Encoding == "percent" || h.Encoding == "json"
}

// placeholder is the placeholder of id, or of a part of it, of n bytes.
func (c *conceal) placeholder(id guard.SecretID, n int) (string, bool) {
	i := slices.IndexFunc(c.placeholders[id.Name], func(p string) bool { return len(p) == n })
	if i < 0 {
		return "", false
	}
	return c.placeholders[id.Name][i], true
}

// inBase64 is standIn for a value that is, with what else there may be (a name and
// a colon), in base64: it is decoded, replaced and encoded again, which keeps its
// length.
func (c *conceal) inBase64(b []byte, h matcher.Hit) (from, to int64, text []byte, ok bool) {
	for alphabet, enc := range map[string]*base64.Encoding{"+/": base64.RawStdEncoding, "-_": base64.RawURLEncoding} {
		in := func(i int64) bool {
			return i >= 0 && i < int64(len(b)) && (b[i] >= '0' && b[i] <= '9' || b[i] >= 'a' && b[i] <= 'z' || b[i] >= 'A' && b[i] <= 'Z' || strings.IndexByte(alphabet, b[i]) >= 0)
		}
		for to = h.End; in(to); to++ {
		}
		for from = h.Start; in(from - 1); from-- {
		}
		// "/" and "+" may also be what stands before it, as in a path.
		for ; from <= h.Start; from++ {
			if text, ok = c.recode(b[from:to], enc); ok {
				return from, to, text, true
			}
			for from < h.Start && strings.IndexByte(alphabet, b[from]) < 0 {
				from++
			}
		}
	}
	return h.Start, h.End, nil, false
}

// recode replaces the raw values in what token encodes.
func (c *conceal) recode(token []byte, enc *base64.Encoding) ([]byte, bool) {
	plain := make([]byte, enc.DecodedLen(len(token)))
	defer clear(plain)
	n, err := enc.Decode(plain, token)
	if err != nil {
		return nil, false
	}
	plain = plain[:n]
	found := false
	for _, h := range c.matcher.Scan(plain) {
		if h.Class >= guard.Placeholder {
			continue
		}
		p, ok := c.placeholder(h.ID, int(h.End-h.Start))
		if !plainly(h) || !ok {
			return nil, false
		}
		copy(plain[h.Start:h.End], p)
		found = true
	}
	if !found {
		return nil, false
	}
	return enc.AppendEncode(nil, plain), true
}
