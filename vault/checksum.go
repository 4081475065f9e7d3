package vault

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"hash/crc32"
)

// Checksum is how a token format checks itself.
type Checksum uint8

const (
	// NoChecksum: none.
	NoChecksum Checksum = iota
	// CRC32Base62: the last 6 characters are the CRC-32 (IEEE) of what is
	// between the prefix and them, in base 62 (0-9A-Za-z), for 36 and 76
	// characters after the prefix. GitHub, "Behind GitHub's new authentication
	// token formats" (2021), and npm.
	CRC32Base62
	// GitHubFineGrained: github_pat_, 22, "_", 59 characters: of the 59, those
	// from 43 to 50 are the first 8 of base32(SHA-256(all before them)).
	GitHubFineGrained
	// GitLabRoutable: glpat-PAYLOAD.01.LLCCCCCCC, where LL is the payload's
	// length and CCCCCCC the CRC-32 (IEEE) of everything before it, in base 36.
	GitLabRoutable
)

// fix writes into token, whose format has the given prefix, the checksum that
// it should have, taking from like, a value of the same format and length,
// what is not random. It says which bytes came from like.
func (c Checksum) fix(prefix string, token, like []byte) (from, to int) {
	body := token[len(prefix):]
	switch c {
	case CRC32Base62:
		if len(body) == 36 || len(body) == 76 {
			n := len(body) - 6
			number(body[n:], crc32.ChecksumIEEE(body[:n]), base62)
		}
	case GitHubFineGrained:
		if len(body) == 22+1+59 && body[22] == '_' {
			n := len(prefix) + 23 + 43
			sum := sha256.Sum256(token[:n])
			copy(token[n:n+8], base32.StdEncoding.EncodeToString(sum[:]))
		}
	case GitLabRoutable:
		n := len(token) - 7
		if p := bytes.IndexByte(body, '.'); p >= 27 && len(body) == p+len(".01.LLCCCCCCC") && body[p+3] == '.' {
			from, to = n-5, n
			copy(token[from:to], like[from:to])
			number(token[n:], crc32.ChecksumIEEE(token[:n]), digits+lower)
		}
	}
	return from, to
}

// number writes n in the base of alphabet, padded to the whole of into.
func number(into []byte, n uint32, alphabet string) {
	for i := len(into) - 1; i >= 0; i-- {
		into[i] = alphabet[n%uint32(len(alphabet))]
		n /= uint32(len(alphabet))
	}
}
