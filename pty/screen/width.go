package screen

import (
	"unicode"

	"golang.org/x/text/width"
)

// runeWidth is how many cells r takes: 0 for what combines with the character
// before it, 2 for East Asian wide characters and emoji (UAX #11), else 1.
func runeWidth(r rune) int {
	switch {
	case r < 0x300:
		if r == 0xad { // a soft hyphen, which terminals draw
			return 1
		}
		return 1
	case r >= 0x1160 && r <= 0x11ff: // Hangul vowels and finals
		return 0
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// border says that r is drawn between panes.
func border(r rune) bool {
	return r == '|' || r >= 0x2500 && r < 0x25a0 || r == 0x00a6
}

// graphic maps the DEC special graphics set.
func graphic(r rune) rune {
	if r < 0x5f || r > 0x7e {
		return r
	}
	return []rune("\u00a0◆▒␉␌␍␊°±␤␋┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·")[r-0x5f]
}

// Width is how many columns r takes on a screen: 0, 1 or 2.
func Width(r rune) int { return runeWidth(r) }
