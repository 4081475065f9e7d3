package mail

import (
	"bytes"
	"encoding/base64"
	"regexp"

	"guard"
)

// wordRE is an encoded word (RFC 2047), looser than the RFC about what is in it.
var wordRE = regexp.MustCompile(`=\?[^?\s]+\?[bBqQ]\?[^?\r\n]*\?=`)

// decoded is the leak line's look at the encoded words of a message: bad says why
// it is to be refused, if it is. nil: there is no filter.
func (l *link) decoded() func(p []byte, step guard.Step) (bad string) {
	f := l.h.Open(l.origin())
	if f == nil {
		return nil
	}
	var w words
	var held []byte // went in, and did not come out
	return func(p []byte, step guard.Step) string {
		text := w.feed(p)
		if len(text) == 0 && step == guard.More {
			return ""
		}
		held = append(held, text...)
		out, d := f(text, step)
		// What would be changed cannot be, inside of words.
		if d.Action.Stops() || !bytes.HasPrefix(held, out) {
			return stopped(d)
		}
		held = held[len(out):]
		return ""
	}
}

// words decodes the encoded words of a message, those of its parts' headers too, and
// joins adjacent ones as who reads them does.
type words struct {
	line   []byte // the last one, as far as it came
	joined bool   // it ended in a word, which the next line may go on with
}

// feed takes a message as it comes, and gives the text of lines that end in it and
// have encoded words.
func (w *words) feed(b []byte) (text []byte) {
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			// A line that is too long is refused elsewhere.
			w.line = append(w.line, b[:min(len(b), max(0, maxBodyLine-len(w.line)))]...)
			return text
		}
		line := b[:end+1]
		if len(w.line) > 0 {
			w.line = append(w.line, line...)
			line = w.line
		}
		text = w.decode(text, line)
		w.line, b = w.line[:0], b[end+1:]
	}
	return text
}

func (w *words) decode(text, line []byte) []byte {
	var found [][]int
	if bytes.Contains(line, []byte("=?")) {
		found = wordRE.FindAllIndex(line, -1)
	}
	if len(found) == 0 {
		if w.joined {
			text = append(text, '\n')
		}
		w.joined = false
		return text
	}
	at, after := 0, w.joined
	for _, f := range found {
		if gap := line[at:f[0]]; !after || len(bytes.TrimSpace(gap)) > 0 {
			if after && at == 0 {
				text = append(text, '\n')
			}
			text = append(text, gap...)
		}
		text = decodeWord(text, line[f[0]:f[1]])
		at, after = f[1], true
	}
	if rest := line[at:]; len(bytes.TrimSpace(rest)) > 0 {
		text, after = append(text, rest...), false
	}
	w.joined = after
	return text
}

// decodeWord appends what a word says. Bytes of zero are left out, so that UTF-16 reads
// as ASCII does.
func decodeWord(text, word []byte) []byte {
	parts := bytes.SplitN(word[2:len(word)-2], []byte("?"), 3)
	in := parts[2]
	var out []byte
	if parts[1][0]|0x20 == 'b' {
		clean := bytes.Map(func(r rune) rune {
			if r == '=' || r <= ' ' {
				return -1
			}
			return r
		}, in)
		out = make([]byte, base64.RawStdEncoding.DecodedLen(len(clean)))
		n, _ := base64.RawStdEncoding.Decode(out, clean) // as far as it is base64
		out = out[:n]
	} else {
		for i := 0; i < len(in); i++ {
			switch c := in[i]; {
			case c == '_':
				out = append(out, ' ')
			case c == '=' && i+2 < len(in) && hexDigit(in[i+1]) >= 0 && hexDigit(in[i+2]) >= 0:
				out = append(out, byte(hexDigit(in[i+1])<<4|hexDigit(in[i+2])))
				i += 2
			default:
				out = append(out, c)
			}
		}
	}
	return append(text, bytes.ReplaceAll(out, []byte{0}, nil)...)
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}
