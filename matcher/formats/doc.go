// Package formats finds credentials by their form: a prefix and an alphabet, a
// checksum, a structure, or a keyword and randomness where nothing better
// exists. Package matcher finds values that are known; this one finds what
// nobody told guard about. It does no I/O but for its cache, and starts no
// goroutine.
//
// # Rules
//
// A rule is data: folder rules has one TOML file a provider, each rule with
// positives and negatives, which the tests expand and try. They are templates
// (see sampler), since no file may hold what looks like a live credential. The
// fields are those of [Rule], in lower case. A user's file has the same form, or
// is that of Gitleaks 8: [LoadTOML].
//
// A finding says how sure it is. A checksum or a structure that holds makes it
// Verified; where the algorithm is certain, one that does not hold makes it none,
// and where it was found by computing on few samples (Lenient), Low.
//
// What is no finding: placeholders of manuals (words like "example", counting,
// repetition, no variety), published examples (rules/public.txt, by their
// hashes), what an allowance names, and what Options.Ignore knows. Where a prefix is so short
// that names in programs have it, the rest must look random. A key of an issuer's test mode is
// a finding with confidence Low: it opens something.
//
// # How it searches
//
// From the beginning of each rule's expression follow its anchors: sequences of
// up to 12 byte sets, one of which every match begins with. An engine finds anchors
// and nothing else. The default engine is plain Go: a bitmap of 4-byte windows,
// case folded. The other is Hyperscan in block mode, by build tag, as in package
// matcher. So both give the same findings, and a canary of every anchor must be found by
// the engine before it is used. Around an anchor a rule is asked, from cheap to expensive: the byte
// before, what must follow, package regexp on a window of bounded length, the byte
// after, checksum, structure, randomness.
//
// The byte before a token must not continue a word, unless it ends an escape: \n,
// %3D, \u003d, or a colour, raw or written out ("\u001b[32mghp_...").
//
// Two rules have no anchor, since they have no literal: keys of base 58 and base 32,
// and mnemonics. They are found by runs of letters and digits, and of words of
// BIP 39's list, at a stride.
//
// A rule with keywords, and one of a Gitleaks file, has an expression that may match
// anywhere. It is searched for in cells of 4 KiB: see [Rule].
//
// # Where credentials are several
//
// A rule is strong, or weak if its form is generic (a bearer token, a password
// in a URL). Strong findings are taken from left to right, and one that begins
// inside another is none; a weak one that meets another is none. So one credential
// is one finding.
//
// # Encodings
//
// Inside of base64, also base64url, at any alignment, and wrapped where an anchor is on one line:
// the anchors of strong rules that begin with 4 known bytes (3 at the first alignment) are also
// looked for in their encoded form, and what is around one is decoded. Escapes of terminals (ECMA-48)
// in the middle of a token are taken out, from 512 bytes before an escape to 2 KiB after one.
//
// Not seen: weak rules and those of finders inside of base64, base64 in base64, hex and other encodings,
// escapes of JSON in the middle of a token, tokens that a line break cuts, a private key
// without its end, compressed data.
//
// # Streams
//
// Whether bytes are a finding depends on a window of bounded size, so a [Stream]
// finds what [Set.Scan] finds however it is cut. A finding of a prefix comes with
// the byte that shows that the token is over.
//
// # Cache
//
// Hyperscan's database takes a fraction of a second to compile. It is kept in
// Options.CacheDir under the SHA-256 of the anchors, the library's version and
// the processor's features; a file that is damaged, or that somebody else could have written, is
// compiled anew and replaced.
package formats
