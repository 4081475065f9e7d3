package matcher

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"guard"
)

// ErrRefused is wrapped by the errors of Refuse, and by those of New, Set and
// Add that are about a value which cannot be looked for.
var ErrRefused = errors.New("this value cannot be looked for")

const (
	minNeedle = 8         // bytes: anything shorter is met by chance
	maxNeedle = 512       // bytes: longer forms are cut into pieces
	minLine   = 16        // bytes: shorter lines of a multi-line value are no needles
	maxValue  = 32 * 1024 // bytes
)

// Refuse says why a value cannot be looked for: it is too short, too long, one
// byte repeated, only digits, or a common word, so that looking for it would
// mask output that has nothing to do with it. nil means that it can. The error
// wraps ErrRefused and holds nothing of the value.
func Refuse(v guard.Secret) error {
	return refuse(trim(v.Reveal()))
}

func refuse(b []byte) error {
	no := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
	}
	var seen [256]bool
	distinct, digits, word := 0, 0, 0
	for _, c := range b {
		if !seen[c] {
			seen[c] = true
			distinct++
		}
		switch {
		case '0' <= c && c <= '9':
			digits++
		case 'a' <= c|0x20 && c|0x20 <= 'z', c >= 0x80:
			word++
		}
	}
	switch {
	case len(b) < minNeedle:
		return no("it has under %d bytes; make the credential longer", minNeedle)
	case len(b) > maxValue:
		return no("it has over %d bytes; store the secret part by itself", maxValue)
	case distinct == 1:
		return no("it is one byte repeated")
	case word+digits == 0 && distinct < 4:
		return no("it is a line of punctuation")
	case digits == len(b) && len(b) < 10:
		return no("it is a number of under 10 digits")
	case len(b) <= 24 && slices.Contains(commonWords(), strings.ToLower(string(b))):
		return no("it is a common word; change the credential")
	}
	return nil
}

// trim cuts what does not belong to a value: white space around it, and then a
// pair of quotes.
func trim(b []byte) []byte {
	b = bytes.TrimSpace(b)
	if n := len(b); n >= minNeedle+2 && (b[0] == '"' || b[0] == '\'') && b[n-1] == b[0] {
		return b[1 : n-1]
	}
	return b
}

// commonWords are strings of 8 bytes or more that programs print all day, and
// the passwords that everybody has: masking them would hide that they are
// common, and break what is printed.
func commonWords() []string {
	return strings.Fields(`
		password password1 password12 password123 password1234 passw0rd p@ssw0rd p@ssword pa$$word
		username administrator anonymous localhost localhost.localdomain 127.0.0.1 postgres postgresql
		mysqladmin database databases production development changeme changeit change_me change-me
		changeme123 replaceme replace_me replace-me undefined disabled enabled required optional
		function internal external security default_password defaultpassword root1234 admin123
		admin1234 adminadmin rootroot guestguest welcome1 welcome123 letmein1 letmein123 iloveyou
		sunshine princess football baseball basketball superman batman123 trustno1 starwars whatever
		computer michelle jennifer qwertyui qwertyuiop qwerty123 qwerty12 asdfghjk asdfghjkl zxcvbnm1
		1q2w3e4r 1q2w3e4r5t 1qaz2wsx q1w2e3r4 abcd1234 abc12345 a1b2c3d4 test1234 testtest testing1
		testing123 1234567890 0123456789 9876543210 0987654321 00000000 11111111 123123123 1234512345
		example.com www.example.com example1 placeholder your_password your-password yourpassword
		your_api_key your-api-key your_api_key_here your-api-key-here your_token your-token
		your_token_here your_secret your-secret insert_key_here api_key_here secret_key secretkey
		secret-key access_key access-key accesskey private_key private-key privatekey access_token
		access-token accesstoken auth_token auth-token api_token api-token redacted [redacted]
		[secret] [masked] <redacted> <password> <token> ******** xxxxxxxx encrypted protected
		authorization bearer_token application continue response requests document documents
		directory download downloads settings services template resource resources workspace
		username:password user:password user:pass admin:admin root:root guest:guest postgres:postgres
		minioadmin rabbitmq elasticsearch kubernetes terraform`)
}
