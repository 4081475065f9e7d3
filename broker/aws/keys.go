package aws

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"strings"
)

// KeyID is the placeholder of the access key id that goes with a placeholder of a
// secret key: AKIA and 16 characters of base32.
func KeyID(placeholder string) string {
	m := hmac.New(sha256.New, []byte("guard access key id"))
	m.Write([]byte(placeholder))
	return "AKIA" + base32.StdEncoding.EncodeToString(m.Sum(nil)[:10])
}

// Options are what --user of a kind says: what stands before the first comma, and
// NAME=VALUE after it.
func Options(user string) (first string, opts map[string]string) {
	parts := strings.Split(user, ",")
	opts = map[string]string{}
	for i, p := range parts {
		k, v, has := strings.Cut(strings.TrimSpace(p), "=")
		switch {
		case has:
			opts[k] = v
		case i == 0:
			first = k
		}
	}
	return first, opts
}

// keysOf reads a value: a secret key that goes with the id in user, "ID:SECRET",
// "ID:SECRET:TOKEN", or JSON as AWS writes it (AccessKeyId, SecretAccessKey,
// SessionToken).
func keysOf(value, user string) (keys, error) {
	id, _ := Options(user)
	value = strings.TrimSpace(value)
	if strings.HasPrefix(value, "{") {
		type pair struct{ AccessKeyId, SecretAccessKey, SessionToken, Token string }
		var v struct {
			pair
			Credentials *pair
			AccessKey   *pair
		}
		if err := json.Unmarshal([]byte(value), &v); err != nil {
			return keys{}, errors.New("its value is not JSON")
		}
		p := v.pair
		if v.Credentials != nil {
			p = *v.Credentials
		}
		if v.AccessKey != nil {
			p = *v.AccessKey
		}
		if p.SessionToken == "" {
			p.SessionToken = p.Token
		}
		if p.AccessKeyId == "" {
			p.AccessKeyId = id
		}
		if p.AccessKeyId == "" || p.SecretAccessKey == "" {
			return keys{}, errors.New("its value has no AccessKeyId and SecretAccessKey")
		}
		return keys{p.AccessKeyId, p.SecretAccessKey, p.SessionToken}, nil
	}
	if first, rest, ok := strings.Cut(value, ":"); ok {
		secret, token, _ := strings.Cut(rest, ":")
		return keys{first, secret, token}, nil
	}
	if id == "" {
		return keys{}, errors.New("its access key id is not known: guard secret edit NAME --user ID")
	}
	return keys{id: id, secret: value}, nil
}
