package mail

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"

	"guard"
	"guard/vault"
)

var (
	errLogin     = errors.New("login refused")
	errMechanism = errors.New("no mechanism in common")
	errPlain     = errors.New("no TLS")
	errSASL      = errors.New("login is malformed")
)

// ask has one step of a login on the wire: it sends text and returns the client's.
type ask func(text string) (string, error)

// takeLogin is a client's login by mech, one of mechanisms. initial is what came with
// the command; has: something did.
func takeLogin(mech, initial string, has bool, challenge ask) (user, password string, oauth bool, err error) {
	step := func(text string) (string, error) {
		var in string
		if has {
			in, has = initial, false
		} else if in, err = challenge(base64.StdEncoding.EncodeToString([]byte(text))); err != nil {
			return "", err
		}
		if in == "=" {
			return "", nil
		}
		b, err := base64.StdEncoding.DecodeString(in)
		if err != nil {
			return "", errSASL
		}
		return string(b), nil
	}
	switch mech {
	case "PLAIN":
		s, err := step("")
		parts := strings.Split(s, "\x00")
		if err != nil || len(parts) != 3 {
			return "", "", false, errSASL
		}
		return parts[1], parts[2], false, nil
	case "LOGIN":
		if user, err = step("Username:"); err != nil {
			return "", "", false, err
		}
		password, err = step("Password:")
		return user, password, false, err
	case "XOAUTH2", "OAUTHBEARER":
		s, err := step("")
		if err != nil {
			return "", "", false, err
		}
		for f := range strings.SplitSeq(s, "\x01") {
			if u, ok := strings.CutPrefix(f, "user="); ok {
				user = u
			}
			if _, u, ok := strings.Cut(f, ",a="); ok && strings.HasPrefix(f, "n,") {
				user, _, _ = strings.Cut(u, ",")
			}
			if k, v, ok := strings.Cut(f, "="); ok && k == "auth" {
				if scheme, token, _ := strings.Cut(v, " "); strings.EqualFold(scheme, "Bearer") {
					password = token
				}
			}
		}
		return user, password, true, nil
	}
	return "", "", false, errMechanism
}

// mechanisms are those that clients are offered.
const mechanisms = "PLAIN LOGIN XOAUTH2 OAUTHBEARER"

// account is what a value says. The password is the caller's to wipe.
func account(cred guard.Credential, client string, v guard.Secret) (user string, password []byte) {
	if user = cred.User; user == "" {
		user = client
	}
	if parts := vault.Parts(v); len(parts) > 0 {
		password = bytes.Clone(parts[len(parts)-1].Reveal())
		for _, p := range parts {
			p.Wipe()
		}
		return user, password
	}
	return user, bytes.Clone(v.Reveal())
}

// sasl is one login upstream. first is what goes with the command, where the
// mechanism has something; next answers a challenge.
type sasl struct {
	mech  string
	first []byte
	next  func(challenge []byte) ([]byte, error)
	// done says whether the server has proven what the mechanism wants proven.
	done func() bool
}

func (s *sasl) initial() string { return base64.StdEncoding.EncodeToString(s.first) }

// wipe clears what the login keeps of the value.
func (s *sasl) wipe() { clear(s.first) }

// chooseSASL takes the first of the mechanisms that the server offers. safe: the
// password may be sent as it is.
func chooseSASL(offered []string, oauth, safe bool, host string, port int, user string, password []byte) (*sasl, error) {
	has := func(m string) bool {
		for _, o := range offered {
			if strings.EqualFold(o, m) {
				return true
			}
		}
		return false
	}
	bearer := has("OAUTHBEARER") || has("XOAUTH2")
	no := func([]byte) ([]byte, error) { return nil, errLogin }
	yes := func() bool { return true }
	if safe && bearer && (oauth || !has("SCRAM-SHA-256") && !has("PLAIN") && !has("LOGIN") && !has("CRAM-MD5")) {
		if has("OAUTHBEARER") {
			first := []byte("n,a=" + strings.NewReplacer("=", "=3D", ",", "=2C").Replace(user) + ",\x01host=" + host + "\x01port=" + strconv.Itoa(port) + "\x01auth=Bearer ")
			return &sasl{"OAUTHBEARER", append(append(first, password...), 1, 1), no, yes}, nil
		}
		first := []byte("user=" + user + "\x01auth=Bearer ")
		return &sasl{"XOAUTH2", append(append(first, password...), 1, 1), no, yes}, nil
	}
	switch {
	case has("SCRAM-SHA-256"):
		return scram(user, password), nil
	case has("PLAIN") && safe:
		return &sasl{"PLAIN", append([]byte("\x00"+user+"\x00"), password...), no, yes}, nil
	case has("LOGIN") && safe:
		n := 0
		return &sasl{mech: "LOGIN", done: yes, next: func([]byte) ([]byte, error) {
			if n++; n == 1 {
				return []byte(user), nil
			}
			return bytes.Clone(password), nil
		}}, nil
	case has("CRAM-MD5"):
		return &sasl{mech: "CRAM-MD5", done: yes, next: func(challenge []byte) ([]byte, error) {
			m := hmac.New(md5.New, password)
			m.Write(challenge)
			return []byte(user + " " + hex.EncodeToString(m.Sum(nil))), nil
		}}, nil
	}
	return nil, errMechanism
}

// scram is SCRAM-SHA-256 (RFC 5802, 7677) without channel binding.
func scram(user string, password []byte) *sasl {
	nonce := rand.Text()
	bare := "n=" + strings.NewReplacer("=", "=3D", ",", "=2C").Replace(user) + ",r=" + nonce
	var want []byte
	proven := false
	n := 0
	return &sasl{mech: "SCRAM-SHA-256", first: []byte("n,," + bare), done: func() bool { return proven }, next: func(c []byte) ([]byte, error) {
		if n++; n == 2 {
			if v, ok := bytes.CutPrefix(c, []byte("v=")); ok && hmac.Equal(v, want) {
				proven = true
				return nil, nil
			}
			return nil, errLogin
		}
		var r, s string
		iterations := 0
		for f := range strings.SplitSeq(string(c), ",") {
			switch {
			case strings.HasPrefix(f, "r="):
				r = f[2:]
			case strings.HasPrefix(f, "s="):
				s = f[2:]
			case strings.HasPrefix(f, "i="):
				iterations, _ = strconv.Atoi(f[2:])
			}
		}
		salt, err := base64.StdEncoding.DecodeString(s)
		if err != nil || n != 1 || !strings.HasPrefix(r, nonce) || len(r) == len(nonce) || iterations < 4096 || iterations > 10_000_000 || len(salt) < 8 {
			return nil, errLogin
		}
		salted, err := pbkdf2.Key(sha256.New, string(password), salt, iterations, sha256.Size)
		if err != nil {
			return nil, errLogin
		}
		mac := func(key []byte, s string) []byte {
			m := hmac.New(sha256.New, key)
			m.Write([]byte(s))
			return m.Sum(nil)
		}
		final := "c=biws,r=" + r
		message := bare + "," + string(c) + "," + final
		key := mac(salted, "Client Key")
		stored := sha256.Sum256(key)
		for i, b := range mac(stored[:], message) {
			key[i] ^= b
		}
		want = []byte(base64.StdEncoding.EncodeToString(mac(mac(salted, "Server Key"), message)))
		return []byte(final + ",p=" + base64.StdEncoding.EncodeToString(key)), nil
	}}
}
