package vault

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"guard"
)

// Decoy stores a credential that has no value behind it: what stands for it looks
// like a value of its kind, is random, and is never swapped. Kind, Name and
// Context must be set; Hosts, Env, In and User are the kind's unless they are
// given. ErrExists.
func (v *Vault) Decoy(c guard.Credential) (guard.Credential, error) {
	if c.Context == "" {
		c.Context = defaultContext
	}
	if _, ok := KindByName(c.Kind); !ok {
		return guard.Credential{}, fmt.Errorf("decoy %q: unknown kind %q", c.Name, c.Kind)
	}
	if c.Rotate != "" {
		return guard.Credential{}, fmt.Errorf("decoy %q: it has no value that could be rotated", c.Name)
	}
	text, err := decoyText(c.Kind)
	if err != nil {
		return guard.Credential{}, fmt.Errorf("decoy %q: %w", c.Name, err)
	}
	c = complete(c, []byte(text))
	c.Decoy, c.Placeholder, c.Created, c.Updated = true, text, now(), now()
	if err := check(c); err != nil {
		return guard.Credential{}, err
	}
	err = v.edit(c.Context, true, func(seg *segment, ck []byte) error {
		if seg.entry(c.Name) != nil {
			return fmt.Errorf("decoy %q: a credential of that name: %w", c.Name, ErrExists)
		}
		e := entry{Meta: c, Last: seg.Gone[c.Name]}
		delete(seg.Gone, c.Name)
		e.Meta.Version = v.put(&e, ck, []byte(text), Current).Number
		c.Version = e.Meta.Version
		seg.Credentials = append(seg.Credentials, e)
		return nil
	})
	if err != nil {
		return guard.Credential{}, err
	}
	return cloneMeta(c), nil
}

// decoyShape is a usual value of a kind: '?' is a random character of the
// format's alphabet, '#' a digit.
func decoyShape(kind string) string {
	n := func(n int) string { return strings.Repeat("?", n) }
	switch kind {
	case "github-pat":
		return "ghp_" + n(36)
	case "gitlab-pat":
		return "glpat-" + n(20)
	case "anthropic":
		return "sk-ant-api03-" + n(93) + "AA"
	case "openrouter":
		return "sk-or-v1-" + n(64)
	case "openai":
		return "sk-proj-" + n(74) + "T3BlbkFJ" + n(74)
	case "google-ai":
		return "AIza" + n(35)
	case "groq":
		return "gsk_" + n(52)
	case "huggingface":
		return "hf_" + n(34)
	case "npm":
		return "npm_" + n(36)
	case "pypi":
		return "pypi-AgEIcHlwaS5vcmc" + n(159)
	case "slack-bot":
		return "xoxb-" + strings.Repeat("#", 12) + "-" + strings.Repeat("#", 13) + "-" + n(24)
	case "stripe":
		return "sk_live_" + n(99)
	case "sendgrid":
		return "SG." + n(22) + "." + n(43)
	case "digitalocean":
		return "dop_v1_" + n(64)
	case "linear":
		return "lin_api_" + n(40)
	case "docker-hub":
		return "dckr_pat_" + n(27)
	case "aws", "cloudflare", "generic":
		return n(40)
	}
	return n(32)
}

func decoyText(kind string) (string, error) {
	shape := []byte(decoyShape(kind))
	f := Format{Alphabet: base62}
	for _, k := range Kinds() {
		for _, have := range k.Formats {
			if k.Name == kind && strings.HasPrefix(string(shape), have.Prefix) && len(have.Prefix) > len(f.Prefix) {
				f = have
			}
		}
	}
	key := make([]byte, keySize)
	rand.Read(key)
	defer clear(key)
	rnd := stream{key: key, name: "decoy"}
	for range 64 {
		out := make([]byte, len(shape))
		for i, c := range shape {
			switch c {
			case '?':
				c = rnd.pick(f.Alphabet)
			case '#':
				c = rnd.pick(digits)
			}
			out[i] = c
		}
		f.Check.fix(f.Prefix, out, out)
		if k := guessKind(out); k == kind || k == "generic" {
			return string(out), nil
		}
	}
	return "", errors.New("no value of that kind could be made")
}
