package formats

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math/big"
	"strings"
)

// checksum verifies a secret. applies is false for a secret of the kind's
// older form, which has none.
type checksum func(secret []byte) (ok, applies bool)

const (
	base62Upper = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	base62Lower = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	base36      = "0123456789abcdefghijklmnopqrstuvwxyz"
	base58      = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
)

// checksumOf returns the checksum of that name, nil for "".
//
// Where the algorithms come from: GitHub's is in its article "Behind GitHub's
// new authentication token formats" (2021), npm's is the same; GitLab's in its
// documentation of routable tokens; bech32 is BIP 173, base58check Bitcoin's,
// CRC-16/XMODEM with base32 SEP-23 and nkeys. The others were found by computing
// on published samples.
func checksumOf(name string) (checksum, error) {
	switch name {
	case "":
		return nil, nil
	case "github": // and npm, Vercel, SaladCloud: the body's CRC-32, in 6 digits of base 62
		return always(func(b []byte) bool {
			body, sum := split(afterLast(b, '_'), 6)
			return len(body) >= 8 && string(sum) == digits(crc32.ChecksumIEEE(body), base62Upper, 6)
		}), nil
	case "vercel": // "_" and "-" are in its alphabet
		return always(func(b []byte) bool {
			if i := bytes.IndexByte(b, '_'); i >= 0 {
				b = b[i+1:]
			}
			body, sum := split(b, 6)
			return len(body) >= 8 && string(sum) == digits(crc32.ChecksumIEEE(body), base62Upper, 6)
		}), nil
	case "github-fine-grained":
		return always(func(b []byte) bool {
			i := bytes.LastIndexByte(b, '_') + 1
			return len(b)-i == 59 && string(b[i+43:i+51]) == fineGrained(b[:i+43])
		}), nil
	case "gitlab-routable":
		return func(b []byte) (ok, applies bool) {
			i := bytes.LastIndexByte(b, '.')
			if i < 0 || len(b)-i != 10 {
				return false, false
			}
			body, sum := split(b, 7)
			return string(sum) == digits(crc32.ChecksumIEEE(body), base36, 7), true
		}, nil
	case "apify":
		return func(b []byte) (ok, applies bool) {
			body, sum := split(b, 6)
			return string(sum) == digits(crc32.ChecksumIEEE(body), base62Lower, 6), len(b) == 46
		}, nil
	case "atlassian": // upper hex, of everything before
		return always(func(b []byte) bool {
			body, sum := split(b, 8)
			return string(sum) == fmt.Sprintf("%08X", crc32.ChecksumIEEE(body))
		}), nil
	case "canva": // lower hex, of everything before
		return always(func(b []byte) bool {
			body, sum := split(b, 8)
			return string(sum) == fmt.Sprintf("%08x", crc32.ChecksumIEEE(body))
		}), nil
	case "crc32-hex": // Cloudflare, Zuplo: of the body alone, which "_" may end
		return always(func(b []byte) bool {
			body, sum := split(b, 8)
			if i := bytes.IndexByte(body, '_'); i >= 0 {
				body = body[i+1:]
			}
			return string(sum) == fmt.Sprintf("%08x", crc32.ChecksumIEEE(bytes.TrimSuffix(body, []byte("_"))))
		}), nil
	case "grafana": // little endian
		return always(func(b []byte) bool {
			body, sum := split(b, 9)
			var le [4]byte
			binary.LittleEndian.PutUint32(le[:], crc32.ChecksumIEEE(body))
			return len(sum) == 9 && strings.EqualFold(string(sum[1:]), hex.EncodeToString(le[:]))
		}), nil
	case "bech32":
		return always(validBech32), nil
	case "base58check":
		return always(validBase58Check), nil
	case "crc16-base32":
		return always(validCRC16), nil
	case "luhn":
		return always(validLuhn), nil
	case "bip39":
		return always(validMnemonic), nil
	}
	return nil, fmt.Errorf("unknown checksum %q", name)
}

func always(f func([]byte) bool) checksum {
	return func(b []byte) (bool, bool) { return f(b), true }
}

func afterLast(b []byte, c byte) []byte { return b[bytes.LastIndexByte(b, c)+1:] }

func split(b []byte, tail int) (body, sum []byte) {
	n := max(0, len(b)-tail)
	return b[:n], b[n:]
}

// digits writes n in the base of alphabet, in width digits.
func digits(n uint32, alphabet string, width int) string {
	b := bytes.Repeat([]byte{alphabet[0]}, width)
	for i := width - 1; n > 0 && i >= 0; i-- {
		b[i] = alphabet[n%uint32(len(alphabet))]
		n /= uint32(len(alphabet))
	}
	return string(b)
}

// fineGrained is the 8 characters after the first 43 of a fine-grained token's
// second part, of everything before them.
func fineGrained(b []byte) string {
	sum := sha256.Sum256(b)
	return base32.StdEncoding.EncodeToString(sum[:])[:8]
}

const bech32Alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"

func bech32Polymod(values []byte) uint32 {
	c := uint32(1)
	for _, v := range values {
		top := c >> 25
		c = c&0x1ffffff<<5 ^ uint32(v)
		for i, g := range [...]uint32{0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3} {
			if top>>i&1 != 0 {
				c ^= g
			}
		}
	}
	return c
}

func bech32Expand(hrp string) []byte {
	var v []byte
	for i := range len(hrp) {
		v = append(v, hrp[i]>>5)
	}
	v = append(v, 0)
	for i := range len(hrp) {
		v = append(v, hrp[i]&31)
	}
	return v
}

func validBech32(b []byte) bool {
	s := strings.ToLower(string(b))
	i := strings.LastIndexByte(s, '1')
	if i < 1 || len(s)-i < 7 || s != string(b) && strings.ToUpper(s) != string(b) {
		return false
	}
	v := bech32Expand(s[:i])
	for _, c := range s[i+1:] {
		d := strings.IndexRune(bech32Alphabet, c)
		if d < 0 {
			return false
		}
		v = append(v, byte(d))
	}
	return bech32Polymod(v) == 1
}

// bech32Sum is the checksum of data, values of 5 bits, in 6 characters.
func bech32Sum(hrp string, data []byte) string {
	v := append(append(bech32Expand(hrp), data...), 0, 0, 0, 0, 0, 0)
	p := bech32Polymod(v) ^ 1
	var out [6]byte
	for i := range out {
		out[i] = bech32Alphabet[p>>(5*(5-i))&31]
	}
	return string(out[:])
}

func validBase58Check(b []byte) bool {
	n := new(big.Int)
	radix := big.NewInt(58)
	for _, c := range b {
		d := strings.IndexByte(base58, c)
		if d < 0 {
			return false
		}
		n.Mul(n, radix).Add(n, big.NewInt(int64(d)))
	}
	raw := n.Bytes()
	if len(raw) < 5 {
		return false
	}
	body, sum := split(raw, 4)
	return string(sum) == string(base58Sum(body))
}

func base58Sum(body []byte) []byte {
	first := sha256.Sum256(body)
	second := sha256.Sum256(first[:])
	return second[:4]
}

// crc16 is CRC-16/XMODEM.
func crc16(b []byte) uint16 {
	c := uint16(0)
	for _, x := range b {
		c ^= uint16(x) << 8
		for range 8 {
			if c&0x8000 != 0 {
				c = c<<1 ^ 0x1021
			} else {
				c <<= 1
			}
		}
	}
	return c
}

func validCRC16(b []byte) bool {
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(string(b))
	if err != nil || len(raw) < 3 {
		return false
	}
	body, sum := split(raw, 2)
	return binary.LittleEndian.Uint16(sum) == crc16(body)
}

func validLuhn(b []byte) bool {
	sum, n := 0, 0
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] < '0' || b[i] > '9' {
			continue
		}
		d := int(b[i] - '0')
		if n%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
		n++
	}
	return n >= 13 && sum%10 == 0
}
