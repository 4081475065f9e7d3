package vault

import (
	"bytes"
	"encoding/json"
	"regexp"
)

// Kinds of credentials that sign.
const (
	kindAWS = "aws"
	kindGCP = "gcp-service-account"
)

var awsPair = regexp.MustCompile(`^(A[KS]IA[A-Z2-7]{16}):([A-Za-z0-9/+=]{16,128})(:[A-Za-z0-9/+=]+)?$`)

// keyFile reads a value that holds more than a secret: of AWS "ID:SECRET[:TOKEN]" or
// the JSON of its tools, of Google Cloud a service account's file. user is what is no
// secret in it and names the key; secrets are copies of what clients use by itself.
func keyFile(kind string, plain []byte) (user string, secrets [][]byte) {
	keep := func(s string) {
		if len(s) >= minValue {
			secrets = append(secrets, []byte(s))
		}
	}
	if m := awsPair.FindSubmatch(plain); m != nil && kind == kindAWS {
		return string(m[1]), [][]byte{bytes.Clone(m[2])}
	}
	if t := bytes.TrimSpace(plain); len(t) == 0 || t[0] != '{' {
		return "", nil
	}
	switch kind {
	case kindAWS:
		type pair struct{ AccessKeyId, SecretAccessKey, SessionToken, Token string }
		var v struct {
			pair
			Credentials, AccessKey pair
		}
		if json.Unmarshal(plain, &v) != nil {
			return "", nil
		}
		for _, p := range []pair{v.pair, v.Credentials, v.AccessKey} {
			if p.SecretAccessKey == "" {
				continue
			}
			keep(p.SecretAccessKey)
			keep(p.SessionToken)
			keep(p.Token)
			return p.AccessKeyId, secrets
		}
	case kindGCP:
		var v struct {
			Type  string `json:"type"`
			Email string `json:"client_email"`
			Key   string `json:"private_key"`
		}
		if json.Unmarshal(plain, &v) != nil || v.Type != "service_account" {
			return "", nil
		}
		keep(v.Key)
		return v.Email, secrets
	}
	return "", nil
}
