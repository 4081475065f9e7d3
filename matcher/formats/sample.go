package formats

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"hash/crc32"
	"math/big"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
)

// Sample makes a credential of the form of a built-in rule, with a checksum
// and a structure that are valid: the same one for the same seed. It is for tests, so that no
// file has to hold what looks like a live credential. Where the form needs a keyword near it, the
// sample has it. "": there is no such rule.
func Sample(ruleID string, seed uint64) string {
	rules, err := builtin()
	if err != nil {
		return ""
	}
	for _, r := range rules {
		if r.ID == ruleID && len(r.Positive) > 0 {
			s, err := expand(r.Positive[seed%uint64(len(r.Positive))], seed)
			if err != nil {
				return ""
			}
			return s
		}
	}
	return ""
}

// sampler expands a template:
//
//	{[a-z]:5} {[a-z]:5-9}   as many characters of a class
//	{=x:36}                 x 36 times
//	{bytes:32} {raw:0a0b}   random bytes, and given ones
//	{b64<}...{>}            what is between, in base64; {b64u<}: base64url without padding
//	{^} {mark}              checksums are about what comes after ^, up to mark
//
// and a checksum or a structure by its name.
type sampler struct {
	rand *rand.Rand
	out  []byte
	from int // of what checksums are about
	to   int // -1: all of it
}

func expand(template string, seed uint64) (string, error) {
	s := &sampler{rand: rand.New(rand.NewPCG(seed, 0x5eed)), to: -1}
	rest, err := s.run(template)
	if err == nil && rest != "" {
		err = fmt.Errorf("template has a {>} too many")
	}
	return string(s.out), err
}

// run expands t up to {>}, and returns what comes after that.
func (s *sampler) run(t string) (string, error) {
	for t != "" {
		i := strings.IndexByte(t, '{')
		if i < 0 {
			s.out = append(s.out, t...)
			return "", nil
		}
		s.out = append(s.out, t[:i]...)
		t = t[i:]
		macro, rest, ok := cutMacro(t)
		if n := len(s.out); ok && n > 0 && s.out[n-1] == '$' && macro[0] != '[' {
			ok = false // a variable of a shell
		}
		if !ok {
			s.out = append(s.out, '{')
			t = t[1:]
			continue
		}
		t = rest
		var err error
		switch macro {
		case ">":
			return t, nil
		case "b64<", "b64u<":
			in := &sampler{rand: s.rand, to: -1}
			if t, err = in.run(t); err != nil {
				return "", err
			}
			enc := base64.StdEncoding
			if macro == "b64u<" {
				enc = base64.RawURLEncoding
			}
			s.out = enc.AppendEncode(s.out, in.out)
		default:
			if err := s.macro(macro); err != nil {
				return "", err
			}
		}
	}
	return "", nil
}

// cutMacro reads a macro at the beginning of t; braces of JSON are none.
func cutMacro(t string) (macro, rest string, ok bool) {
	end := strings.IndexByte(t, '}')
	if strings.HasPrefix(t, "{[") {
		if i := strings.Index(t, "]:"); i > 0 {
			if j := strings.IndexByte(t[i:], '}'); j > 0 {
				end = i + j
			}
		}
	}
	if end < 2 {
		return "", "", false
	}
	macro = t[1:end]
	if strings.ContainsAny(macro, "\"\n ") && macro[0] != '[' {
		return "", "", false
	}
	return macro, t[end+1:], true
}

func (s *sampler) macro(m string) error {
	covered := func() []byte {
		if s.to >= 0 {
			return s.out[s.from:s.to]
		}
		return s.out[s.from:]
	}
	sum := func() uint32 { return crc32.ChecksumIEEE(covered()) }
	name, arg, _ := strings.Cut(m, ":")
	switch name {
	case "^":
		s.from = len(s.out)
	case "mark":
		s.to = len(s.out)
	case "github":
		s.add(digits(sum(), base62Upper, 6))
	case "apify":
		s.add(digits(sum(), base62Lower, 6))
	case "gitlab":
		s.add(digits(sum(), base36, 7))
	case "len36": // how long the payload between prefix and first "." is
		body, _, _ := strings.Cut(string(s.out[strings.IndexByte(string(s.out), '-')+1:]), ".")
		s.add(digits(uint32(len(body)), base36, 2))
	case "atlassian":
		s.add(fmt.Sprintf("%08X", sum()))
	case "canva":
		s.add(fmt.Sprintf("%08x", sum()))
	case "crc32hex":
		body := covered()
		if s.from == 0 && s.to < 0 {
			body = afterLast(body, '_')
		}
		s.add(fmt.Sprintf("%08x", crc32.ChecksumIEEE(body)))
	case "grafana": // of all but the "_" before it
		s.add(hex.EncodeToString(binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(s.out[:len(s.out)-1]))))
	case "fine":
		s.add(fineGrained(s.out))
	case "age":
		s.add(strings.ToUpper(s.bech32("age-secret-key-", 52)))
	case "nsec":
		s.add(s.bech32("nsec", 52))
	case "wif":
		n, _ := strconv.Atoi(arg)
		b := append([]byte{0x80}, s.bytes(32)...)
		if n == 34 {
			b = append(b, 1)
		}
		s.add(toBase58(append(b, base58Sum(b)...)))
	case "xprv":
		b := append([]byte{0x04, 0x88, 0xad, 0xe4}, s.bytes(41)...)
		b = append(append(b, 0), s.bytes(32)...)
		s.add(toBase58(append(b, base58Sum(b)...)))
	case "stellar":
		b := append([]byte{18 << 3}, s.bytes(32)...)
		s.add(base32.StdEncoding.EncodeToString(append(b, le16(crc16(b))...)))
	case "nkey": // a seed of a user: 18<<3 with the type's bits in between
		b := append([]byte{18<<3 | 20<<3>>5, 20 << 3 & 31 << 3}, s.bytes(32)...)
		s.add(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(append(b, le16(crc16(b))...)))
	case "mnemonic":
		n, _ := strconv.Atoi(arg)
		s.add(mnemonic(s.bytes(n)))
	case "card":
		b := []byte("5" + s.class("[1-5]", 1) + s.class("[0-9]", 13))
		for c := byte('0'); c <= '9'; c++ {
			if validLuhn(append(b[:15:15], c)) {
				s.add(string(b) + string(c))
			}
		}
	case "jwt":
		s.jwt(`{"alg":"HS256","typ":"JWT"}`, `{"sub":"`+s.class("[0-9a-f]", 16)+`","iat":17`+s.class("[0-9]", 8)+`}`, 32)
	case "k8sjwt":
		s.jwt(`{"alg":"RS256","kid":"`+s.class("[0-9A-Za-z]", 20)+`"}`, `{"iss":"kubernetes/serviceaccount","kubernetes.io/serviceaccount/namespace":"default","sub":"system:serviceaccount:default:`+s.class("[a-z]", 6)+`"}`, 256)
	case "pem":
		return s.pem(arg)
	case "bytes":
		n, _ := strconv.Atoi(arg)
		s.out = append(s.out, s.bytes(n)...)
	case "raw":
		b, err := hex.DecodeString(arg)
		s.out = append(s.out, b...)
		return err
	case "urlb64":
		n, _ := strconv.Atoi(arg)
		s.add(url.QueryEscape(base64.StdEncoding.EncodeToString(s.bytes(n))))
	default:
		if rest, ok := strings.CutPrefix(m, "="); ok {
			i := strings.LastIndexByte(rest, ':')
			n, err := strconv.Atoi(rest[i+1:])
			if i < 0 || err != nil {
				return fmt.Errorf("template: malformed repetition")
			}
			s.add(strings.Repeat(rest[:i], n))
			return nil
		}
		i := strings.LastIndexByte(m, ':')
		if m[0] != '[' || i < 0 {
			return fmt.Errorf("template: unknown macro %q", m)
		}
		lo, hi, ranged := strings.Cut(m[i+1:], "-")
		n, err := strconv.Atoi(lo)
		if err != nil {
			return fmt.Errorf("template: malformed count in %q", m)
		}
		if ranged {
			k, err := strconv.Atoi(hi)
			if err != nil || k < n {
				return fmt.Errorf("template: malformed range in %q", m)
			}
			n += s.rand.IntN(k - n + 1)
		}
		text := s.class(m[:i], n)
		if len(text) != n {
			return fmt.Errorf("template: malformed class in %q", m)
		}
		s.add(text)
	}
	return nil
}

func (s *sampler) add(text string) { s.out = append(s.out, text...) }

func (s *sampler) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(s.rand.Uint32())
	}
	return b
}

func (s *sampler) class(expr string, n int) string {
	set, err := class(expr, "")
	if err != nil {
		return ""
	}
	var from, out []byte
	set.each(func(c byte) { from = append(from, c) })
	for range n {
		out = append(out, from[s.rand.IntN(len(from))])
	}
	return string(out)
}

func (s *sampler) bech32(hrp string, n int) string {
	data := make([]byte, n)
	text := hrp + "1"
	for i := range data {
		data[i] = byte(s.rand.IntN(32))
		if i == n-1 {
			data[i] &= 0x10 // 32 bytes are 51 characters and a bit
		}
		text += string(bech32Alphabet[data[i]])
	}
	return text + bech32Sum(hrp, data)
}

func (s *sampler) jwt(header, payload string, signature int) {
	enc := base64.RawURLEncoding
	s.add(enc.EncodeToString([]byte(header)) + "." + enc.EncodeToString([]byte(payload)) + "." + enc.EncodeToString(s.bytes(signature)))
}

// pem adds a private key: "pkcs8", "ec", "rsa" or "openssh", and with ":json"
// its line breaks written as \n.
func (s *sampler) pem(kind string) error {
	kind, form, _ := strings.Cut(kind, ":")
	block := &pem.Block{}
	var err error
	switch kind {
	case "pkcs8":
		block.Type = "PRIVATE KEY"
		block.Bytes, err = x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(s.bytes(32)))
	case "ec":
		block.Type = "EC PRIVATE KEY"
		var key *ecdsa.PrivateKey
		if key, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), append([]byte{1}, s.bytes(31)...)); err == nil {
			block.Bytes, err = x509.MarshalECPrivateKey(key)
		}
	case "rsa": // the form, with numbers that are not primes
		block.Type = "RSA PRIVATE KEY"
		n := func(size int) *big.Int { return new(big.Int).SetBytes(append([]byte{0xc1}, s.bytes(size-1)...)) }
		block.Bytes, err = asn1.Marshal(struct {
			Version                   int
			N                         *big.Int
			E                         int
			D, P, Q, Dp, Dq, Qinverse *big.Int
		}{0, n(256), 65537, n(256), n(128), n(128), n(128), n(128), n(128)})
	case "openssh":
		block.Type = "OPENSSH PRIVATE KEY"
		block.Bytes = append([]byte("openssh-key-v1\x00\x00\x00\x00\x04none\x00\x00\x00\x04none\x00\x00\x00\x00\x00\x00\x00\x01"), s.bytes(240)...)
	default:
		err = fmt.Errorf("template: unknown key %q", kind)
	}
	if err != nil {
		return err
	}
	text := string(pem.EncodeToMemory(block))
	if form == "json" {
		text = strings.ReplaceAll(text, "\n", `\n`)
	}
	s.add(text)
	return nil
}

// toBase58 writes b in Bitcoin's base 58; b does not begin with 0.
func toBase58(b []byte) string {
	n := new(big.Int).SetBytes(b)
	var out []byte
	for radix, d := big.NewInt(58), new(big.Int); n.Sign() > 0; {
		n.DivMod(n, radix, d)
		out = append(out, base58[d.Int64()])
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return string(out)
}

// seedOf turns a name into a seed, for tests that want one for each.
func seedOf(name string) uint64 {
	sum := sha256.Sum256([]byte(name))
	return binary.LittleEndian.Uint64(sum[:])
}
