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
//   - hex, lower or upper case, also as lists of bytes: "67 68", "67:68", "67,68",
//     "0x67,0x68" and "0x67, 0x68";
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
// blanks of indentation after it, where the line before ends in 48 bytes or more
// that are neither blank nor control characters. That covers base64 wrapped at
// 60 to 76 columns, a first line that a short key shortens, `xxd -p`, and a value
// without blanks at the edge of a terminal. Such a hit spans the break and its
// encoding ends in "-wrapped".
//
// # Escapes
//
// A value that is escaped in part only is no needle. So the stream is also looked
// at with its escapes decoded, around where they are, all kinds in one pass, and
// what comes out of that once more. In that view every needle is looked for, and
// only what has an escape in it is reported, at the offsets of the encoded bytes:
//
//   - %XX, and %uXXXX;
//   - \uXXXX, \u{X}, \UXXXXXXXX, \xXX, \NNN, \0NNN (as printf %b has it, where C's
//     reading is a control character), \n \r \t \b \f \a \v \e, a backslash before
//     punctuation or a blank; a backslash before a line break is removed with it;
//   - &#NN; &#xXX; &amp; &lt; &gt; &quot; &apos;
//   - control sequences and strings of terminals (ECMA-48; a string of up to 2048
//     bytes), and a CR that no LF follows, are removed; a backspace takes the byte
//     before it away.
//
// Line breaks in a view, real or decoded, are joined at any column: base64 in a
// JSON string with its "\n" is found. A "+" is a space where all of a value's
// spaces are.
//
// # What is not
//
// Values that [Refuse] refuses. Encodings that are not in the lists above:
// among them hex of mixed case, hex dumps with offsets, other character names of
// HTML, characters outside the BMP escaped in part. Compressed data, two encodings
// on top of each other except as said above, escapes in escapes in escapes, and
// what a terminal shows after its cursor was moved. A value that a line break of
// the stream cuts before its first escape. The characters of a base64 form that
// hold only a part of a byte of the value (one or two at each end) lie outside the
// hit.
//
// # Holding back
//
// [Stream.Write] says up to which offset bytes may be released: everything from
// there on is the longest end of the stream that is the beginning of a needle,
// exactly, and never more than the longest needle (plus the line breaks inside
// it), or what in a view is one, and an escape that is not complete; of that never
// more than 16 KiB. Where hits are concerned the way in which a stream was cut does
// not matter, except that a hit inside a longer one is reported when it is complete
// before the longer one is, and that one which waited for what could have gone on
// with an escape ends where that wait did. The property that tests hold on to: as
// long as the set of values stays the same, no hit that is reported later touches
// a byte before safe, except that a backspace may take away a byte that is out.
//
// # Engines
//
// Two engines give the same answers. The one that [New] takes is plain Go: it
// hashes a window of the text (4 to 8 bytes) at a stride (5 to 16 bytes, what the
// shortest needle allows), looks in a bitmap, and compares only on a hit. The
// other, which [NewWith] takes, is Hyperscan in block mode. It needs cgo, Debian's
// libhyperscan-dev (5.4) and a build tag:
//
//	apt-get install libhyperscan-dev pkg-config
//	go build -tags hyperscan ./...
//
// docs/BENCHMARKS.md has both, by how much there is to look for. [Matcher.Engine]
// says which one is at work. Each compiled set must find a random canary and every
// one of its needles before it is used.
//
// # Changes
//
// [Matcher.Add] compiles what is new by itself, in a small layer that is searched
// next to the main one, so that a value is live within milliseconds whatever else
// there is. Who makes that layer grow beyond some 1,000 needles, or removes a
// value, compiles the main one before the call returns; streams and other calls of
// Add go on meanwhile, and what was looked for stays. More than 64 MiB of needles
// is refused ([ErrTooMany]).
//
// # Where the values are
//
// Searching needs plaintext: needles, the tables of the Go engine and the
// Hyperscan database hold it. Nothing of that is ever written to a file: a set is
// compiled anew at each start, and no compiled one is kept. Go memory is
// overwritten as soon as a value was removed, or the matcher closed, and no search
// is under way with it any more; the memory of Hyperscan's database and compiler is
// freed but cannot be overwritten from here. A stream retains its last 511 bytes at
// least, and overwrites them on Close. No error and no Hit holds bytes of a value.
package matcher
