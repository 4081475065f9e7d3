package exec

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"strings"
)

// piece is how many characters of a value may not be shown in a row.
const piece = 6

// hider drops lines that hold a piece of a value.
type hider struct {
	pieces map[string]bool
	short  []string // values shorter than a piece
}

func newHider(values ...string) *hider {
	h := &hider{pieces: map[string]bool{}}
	for _, v := range values {
		if v == "" {
			continue
		}
		if len(v) < piece {
			h.short = append(h.short, strings.ToLower(v))
			continue
		}
		h.add(v)
		h.add(hex.EncodeToString([]byte(v)))
		h.add(url.QueryEscape(v))
		h.add(url.PathEscape(v))
		for shift := range 3 {
			// The characters that depend on what stands around the value are cut off.
			e := base64.RawStdEncoding.EncodeToString(append(make([]byte, shift), v...))
			if skip := (shift*8 + 5) / 6; len(e) > skip+1 {
				e = e[skip : len(e)-1]
			}
			h.add(e)
			h.add(strings.NewReplacer("+", "-", "/", "_").Replace(e))
		}
	}
	return h
}

func (h *hider) add(s string) {
	s = strings.ToLower(s)
	for i := 0; i+piece <= len(s); i++ {
		h.pieces[s[i:i+piece]] = true
	}
}

// text returns up to 500 bytes of s in one line.
func (h *hider) text(s string) string {
	var keep []string
	hidden := false
	for line := range strings.SplitSeq(s, "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
		case h.holds(line):
			if !hidden {
				keep = append(keep, "[a line with a value is not shown]")
			}
			hidden = true
		default:
			keep = append(keep, strings.Map(func(r rune) rune {
				if r < ' ' || r >= 0x7f && r < 0xa0 {
					return '?'
				}
				return r
			}, line))
		}
	}
	out := strings.Join(keep, " / ")
	if len(out) > 500 {
		out = strings.ToValidUTF8(out[:500], "") + "..."
	}
	return out
}

func (h *hider) holds(line string) bool {
	line = strings.ToLower(line)
	for i := 0; i+piece <= len(line); i++ {
		if h.pieces[line[i:i+piece]] {
			return true
		}
	}
	for _, s := range h.short {
		if strings.Contains(line, s) {
			return true
		}
	}
	return false
}
