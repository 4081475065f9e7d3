package formats

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

var errMore = errors.New("more bytes are needed")

// judge decides whether a match is a finding. loc is what package regexp
// returns, of b; so are the finding's offsets.
func (s *search) judge(r *rule, b []byte, loc []int, encoding string) (Finding, bool) {
	from, to := r.secret(loc)
	secret := b[from:to]
	if len(secret) == 0 {
		return Finding{}, false
	}
	if len(r.near) > 0 && !containsAny(bytes.ToLower(b[max(0, loc[0]-nearBefore):loc[1]]), r.near) {
		return Finding{}, false
	}
	f := Finding{Rule: r.ID, Provider: r.Provider, Kind: r.Kind, Confidence: r.Confidence, Encoding: encoding, Start: int64(from), End: int64(to)}
	var why []string
	if r.check != nil {
		switch ok, applies := r.check(secret); {
		case !applies:
		case ok:
			if r.Checksum != "luhn" { // which one number in ten has
				f.Confidence = Verified
			}
			why = append(why, "its checksum matches")
		case r.Lenient:
			f.Confidence = Low
			why = append(why, "its checksum does not match")
		case r.Doubtful:
			if !looksRandom(secret[min(r.prefix, len(secret)):]) {
				return Finding{}, false
			}
			f.Confidence = Medium
			why = append(why, "its checksum does not match: mistyped, made up, or of a newer form")
		default:
			return Finding{}, false
		}
	}
	if r.structure != nil {
		switch what, ok := r.structure(secret); {
		case ok:
			f.Confidence = Verified
			why = append(why, "it was parsed: "+what)
		case r.Lenient:
			f.Confidence = min(f.Confidence, Medium)
		default:
			return Finding{}, false
		}
	}
	body := secret
	if from == loc[0] && r.prefix < len(secret) {
		body = secret[r.prefix:]
	}
	verified := f.Confidence == Verified
	switch {
	case !verified && !r.Plain && len(body) >= 8 && isPlaceholder(body):
		return Finding{}, false
	case r.check == nil && !r.Plain && bytes.Contains(bytes.ToUpper(body), []byte("EXAMPLE")):
		return Finding{}, false
	case r.Entropy > 0 && entropy(secret) < r.Entropy:
		return Finding{}, false
	case r.Password && !isPassword(secret):
		return Finding{}, false
	case r.Random && !verified && !looksRandom(body):
		return Finding{}, false
	case isPublic(secret):
		return Finding{}, false
	}
	if s.set.ignore != nil && s.set.ignore(secret) {
		return Finding{}, false
	}
	if len(r.allow) > 0 || len(s.set.allow) > 0 {
		match, line := b[loc[0]:loc[1]], lineOf(b, loc[0], loc[1])
		for _, list := range [][]*allow{r.allow, s.set.allow} {
			for _, a := range list {
				if a.allows(r.ID, secret, match, line, s.path) {
					return Finding{}, false
				}
			}
		}
	}
	f.Why = r.why(why)
	return f, true
}

// secret is which part of a match is the secret.
func (r *rule) secret(loc []int) (from, to int) {
	if n := 2 * r.SecretGroup; n > 0 {
		if n+1 < len(loc) && loc[n] >= 0 {
			return loc[n], loc[n+1]
		}
		return 0, 0
	}
	for i := 2; i+1 < len(loc); i += 2 {
		if loc[i] >= 0 && loc[i] < loc[i+1] {
			return loc[i], loc[i+1]
		}
	}
	return loc[0], loc[1]
}

func (r *rule) why(more []string) string {
	var w []string
	switch {
	case r.Reason != "":
		w = append(w, r.Reason)
	case len(r.Keywords) > 0 && r.cell:
		w = append(w, fmt.Sprintf("it matches the rule, near %q", r.Keywords[0]))
	case r.lead != "":
		w = append(w, fmt.Sprintf("it begins with %q and goes on as such a credential does", r.lead))
	case len(r.Near) > 0:
		w = append(w, fmt.Sprintf("it has the form, and %q is near", r.Near[0]))
	default:
		w = append(w, "it has the form of one")
	}
	return strings.Join(append(w, more...), "; ")
}

// lineOf is the line of b[from:to], of which it takes 512 bytes to each side.
func lineOf(b []byte, from, to int) []byte {
	l := max(0, from-512)
	if i := bytes.LastIndexByte(b[l:from], '\n'); i >= 0 {
		l += i + 1
	}
	e := min(len(b), to+512)
	if i := bytes.IndexByte(b[to:e], '\n'); i >= 0 {
		e = to + i
	}
	return b[l:e]
}
