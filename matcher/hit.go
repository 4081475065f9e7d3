package matcher

import (
	"cmp"
	"slices"
	"strings"

	"guard"
)

// Hit is one occurrence of one needle of one value.
type Hit struct {
	ID    guard.SecretID
	Class guard.Class
	// Encoding is "raw", "base64", "base64url", "hex", "percent", "json", "utf-16",
	// "reversed", "doubled", "spaced", "base32", "ascii85" or "base85". Where escapes
	// were decoded or removed they come first, in this order: "ansi", "hidden",
	// "html", "json" or "escaped", "joined", "quoted-printable", "percent", as in
	// "percent" for a raw value that is escaped in part, and "json+base64". "-wrapped"
	// follows where a line break cuts the form. Before that come what it was decoded
	// from, the outer one first: "base64", "hex", "base32", "octal", "decimal", "gzip",
	// "zlib", "zstd", "zip", "br".
	Encoding string
	Start    int64 // offset in the stream of the encoded form's first byte
	End      int64 // and of the byte after its last
}

// compare orders hits by where they start, the longer one first.
func compare(a, b Hit) int {
	return cmp.Or(
		cmp.Compare(a.Start, b.Start), cmp.Compare(b.End, a.End),
		cmp.Compare(a.Class, b.Class), cmp.Compare(a.ID.Context, b.ID.Context), cmp.Compare(a.ID.Name, b.ID.Name),
		cmp.Compare(a.ID.Version, b.ID.Version), cmp.Compare(rank(a.Encoding), rank(b.Encoding)), cmp.Compare(a.Encoding, b.Encoding))
}

// rank prefers a form of its own to one with what shows nothing in it, as UTF-16
// has a NUL in every character, and what is found first: a list of numbers ends
// with the byte after it.
func rank(encoding string) int {
	switch {
	case strings.HasPrefix(encoding, "hidden"):
		return 1
	case strings.HasSuffix(encoding, "-wrapped"):
		return -1
	}
	return 0
}

// merge sorts hits and drops those that lie inside another hit of the same
// credential and class. A credential that lies inside another one leaked too,
// so it stays. Merging what was merged in parts gives the same.
func merge(hits []Hit) []Hit {
	if len(hits) < 2 {
		return hits
	}
	slices.SortFunc(hits, compare)
	type key struct {
		id    guard.SecretID
		class guard.Class
	}
	reach := map[key]int64{} // how far the hits so far go
	kept := hits[:0]
	for _, h := range hits {
		k := key{h.ID, h.Class}
		if h.End <= reach[k] {
			continue
		}
		reach[k] = h.End
		kept = append(kept, h)
	}
	return kept
}
