// Package matcher finds known values in streams of bytes, in the encodings in
// which they usually travel, and masks them. It does no I/O, knows no policy
// and starts no goroutine, but for a coroutine that a stream has while something
// compressed is open in it, and ends in Close.
//
// # What is looked for
//
// A value is trimmed of outer white space and quotes and expanded into
// needles, literal byte strings of 8 to 512 bytes:
//
//   - raw, reversed, with blanks between its characters, and UTF-16;
//   - base64 and base64url (RFC 4648) at each of the 3 alignments. Characters
//     that also depend on the bytes before or after the value are trimmed, so
//     that neither a prefix, a suffix, a newline nor padding hides it. "+" and
//     "/" may be percent-encoded, "/" escaped as in JSON;
//   - ASCII85 and the base85 of git, whole groups of 4 bytes at each of the 4
//     alignments; base32 of values of up to 9 bytes;
//   - hex, lower or upper case, also as lists of bytes: "67 68", "67:68", "67,68",
//     "67-68", "0x67,0x68" and "0x67, 0x68";
//   - percent-encoding (RFC 3986, and the form, path and JavaScript variants),
//     upper and lower hex digits, of the bytes that need it and of all bytes,
//     and twice;
//   - JSON (RFC 8259) with and without "\/", "\u003c" and ASCII-only escapes,
//     JSON in JSON, and \u00XX for every character;
//   - with what ends a string written twice (SQL, YAML, CSV, and $ and % in make
//     and batch files), or as POSIX shells have a single quote.
//
// A longer form is cut into equal pieces, each a needle: each is reported by
// itself, so a part of a long value is found as well. Of the variants above, a
// value of more than 512 bytes has the common ones only (base64 with "+" and "/"
// as they are, RFC 3986, no percent-encoding twice, upper-case %XX and
// lower-case \u00xx for every byte, no ASCII-only or HTML-safe JSON, no lists, no
// base85). Parts of a value count: the password in a URL (as written, and
// percent-decoded), each line of 16 bytes or more of a multi-line value, CRLF for
// LF, each private block of a PEM file and its body on one line, and the fields of
// a JSON object whose names say that they are secret. Public PEM blocks, PEM
// headers and comment lines are no needles.
//
// # Views
//
// A value that is escaped or cut in part only is no needle. So the stream is also
// looked at in other ways, around where something is to be taken out. In each view
// every needle is looked for, and only what has such a place in it is reported, at
// the offsets of the encoded bytes:
//
//   - Line breaks: LF or CRLF, and up to 16 blanks of indentation after it, are
//     taken out between characters that are neither blank nor control characters.
//     That covers base64 at any column, `xxd -p`, what a terminal's edge breaks, and
//     one character a line. The encoding ends in "-wrapped".
//   - Escapes, all kinds in one pass, and what comes out of that once more: %XX and
//     %uXXXX; \uXXXX, \u{X}, \UXXXXXXXX, \xXX, \NNN, \0NNN (as printf %b has it,
//     where C's reading is a control character), \n \r \t \b \f \a \v \e, a
//     backslash before punctuation, a blank or a line break; &#NN; &#xXX; &amp; &lt;
//     &gt; &quot; &apos;. Control sequences and strings of terminals (ECMA-48; a
//     string of up to 2048 bytes; CAN and SUB end one), and a CR that no LF follows,
//     are taken out; a backspace takes the byte before it away.
//   - What shows nothing ("hidden"): NUL, DEL and the control characters that move
//     nothing, the soft hyphen, zero-width characters, marks of direction, variation
//     selectors and byte order marks. UTF-16 and UTF-32 of anything in ASCII are
//     found that way too.
//   - Pieces of a string ("joined"): quotes inside a word, empty strings, and the
//     end of one literal, one of + . .. & | || or none, and the beginning of the
//     next, with up to 64 bytes of white space and backslashes between.
//   - Quoted-printable (RFC 2045): =XX, and "=" at the end of a line.
//
// Line breaks in a view, real or decoded, are joined at any column: base64 in a
// JSON string with its "\n" is found. A "+" is a space where all of a value's
// spaces are.
//
// # Decoding
//
// What may be encoded twice is decoded where it stands, searched, and where it is
// text (24 bytes of ASCII or more in a row) looked at again in all of these ways;
// three encodings on top of each other are taken off, the literals being the last:
//
//   - runs of base64 and base64url at every place where a byte may begin, of hex in
//     any case, and of base32 in either case (not both), from 15 characters on, or
//     more where no value is so short; a run goes on in the next line if its line
//     has 32 characters of it;
//   - lists of numbers, as in source code and in what xxd, od and hexdump print with
//     their offsets and characters: bytes in hex, octal and decimal, words of 2 to 16
//     bytes in hex, words of 2, 4 and 8 bytes in hex and of 2 in octal with the lowest
//     byte first, with blanks, line breaks, quotes and , : ; between them;
//   - gzip, zlib, Zstandard and members of zip files, at any place, and brotli at the
//     beginning of a stream. Of each 64 MiB are decompressed; two are open at a
//     time, and of what follows each other, with what is in it, no more comes out than 8
//     bytes for each of the stream so far, after the first MiB.
//
// A hit has the encodings in its name, the outer ones first: "base64+base64",
// "hex+gzip", "octal". One in something compressed covers all of that so far, from
// its first byte: it cannot be repaired, and masked it cannot be read.
//
// # Parts
//
// [Join] finds values whose parts are in different streams.
//
// # What is not
//
// Values that [Refuse] refuses. Encodings that are not in the lists above: among
// them other character names of HTML, characters outside the BMP escaped in part,
// base64 with an alphabet of its own, z85, uuencode, base58, ROT13, encryption, bzip2
// and xz; encrypted or stored-and-encoded members of zip files. More than three
// encodings on top of each other, and two views at a time except as said above: a
// value with an escape before a zero-width character. Reversed in base64 of values
// under 12 bytes, and three times base64 of less than that. The last bytes of a list
// of words, lowest byte first, that does not end with a word. What a terminal shows
// after its cursor was moved. A value that a line break of the stream cuts before its
// first escape. Look-alikes of letters. The characters of a base64 literal that hold
// only a part of a byte of the value (one or two at each end) lie outside the hit.
//
// # Holding back
//
// [Stream.Write] says up to which offset bytes may be released: everything from
// there on is the longest end of the stream that is the beginning of a needle,
// exactly, and never more than the longest needle (plus the line breaks inside
// it), or what in a view or decoded is one, and an escape, a number or a byte that is
// not complete; of what is decoded, also text of less than 24 bytes. Of text that
// holds no value that is 2 bytes, and hardly ever 8. Something compressed waits for
// its end, up to 16 KiB: of one that is longer the beginning is out when a value is
// found in it, and so may be the value. Nothing waits for more than 32 KiB after it.
// [Stream.Pause] lets go what somebody may wait for, but for 8 bytes or more of a value,
// what is public of it, such as "sk-ant-api03-", not counted.
//
// Where hits are concerned the way in which a stream was cut does not matter, except
// that a hit inside a longer one is reported when it is complete before the longer
// one is. The property that tests hold on to: as long as the set of values stays the
// same, no hit that is reported later touches a byte before safe, except that a
// backspace may take away a byte that is out, and that a list of words with the lowest
// byte first may have its first word out.
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
// least, and overwrites them on Close and Reset. No error and no Hit holds bytes of a
// value.
package matcher
