package scan

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// Allow is an entry of an allow-list: a finding that all of its conditions hold
// for is none. A known value is allowed only by Fingerprint or Credential, so
// that no rule for test files hides a live credential in one.
type Allow struct {
	Reason      string
	Fingerprint string
	Rule        string // of a format
	Credential  string
	Path        string    // as a line of .gitignore, from any folder
	Expires     time.Time // zero: never
	File        string    // that it stands in
	Entry       int       // from 1

	pattern pattern
}

// LoadAllow reads an allow-list, TOML:
//
//	[[allow]]
//	reason = "made for tests"       # required
//	expires = 2027-01-31            # a day, the last on which it holds
//	fingerprint = "0123456789abcdef" # at least one of these four
//	rule = "github-pat"
//	credential = "NAME"
//	path = "testdata/**"            # as in .gitignore
//
// Unknown keys are errors: a misspelt condition would allow too much.
func LoadAllow(r io.Reader, name string) ([]Allow, error) {
	var file struct {
		Allow []struct {
			Reason, Fingerprint, Rule, Credential, Path string
			Expires                                     any
		}
	}
	md, err := toml.NewDecoder(r).Decode(&file)
	if err != nil {
		var pe toml.ParseError
		if errors.As(err, &pe) {
			return nil, fmt.Errorf("%s:%d: %s", name, pe.Position.Line, pe.Message)
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if un := md.Undecoded(); len(un) > 0 {
		return nil, fmt.Errorf("%s: unknown key %s: an entry has reason, expires, fingerprint, rule, credential and path", name, un[0])
	}
	var out []Allow
	for i, e := range file.Allow {
		a := Allow{
			Reason: strings.TrimSpace(e.Reason), Fingerprint: e.Fingerprint, Rule: e.Rule, Credential: e.Credential, Path: e.Path,
			File: name, Entry: i + 1,
		}
		if a.Reason == "" {
			return nil, fmt.Errorf("%s has no reason", a.From())
		}
		if a.Fingerprint == "" && a.Rule == "" && a.Credential == "" && a.Path == "" {
			return nil, fmt.Errorf("%s would allow everything: give it a fingerprint, rule, credential or path", a.From())
		}
		if e.Path != "" {
			var ok bool
			if a.pattern, ok = parsePattern(e.Path); !ok || a.pattern.negated {
				return nil, fmt.Errorf("%s: its path is no pattern", a.From())
			}
		}
		switch v := e.Expires.(type) {
		case nil:
		case time.Time:
			a.Expires = v
			if h, m, s := v.Clock(); h+m+s == 0 { // a day: to its end, here
				a.Expires = time.Date(v.Year(), v.Month(), v.Day()+1, 0, 0, 0, 0, time.Local)
			}
		case string:
			day, err := time.ParseInLocation(time.DateOnly, v, time.Local)
			if err != nil {
				return nil, fmt.Errorf("%s: expires is no date: write 2027-01-31", a.From())
			}
			a.Expires = day.AddDate(0, 0, 1)
		default:
			return nil, fmt.Errorf("%s: expires is no date: write 2027-01-31", a.From())
		}
		out = append(out, a)
	}
	return out, nil
}

// From says which entry a is.
func (a *Allow) From() string { return fmt.Sprintf("%s: entry %d", a.File, a.Entry) }

// Last is the last day on which a holds.
func (a *Allow) Last() string { return a.Expires.Add(-time.Second).Format(time.DateOnly) }

// Live divides entries into those that hold at now, and those that expired.
func Live(entries []Allow, now time.Time) (live, expired []Allow) {
	for _, a := range entries {
		if a.Expires.IsZero() || now.Before(a.Expires) {
			live = append(live, a)
		} else {
			expired = append(expired, a)
		}
	}
	return live, expired
}

// Allows returns the entry that f is allowed by; nil if there is none.
func Allows(entries []Allow, f *Finding) *Allow {
	i := slices.IndexFunc(entries, func(a Allow) bool { return a.allows(f) })
	if i < 0 {
		return nil
	}
	return &entries[i]
}

func (a *Allow) allows(f *Finding) bool {
	switch {
	case a.Fingerprint != "" && a.Fingerprint != f.Fingerprint,
		a.Rule != "" && a.Rule != f.Rule,
		a.Credential != "" && a.Credential != f.Credential,
		f.Credential != "" && a.Credential == "" && a.Fingerprint == "":
		return false
	}
	return a.Path == "" || a.matches(f.File)
}

// matches tries the path and every folder above it, also those of an archive.
func (a *Allow) matches(file string) bool {
	path := strings.TrimPrefix(filepath.ToSlash(filepath.Clean(file)), "/")
	for end := 0; end < len(path); {
		i := strings.IndexAny(path[end:], "/!")
		if i < 0 {
			i = len(path) - end
		}
		end += i
		if a.pattern.match(path[:end], end < len(path), false) {
			return true
		}
		end++
	}
	return false
}
