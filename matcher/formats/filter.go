package formats

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"strings"
	"sync"
)

// placeholderWords in a secret, letters in either case, mean that it is none.
// Each is long enough not to come up at random.
var placeholderWords = [][]byte{
	[]byte("example"), []byte("xxxx"), []byte("your_"), []byte("your-"), []byte("yourtoken"), []byte("yourapi"), []byte("yourkey"), []byte("yoursecret"),
	[]byte("placeholder"), []byte("redacted"), []byte("changeme"), []byte("change_me"), []byte("change-me"), []byte("dummy"), []byte("foobar"), []byte("qwerty"),
	[]byte("insert"), []byte("replace"), []byte("token_here"), []byte("key_here"), []byte("goes_here"), []byte("not_a_real"), []byte("notreal"), []byte("fake_"), []byte("fake-"), []byte("faketoken"),
	[]byte("1234567890"), []byte("0123456789"), []byte("abcdefgh"), []byte("deadbeefdeadbeef"), []byte("<"), []byte("${"), []byte("{{"), []byte("..."), []byte("***"),
}

// isPlaceholder says that nobody drew b at random: it has a word of
// documentation in it, counts, repeats itself, or has hardly any variety.
func isPlaceholder(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	lower := bytes.ToLower(b)
	if containsAny(lower, placeholderWords) {
		return true
	}
	same, step, step2 := 1, 1, 1
	for i := 1; i < len(lower); i++ {
		if lower[i] == lower[i-1] {
			same++
		} else {
			same = 1
		}
		if lower[i] == lower[i-1]+1 {
			step++
		} else {
			step = 1
		}
		if i >= 2 && lower[i] == lower[i-2]+1 {
			step2++
		} else {
			step2 = 1
		}
		if same >= 7 || step >= 7 || step2 >= 9 {
			return true
		}
	}
	if len(b) < 16 {
		return false
	}
	var seen byteSet
	for _, c := range lower {
		seen.add(c)
	}
	if seen.size() <= 5 {
		return true
	}
	for p := 2; p <= len(lower)/2 && p <= 16; p++ {
		if bytes.Equal(lower[p:], lower[:len(lower)-p]) {
			return true
		}
	}
	return false
}

// looksRandom tells what was drawn at random from names and words: how often
// letters, digits and, within a word, cases change.
func looksRandom(b []byte) bool {
	kind := func(c byte) int {
		switch {
		case c >= '0' && c <= '9':
			return 1
		case c >= 'a' && c <= 'z':
			return 2
		case c >= 'A' && c <= 'Z':
			return 3
		}
		return 0
	}
	changes, digits, n := 0, 0, 0
	for i := range b {
		k := kind(b[i])
		if k == 0 {
			continue
		}
		n++
		if k == 1 {
			digits++
		}
		if i == 0 {
			continue
		}
		switch was := kind(b[i-1]); {
		case was == 0 || was == k:
		case was == 3 && k == 2 && (i < 2 || kind(b[i-2]) != 3):
			// The capital of a word: counted when it came.
		default:
			changes++
		}
	}
	if n == 0 || digits == 0 {
		return false
	}
	return digits < n && changes*8 >= n && changes >= 2
}

// commonPasswords are what people write where a password goes in an example.
var commonPasswords = sync.OnceValue(func() map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields("pass passwd password passw0rd password1 secret admin test guest user root foo bar baz pw pwd token key mypassword mysecret mypass letmein hunter2 hunter2hunter welcome postgres mysql redis rabbitmq mongodb default anonymous username credentials private s3cret s3cr3t p@ssw0rd p4ssw0rd open sesame opensesame swordfish xyzzy abc123 changeit") {
		m[w] = true
	}
	return m
})

// isPassword says that b may be somebody's password, and is none of an example.
func isPassword(b []byte) bool {
	lower := strings.ToLower(string(b))
	if len(b) < 8 || isPlaceholder(b) || entropy(b) < 2.5 {
		return false
	}
	if commonPasswords()[strings.TrimRight(lower, "0123456789!.,;'\"")] {
		return false
	}
	for _, w := range []string{"password", "passwd", "secret", "example", "test", "foo", "bar", "user", "pass"} {
		if strings.Contains(lower, w) {
			return false
		}
	}
	// A word, or words, are a name more often than a password.
	if len(strings.TrimLeft(strings.TrimRight(lower, "0123456789"), "abcdefghijklmnopqrstuvwxyz_-")) == 0 && len(b) < 16 {
		return false // words and a number
	}
	digit, upper, low := 0, 0, 0
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			digit++
		case c >= 'A' && c <= 'Z':
			upper++
		case c >= 'a' && c <= 'z':
			low++
		case c == '$' || c == '{' || c == '%' || c == '@':
			return false // a variable, a format, an address
		}
	}
	return digit > 0 && upper+low > 0
}

//go:embed rules/public.txt
var publicList string

// public are credentials that are in documentation, standards and test suites
// everybody has. The list has the first 8 bytes of their SHA-256, in hex.
var public = sync.OnceValue(func() map[[8]byte]bool {
	m := map[[8]byte]bool{}
	for line := range strings.Lines(publicList) {
		sum, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if raw, err := hex.DecodeString(sum); err == nil && len(raw) == 8 {
			m[[8]byte(raw)] = true
		}
	}
	return m
})

// isPublic says that secret is in the list. Of a PEM block its base64 counts,
// however it is broken into lines.
func isPublic(secret []byte) bool {
	if i := bytes.Index(secret, []byte("-----BEGIN ")); i >= 0 {
		var body []byte
		for line := range bytes.Lines(unescapeBreaks(secret[i:])) {
			if line = bytes.TrimSpace(line); !bytes.Contains(line, []byte("-----")) && !bytes.Contains(line, []byte(":")) {
				body = append(body, line...)
			}
		}
		secret = body
	}
	sum := sha256.Sum256(secret)
	return public()[[8]byte(sum[:8])]
}
