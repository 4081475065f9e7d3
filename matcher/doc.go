// Package matcher finds known values in streams of bytes, in the encodings in
// which they usually travel, and masks them. It does no I/O, knows no policy
// and starts no goroutine.
//
// # What is looked for
//
// A value is trimmed of outer white space and quotes and expanded into
// needles, literal byte strings of 8 to 512 bytes:
//
//   - raw, reversed, and UTF-16 (little endian; big endian too where all of it
//     is Latin-1);
//   - base64 and base64url (RFC 4648) at each of the 3 alignments. Characters
//     that also depend on the bytes before or after the value are trimmed, so
//     that neither a prefix, a suffix, a newline nor padding hides it. "+" and
//     "/" may be percent-encoded, "/" escaped as in JSON;
//   - hex, lower and upper case;
//   - percent-encoding (RFC 3986, and the form, path and JavaScript variants),
//     upper and lower hex digits, of the bytes that need it and of all bytes,
//     and twice;
//   - JSON (RFC 8259) with and without "\/", "\u003c" and ASCII-only escapes,
//     JSON in JSON, and \u00XX for every character.
//
// A longer form is cut into equal pieces, each a needle: each is reported by
// itself, so a part of a long value is found as well. Of the variants above, a
// value of more than 512 bytes has the common ones only (base64 with "+" and "/"
// as they are, RFC 3986, no percent-encoding twice, upper-case %XX and
// lower-case \u00xx for every byte, no ASCII-only or HTML-safe JSON). Parts of a value count:
// the password in a URL (as written, and percent-decoded), each line of 16
// bytes or more of a multi-line value, CRLF for LF, each private block of a PEM
// file and its body on one line, and the fields of a JSON object whose names
// say that they are secret. Public PEM blocks, PEM headers and comment lines
// are no needles.
//
// Every needle is also looked for across line breaks: LF or CRLF, and up to 16
// blanks of indentation after it, where the line before ends in 60 base64
// characters or more. That covers base64 wrapped at 60 to 76 columns and
// `xxd -p`. Such a hit spans the break and is named "base64-wrapped". A first
// line that is shorter than 60 characters is not joined to the next.
//
// # What is not
//
// Values that [Refuse] refuses. Encodings that are not in the list above,
// compressed data, values broken by terminal escapes, and two encodings on top
// of each other except as said above. The characters of a base64 form that hold
// only a part of a byte of the value (one or two at each end) lie outside the
// hit.
//
// # Holding back
//
// [Stream.Write] says up to which offset bytes may be released: everything from
// there on is the longest end of the stream that is the beginning of a needle,
// exactly, and never more than the longest needle (plus the line breaks inside
// it). Where hits are concerned the way in which a stream was cut does not
// matter, except that a hit inside a longer one is reported when it is complete
// before the longer one is. The property that tests hold on to: as long as the
// set of values stays the same, no hit that is reported later touches a byte
// before safe.
//
// # Engines
//
// Two engines give the same answers. The default is plain Go: it hashes one
// window of 8 bytes in 8 (of 4 bytes in 5 for needles under 15 bytes), looks in
// a bitmap, and compares only on a hit. The other is Hyperscan in block mode,
// which needs cgo, Debian's libhyperscan-dev (5.4) and a build tag:
//
//	apt-get install libhyperscan-dev pkg-config
//	go build -tags hyperscan ./...
//
// [Matcher.Engine] says which one is at work. Each compiled set must find a
// random canary and every one of its needles before it is used.
//
// # Where the values are
//
// Searching needs plaintext: needles, the tables of the Go engine and the
// Hyperscan database hold it. Go memory is overwritten as soon as a value is
// removed or the matcher closed; the memory of Hyperscan's database and
// compiler is freed but cannot be overwritten from here. A stream retains its
// last 511 bytes at least, and overwrites them on Close. No error and no Hit
// holds bytes of a value.
package matcher
