package matcher

import (
	"bytes"
	"encoding/hex"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// char is a byte of a text and where it was.
type char struct {
	c          byte
	start, end int64
	kind, cut  marks
}

// naive finds what a matcher should, in the plainest way there is: every
// needle at every offset, in the text, in the text without line breaks, and in
// what its escapes stand for, once and twice, with line breaks and without.
func naive(set *set, b []byte) []Hit {
	hits, _ := naiveHits(set, b)
	return merge(hits)
}

// agree says whether got is what naive finds, but for values that a line break
// cuts before the first escape in them: these may be there.
func agree(set *set, b []byte, got []Hit) bool {
	must, may := naiveHits(set, b)
	return consistent(set, b, must, may, got)
}

func consistent(set *set, b []byte, must, may, got []Hit) bool {
	all := slices.Concat(must, may)
	for _, h := range got {
		if !slices.Contains(all, h) && !novel(set, b, h) {
			return false
		}
	}
	for _, h := range must {
		if !slices.ContainsFunc(got, func(g Hit) bool { return g.ID == h.ID && g.Start <= h.Start && h.End <= g.End }) {
			return false
		}
	}
	return true
}

// novel says that h is of a kind that naive does not know: what is in lists of
// numbers, in encodings on top of each other, or cut by what shows nothing. A
// list in hex has to hold the value.
func novel(set *set, b []byte, h Hit) bool {
	if strings.HasSuffix(h.Encoding, "-wrapped") {
		return bytes.ContainsAny(b[h.Start:h.End], "\r\nnN\\%&") // also in the middle of a short line
	}
	for _, kind := range strings.FieldsFunc(strings.TrimSuffix(h.Encoding, "-wrapped"), func(r rune) bool { return r == '+' }) {
		switch kind {
		case "hidden", "joined", "quoted-printable", "decimal", "octal", "base32", "gzip", "zlib", "zstd", "zip", "br":
			return true
		}
	}
	outer, inner, twice := strings.Cut(h.Encoding, "+")
	if twice {
		return (outer == "base64" || outer == "hex") && inner != ""
	}
	if h.Encoding != "hex" {
		return false
	}
	text := strings.NewReplacer("0x", "", "0X", "").Replace(string(b[h.Start:h.End]))
	v, err := hex.DecodeString(strings.Map(func(r rune) rune {
		if strings.ContainsRune(hexLower+hexUpper, r) {
			return r
		}
		return -1
	}, text))
	return err == nil && slices.ContainsFunc(set.needles[1:], func(d []byte) bool { return bytes.Contains(v, d) })
}

func naiveHits(set *set, b []byte) (hits, may []Hit) {
	var text []char
	for i, c := range b {
		text = append(text, char{c: c, start: int64(i), end: int64(i) + 1})
	}
	once := naiveDecode(text, 0)
	twice := naiveDecode(once, markCount)
	for _, l := range []struct {
		text []char
		must []marks
	}{
		{text, nil},
		{naiveFold(text, foldRun), []marks{markWrapped}},
		{once, []marks{level1}},
		{naiveFold(once, 0), []marks{level1, markWrapped}},
		{twice, []marks{level2}},
		{naiveFold(twice, 0), []marks{level2, markWrapped}},
	} {
		flat := bytesOf(l.text)
		for i, d := range set.needles {
			for _, j := range occurrences(flat, d) {
				cs := l.text[j : j+len(d)]
				var m marks
				ended := false // a blank ends the paragraph
				early := false // a break comes before the escape
				for k, c := range cs {
					m |= c.kind
					if k > 0 {
						early = early || c.cut&markWrapped != 0 && len(l.must) > 1 && (m|c.cut)&l.must[0] == 0
						m |= c.cut
					}
					ended = ended || m&markWrapped != 0 && c.c <= ' '
				}
				if ended || slices.ContainsFunc(l.must, func(x marks) bool { return m&x == 0 }) {
					continue
				}
				if h, ok := set.hit(i, cs[0].start, cs[len(cs)-1].end, m); ok && early {
					may = append(may, h)
				} else if ok {
					hits = append(hits, h)
				}
			}
		}
	}
	return hits, may
}

func bytesOf(text []char) []byte {
	b := make([]byte, len(text))
	for i, c := range text {
		b[i] = c.c
	}
	return b
}

// naiveFold removes line breaks after min bytes that are not blank.
func naiveFold(text []char, min int) (out []char) {
	var cut marks
	for i := 0; i < len(text); i++ {
		n := 0
		if i >= min && !slices.ContainsFunc(text[i-min:i], func(c char) bool { return c.c <= ' ' }) {
			m := lineBreakRE.FindSubmatchIndex(bytesOf(text[i:]))
			if m != nil {
				n = m[3]
			}
		}
		if n == 0 {
			c := text[i]
			c.cut |= cut
			out, cut = append(out, c), 0
			continue
		}
		cut |= markWrapped
		for _, c := range text[i : i+n] {
			cut |= c.kind
		}
		for k, c := range text[i : i+n+1] {
			if k > 0 {
				cut |= c.cut
			}
		}
		i += n - 1
	}
	return out
}

var lineBreakRE = regexp.MustCompile(`^(\r?\n[ \t]{0,16})[^\x00- ]`)

// escapeREs have what an escape stands for in hex, octal, decimal or as it is.
var escapeREs = []struct {
	re   *regexp.Regexp
	base int // 0: the table
	char bool
	kind marks
}{
	{regexp.MustCompile(`(?s)^%([0-9a-fA-F]{2})`), 16, false, markPercent},
	{regexp.MustCompile(`(?s)^%u([0-9a-fA-F]{4})`), 16, true, markPercent},
	{regexp.MustCompile(`(?s)^\\u([0-9a-fA-F]{4})`), 16, true, markJSON},
	{regexp.MustCompile(`(?s)^\\u\{([0-9a-fA-F]{1,6})\}`), 16, true, markEscaped},
	{regexp.MustCompile(`(?s)^\\U([0-9a-fA-F]{8})`), 16, true, markEscaped},
	{regexp.MustCompile(`(?s)^\\x([0-9a-fA-F]{2})`), 16, false, markEscaped},
	{regexp.MustCompile(`(?s)^\\(0[0-3][0-7][0-7])`), 8, false, markEscaped}, // if \0NN alone is a control character
	{regexp.MustCompile(`(?s)^\\([0-7]{1,3})`), 8, false, markEscaped},
	{regexp.MustCompile(`(?s)^\\([nrtbf"\\/])`), 0, false, markJSON},
	{regexp.MustCompile(`(?s)^\\([aveE !-/:-@\[-` + "`" + `{-~])`), 0, false, markEscaped},
	{regexp.MustCompile(`(?s)^\\\r?\n`), -1, false, markEscaped},
	{regexp.MustCompile(`(?s)^&#[xX]([0-9a-fA-F]{1,6});`), 16, true, markHTML},
	{regexp.MustCompile(`(?s)^&#([0-9]{1,7});`), 10, true, markHTML},
	{regexp.MustCompile(`(?s)^(&amp;|&lt;|&gt;|&quot;|&apos;)`), 0, false, markHTML},
	{regexp.MustCompile(`(?s)^\x1b\[[ -?]{0,61}[@-~]`), -1, false, markANSI},
	{regexp.MustCompile(`(?s)^\x1b\[[ -?]*`), -1, false, markANSI},
	{regexp.MustCompile(`(?s)^\x1b[\]PX^_].*?(\x07|\x1b\\)`), -1, false, markANSI},
	{regexp.MustCompile(`(?s)^\x1b[\]PX^_].*`), -1, false, markANSI},
	{regexp.MustCompile(`(?s)^\x1b[ -/]*[0-~]?`), -1, false, markANSI},
	{regexp.MustCompile(`(?s)^\r`), -1, false, markANSI},
	{regexp.MustCompile(`(?s)^\x08`), -2, false, markANSI},
}

var escapeTable = map[string]string{"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "e": "\x1b", "E": "\x1b",
	"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": `"`, "&apos;": "'"}

func naiveDecode(text []char, shift int) (out []char) {
	flat := bytesOf(text)
	var cut marks
next:
	for i := 0; i < len(flat); {
		if strings.IndexByte(introducers, flat[i]) >= 0 && !(flat[i] == '\r' && i+1 < len(flat) && flat[i+1] == '\n') {
			for _, e := range escapeREs {
				m := e.re.FindSubmatch(flat[i:])
				if m == nil {
					continue
				}
				var s string
				switch e.base {
				case -2:
					out = out[:max(0, len(out)-1)]
				case -1:
				case 0:
					var ok bool
					if s, ok = escapeTable[string(m[1])]; !ok {
						s = string(m[1])
					}
				default:
					x, _ := strconv.ParseUint(string(m[1]), e.base, 32)
					if e.base == 8 && len(m[1]) == 4 && x>>3 >= ' ' {
						continue
					}
					s = string([]byte{byte(x)})
					if e.char {
						s = string(rune(x))
					}
				}
				n := len(m[0])
				kind := e.kind << shift
				for k, c := range text[i : i+n] {
					kind |= c.kind
					if k > 0 {
						kind |= c.cut
					}
				}
				if s == "" {
					cut |= kind
				}
				for k := range len(s) {
					c := char{c: s[k], start: text[i].start, end: text[i+n-1].end, kind: kind}
					if k == 0 {
						c.cut = cut | text[i].cut
						cut = 0
					}
					out = append(out, c)
				}
				i += n
				continue next
			}
		}
		c := text[i]
		c.cut |= cut
		out, cut = append(out, c), 0
		i++
	}
	return out
}
