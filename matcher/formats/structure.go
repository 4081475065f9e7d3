package formats

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// structure parses a secret, and says what it is: "a JWT signed with HS256".
type structure func(secret []byte) (what string, ok bool)

func structureOf(name string) (structure, error) {
	switch name {
	case "":
		return nil, nil
	case "jwt":
		return func(b []byte) (string, bool) { _, what, ok := parseJWT(b); return what, ok }, nil
	case "kubernetes-jwt":
		return func(b []byte) (string, bool) {
			payload, what, ok := parseJWT(b)
			return what, ok && bytes.Contains(payload, []byte("kubernetes"))
		}, nil
	case "pem":
		return parsePEM, nil
	case "json": // base64 of a JSON object, after the last "_" or "." that comes before it
		return func(b []byte) (string, bool) {
			i := bytes.Index(b, []byte("eyJ"))
			return "its base64 is a JSON object", i >= 0 && isObject(decodeLax(b[i:]))
		}, nil
	case "bedrock":
		return func(b []byte) (string, bool) {
			return "its base64 begins with BedrockAPIKey-", len(b) > 4 && bytes.HasPrefix(decodeLax(b[4:]), []byte("BedrockAPIKey-"))
		}, nil
	case "artifactory-reference":
		return func(b []byte) (string, bool) {
			return "its base64 begins with reftkn:", bytes.HasPrefix(decodeLax(b), []byte("reftkn:"))
		}, nil
	case "macaroon":
		return func(b []byte) (string, bool) {
			i := bytes.IndexByte(b, '-') + 1
			raw := decodeLax(b[i:])
			// Version 2: 2, then the field of the location: 1, its length, it.
			return "its base64 is a macaroon", len(raw) > 3 && raw[0] == 2 && raw[1] == 1 && int(raw[2])+3 <= len(raw) && bytes.IndexByte(raw[3:3+int(raw[2])], '.') > 0
		}, nil
	case "64-bytes":
		return func(b []byte) (string, bool) { return "its base64 is 64 bytes", len(decodeLax(b)) == 64 }, nil
	case "32-bytes":
		return func(b []byte) (string, bool) {
			b = bytes.ReplaceAll(b, []byte("%2B"), []byte("+"))
			b = bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("%2b"), []byte("+")), []byte("%2f"), []byte("/"))
			b = bytes.ReplaceAll(b, []byte("%2F"), []byte("/"))
			if i := bytes.IndexByte(b, '%'); i >= 0 {
				b = b[:i]
			}
			return "its base64 is 32 bytes", len(decodeLax(b)) == 32
		}, nil
	case "user-password":
		return func(b []byte) (string, bool) {
			raw := decodeLax(b)
			i := bytes.IndexByte(raw, ':')
			return "its base64 is a name and a password", i > 0 && printable(raw) && isPassword(raw[i+1:])
		}, nil
	case "text-base64":
		return func(b []byte) (string, bool) {
			raw := decodeLax(b)
			return "it is base64", len(raw) >= 6 && entropy(raw) > 2.5 && !isPlaceholder(raw)
		}, nil
	case "discord":
		return func(b []byte) (string, bool) {
			id := decodeLax(b[:max(0, bytes.IndexByte(b, '.'))])
			_, err := strconv.ParseUint(string(id), 10, 64)
			return "its first part is an account's number", err == nil && len(id) >= 16
		}, nil
	case "azure-identifiable":
		return func(b []byte) (string, bool) {
			raw := decodeLax(b)
			return "it has the mark of an Azure key", len(raw) >= 32
		}, nil
	}
	return nil, fmt.Errorf("unknown structure %q", name)
}

// decodeLax decodes base64 or base64url, padded or not, up to the first byte
// that is neither.
func decodeLax(b []byte) []byte {
	std := make([]byte, 0, len(b))
	for _, c := range b {
		switch c {
		case '-':
			c = '+'
		case '_':
			c = '/'
		}
		if base64Value[c] < 0 {
			break
		}
		std = append(std, c)
	}
	if len(std)%4 == 1 {
		std = std[:len(std)-1]
	}
	raw := make([]byte, base64.RawStdEncoding.DecodedLen(len(std)))
	n, err := base64.RawStdEncoding.Decode(raw, std)
	if err != nil {
		return nil
	}
	return raw[:n]
}

// base64Value is a character's value in base64 or base64url; -1: it is none.
var base64Value = func() (t [256]int8) {
	for i := range t {
		t[i] = -1
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		t[c] = int8(i)
	}
	t['-'], t['_'] = 62, 63
	return t
}()

func isObject(b []byte) bool {
	var m map[string]json.RawMessage
	return json.Unmarshal(b, &m) == nil && len(m) > 0
}

// parseJWT reads a compact JWS (RFC 7515) and returns its payload.
func parseJWT(b []byte) (payload []byte, what string, ok bool) {
	parts := bytes.Split(b, []byte("."))
	if len(parts) < 3 {
		return nil, "", false
	}
	var header struct {
		Alg string `json:"alg"`
	}
	if json.Unmarshal(decodeLax(parts[0]), &header) != nil || header.Alg == "" || header.Alg == "none" || len(header.Alg) > 24 {
		return nil, "", false
	}
	payload = decodeLax(parts[1])
	if !isObject(payload) || len(parts[2]) < 20 || isPlaceholder(parts[2]) {
		return nil, "", false
	}
	for _, w := range []string{"John Doe", "Jane Doe", "supabase-demo", `"some":"payload"`} { // of jwt.io, and of manuals
		if bytes.Contains(payload, []byte(w)) {
			return nil, "", false
		}
	}
	for _, c := range header.Alg {
		if c < '-' || c > 'z' {
			return nil, "", false
		}
	}
	return payload, "a JWT signed with " + header.Alg, true
}

// parsePEM reads a private key, also one whose line breaks are written as
// escapes.
func parsePEM(b []byte) (string, bool) {
	text := unescapeBreaks(b)
	block, _ := pem.Decode(text)
	if block == nil {
		return "", false
	}
	if bytes.HasPrefix(block.Bytes, []byte("openssh-key-v1\x00")) {
		return "an OpenSSH private key", true
	}
	if block.Headers["DEK-Info"] != "" {
		return "an encrypted private key", len(block.Bytes) >= 32
	}
	if _, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
		return "a PKCS #8 private key", true
	}
	if _, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return "a PKCS #1 private key", true
	}
	if _, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return "a SEC 1 private key", true
	}
	if block.Type == "PGP PRIVATE KEY BLOCK" {
		return "an OpenPGP secret key", len(block.Bytes) > 32 && block.Bytes[0]&0x80 != 0
	}
	// Keys of kinds that the standard library does not know, and encrypted ones.
	var seq asn1.RawValue
	rest, err := asn1.Unmarshal(block.Bytes, &seq)
	return "a private key in DER", err == nil && len(rest) == 0 && seq.Tag == asn1.TagSequence && len(seq.Bytes) >= 24
}

// unescapeBreaks turns \n, \r\n and \\n into line breaks and takes away what
// comes between a line break and a line: indentation, quotes, plus signs.
func unescapeBreaks(b []byte) []byte {
	for _, e := range []string{`\\r\\n`, `\\n`, `\r\n`, `\n`, "\r\n"} {
		b = bytes.ReplaceAll(b, []byte(e), []byte("\n"))
	}
	lines := bytes.Split(b, []byte("\n"))
	for i, l := range lines {
		l = bytes.TrimSpace(l)
		for _, join := range []string{"+", "\\", "."} { // of a string in pieces, after its quote; "+" is in the alphabet too
			if cut := bytes.TrimSpace(bytes.TrimSuffix(l, []byte(join))); len(cut) < len(l) && bytes.ContainsAny(cut[max(0, len(cut)-1):], "\"'`") {
				l = cut
			}
		}
		lines[i] = bytes.Trim(l, " \t\"'`,;>|*#")
	}
	return append(bytes.Join(lines, []byte("\n")), '\n')
}

func printable(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	for _, c := range b {
		if c < 0x20 || c == 0x7f {
			return false
		}
	}
	return true
}

// entropy is Shannon's, of the bytes of b, in bits a byte.
func entropy(b []byte) float64 {
	var count [256]int
	for _, c := range b {
		count[c]++
	}
	h, n := 0.0, float64(len(b))
	for _, k := range count {
		if k > 0 {
			p := float64(k) / n
			h -= p * math.Log2(p)
		}
	}
	return h
}

// le16 is used by samples and checks of base32 payloads.
func le16(n uint16) []byte { return binary.LittleEndian.AppendUint16(nil, n) }
